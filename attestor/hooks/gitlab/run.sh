#!/bin/bash
# run_exec of GitLab Runner's custom executor: SCRIPT STAGE. What the job's author wrote runs under a permit, and ends with it.
# Installed by `attestor hook install gitlab`, and one of the measured tools: a change denies this worker.
set -u
umask 077
fail() { echo "assay: $1" >&2; exit "${SYSTEM_FAILURE_EXIT_CODE:-2}"; }

[ "$(id -u)" -ne 0 ] || fail "jobs do not run as root: the runner's unit needs User=@USER@"
[ -d "${ASSAY_HOOK_DIR:-}" ] || fail "config_exec is not @HOOKS@/config.sh"
[ $# -ge 2 ] || fail "GitLab Runner gives a script and the name of a stage"
script=$1 stage=$2

# The job's own failure, with its code where the runner takes one.
finish() {
    [ "$1" -eq 0 ] && exit 0
    [ -n "${BUILD_EXIT_CODE_FILE:-}" ] && echo "$1" >"$BUILD_EXIT_CODE_FILE"
    exit "${BUILD_FAILURE_EXIT_CODE:-1}"
}

# Secrets in files are removed whatever happened.
if [ "$stage" = cleanup_file_variables ]; then
    bash "$script"
    finish $?
fi
[ ! -e "$ASSAY_HOOK_DIR/refused" ] || fail "an earlier stage of this job was refused"

case "$stage" in
    prepare_script | restore_cache | download_artifacts | archive_cache | archive_cache_on_failure | \
        upload_artifacts_on_success | upload_artifacts_on_failure)
        # The runner's own commands.
        bash "$script"
        finish $?
        ;;
esac

# Everything else holds the author's commands, `hooks: pre_get_sources_script` and `after_script` too: the first uses the
# permit of prepare_exec, each further one gets a permit of its own. A name that is new here counts as the author's.
set -- --job gitlab
if [ -n "${CUSTOM_ENV_ASSAY_ID_TOKEN:-}" ]; then
    set -- "$@" --token-env CUSTOM_ENV_ASSAY_ID_TOKEN
fi
if [ -e "$ASSAY_HOOK_DIR/permit.json" ]; then
    mv "$ASSAY_HOOK_DIR/permit.json" "$ASSAY_HOOK_DIR/used.json"
    set -- --permit "$ASSAY_HOOK_DIR/used.json"
fi
# The code of the script goes through a file: `exec` exits with 0 only where the script ended by itself.
rm -f "$ASSAY_HOOK_DIR/code"
# shellcheck disable=SC2016
"@ATTESTOR@" exec --socket "@SOCKET@" --refused-code 3 "$@" -- \
    /bin/sh -c 'bash "$1"; echo $? >"$2"' assay "$script" "$ASSAY_HOOK_DIR/code"
if [ $? -ne 0 ] || ! read -r code <"$ASSAY_HOOK_DIR/code"; then
    : >"$ASSAY_HOOK_DIR/refused"
    fail "stage $stage was refused, or ended with its permit"
fi
case "$code" in
    "" | *[!0-9]*) fail "stage $stage left no exit code" ;;
esac
finish "$code"
