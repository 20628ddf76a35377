#!/bin/sh
# config_exec of GitLab Runner's custom executor: a folder for the job's permit.
# Installed by `attestor hook install gitlab`, and one of the measured tools: a change denies this worker.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
set -eu
umask 077
fail() { echo "assay: $1" >&2; exit "${SYSTEM_FAILURE_EXIT_CODE:-2}"; }

[ "$(id -u)" -ne 0 ] || fail "jobs do not run as root: the runner's unit needs User=@USER@"
job=$(mktemp -d "@RUN_GITLAB@/job.XXXXXXXX") || fail "@RUN_GITLAB@ is not a folder of the runner's user"
# Without the prefix CUSTOM_ENV_: for these scripts, not for the job, and not to be set by it.
printf '{"driver":{"name":"assay","version":"1"},"job_env":{"ASSAY_HOOK_DIR":"%s"}}\n' "$job"
