#!/bin/sh
# prepare_exec of GitLab Runner's custom executor: the worker proves itself for this job, or the job does not start.
# Installed by `attestor hook install gitlab`, and one of the measured tools: a change denies this worker.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
set -eu
umask 077
fail() { echo "assay: $1" >&2; exit "${SYSTEM_FAILURE_EXIT_CODE:-2}"; }

[ "$(id -u)" -ne 0 ] || fail "jobs do not run as root: the runner's unit needs User=@USER@"
[ -d "${ASSAY_HOOK_DIR:-}" ] || fail "config_exec is not @HOOKS@/config.sh"

# `id_tokens: ASSAY_ID_TOKEN:` in the job's definition; the other variables can be overridden by its author.
set --
if [ -n "${CUSTOM_ENV_ASSAY_ID_TOKEN:-}" ]; then
    set -- --token-env CUSTOM_ENV_ASSAY_ID_TOKEN
elif [ -n "@AUDIENCE@" ]; then
    fail "no token: the job needs id_tokens: ASSAY_ID_TOKEN: aud: @AUDIENCE@"
fi
"@ATTESTOR@" permit --job gitlab --socket "@SOCKET@" --defer "$ASSAY_HOOK_DIR/permit.json" "$@" ||
    fail "no permit: the job does not start"
