#!/bin/sh
# The agent's bootstrap-script: the whole job runs under the permit of pre-bootstrap, and ends with it.
# Installed by `attestor hook install buildkite`, and one of the measured tools: a change denies this worker.
#
# It has the variables of the job's author: nothing is looked up by a PATH of theirs before the permit is redeemed.
job_path=${PATH:-}
PATH=/usr/sbin:/usr/bin:/sbin:/bin
set -u
case "${BUILDKITE_JOB_ID:-}" in
    "" | *[!0-9A-Za-z-]*) echo "assay: BUILDKITE_JOB_ID is not the identifier of a job" >&2; exit 3 ;;
esac
waiting="@RUN_BUILDKITE@/$BUILDKITE_JOB_ID.json"
permit="@RUN_BUILDKITE@/$BUILDKITE_JOB_ID.used"
/bin/mv "$waiting" "$permit" 2>/dev/null || { echo "assay: this job has no permit: is the hook pre-bootstrap in force?" >&2; exit 3; }
PATH=$job_path
export PATH
exec "@ATTESTOR@" exec --socket "@SOCKET@" --refused-code 3 --permit "$permit" -- @BUILDKITE_AGENT@ bootstrap "$@"
