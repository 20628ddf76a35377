#!/bin/sh
# Registers an ephemeral runner just in time, if this worker proves itself now, and runs the one job that it gets.
# Installed by `attestor hook install github`, and one of the measured tools: a change denies this worker.
#
# From the unit:
#   ASSAY_RUNNER_DIR   the runner's files, unpacked, root-owned; they are copied for each job
#   ASSAY_JIT_COMMAND  program of this site that prints an encoded just-in-time configuration. It runs under a permit of its
#                      own, and may authenticate with the identities at SPIFFE_ENDPOINT_SOCKET to whoever holds the key of the
#                      GitHub App: that key has no place on a worker.
runner_path=${PATH:-}
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
set -eu
umask 077

: "${ASSAY_RUNNER_DIR:?is the folder of the runner}"
: "${ASSAY_JIT_COMMAND:?is a program that prints a just-in-time configuration}"
state=${STATE_DIRECTORY:-@ROOT@/var/lib/assay-github-runner}

"@ATTESTOR@" status --output-dir "@RUN@" || exit 3

# What an earlier job left in its copy, however it ended.
rm -rf "$state"/run.*
home=$(mktemp -d "$state/run.XXXXXXXX")
trap 'rm -rf "$home"' EXIT
cp -R "$ASSAY_RUNNER_DIR/." "$home/"
echo "ACTIONS_RUNNER_HOOK_JOB_STARTED=@HOOKS@/job-started.sh" >"$home/.env"

run=${INVOCATION_ID:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}
jit=$(ASSAY_JOB_ID=register-runner ASSAY_JOB_RUN_ID="$run" \
    "@ATTESTOR@" exec --job generic --socket "@SOCKET@" --refused-code 3 -- "$ASSAY_JIT_COMMAND")
[ -n "$jit" ] || { echo "assay: $ASSAY_JIT_COMMAND printed nothing" >&2; exit 1; }

cd "$home"
# Not as an argument, which every user of this machine could read. The runner takes it out of its environment.
PATH=$runner_path ACTIONS_RUNNER_INPUT_JITCONFIG=$jit ./run.sh
