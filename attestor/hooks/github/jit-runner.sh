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

# Removes a folder with what a job left in it: folders, too, that nobody may write to, as those of Go's modules. What cannot be
# removed stays, and is nobody's next.
clear() {
    for left in "$@"; do
        [ -d "$left" ] && [ ! -L "$left" ] || continue
        find "$left" -type d ! -perm -u+rwx -exec chmod u+rwx {} \; 2>/dev/null || :
        rm -rf "$left" || :
    done
}

# What an earlier job left, however it ended.
clear "$state"/run.*
own=$(mktemp -d "$state/run.XXXXXXXX")
trap 'clear "$own"' EXIT
# In the user's HOME lies what earlier jobs wrote (.curlrc, .netrc, .gitconfig): the registration has an empty one, and the runner
# another, which ends with its job.
mkdir "$own/registration" "$own/home" "$own/runner"
cp -R "$ASSAY_RUNNER_DIR/." "$own/runner/"
echo "ACTIONS_RUNNER_HOOK_JOB_STARTED=@HOOKS@/job-started.sh" >"$own/runner/.env"

run=${INVOCATION_ID:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}
jit=$(HOME="$own/registration" ASSAY_JOB_ID=register-runner ASSAY_JOB_RUN_ID="$run" \
    "@ATTESTOR@" exec --job generic --socket "@SOCKET@" --refused-code 3 -- "$ASSAY_JIT_COMMAND")
[ -n "$jit" ] || { echo "assay: $ASSAY_JIT_COMMAND printed nothing" >&2; exit 1; }
clear "$own/registration"

cd "$own/runner"
# Not as an argument, which every user of this machine could read. The runner takes it out of its environment.
HOME=$own/home PATH=$runner_path ACTIONS_RUNNER_INPUT_JITCONFIG=$jit ./run.sh
