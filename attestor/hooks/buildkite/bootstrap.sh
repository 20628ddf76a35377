#!/bin/sh
# The agent's bootstrap-script: the whole job runs under the permit of pre-bootstrap, and ends with it.
# Installed by `attestor hook install buildkite`, and one of the measured tools: a change denies this worker.
set -u
case "${BUILDKITE_JOB_ID:-}" in
    "" | *[!0-9A-Za-z-]*) echo "assay: BUILDKITE_JOB_ID is not the identifier of a job" >&2; exit 3 ;;
esac
waiting="@RUN_BUILDKITE@/$BUILDKITE_JOB_ID.json"
permit="@RUN_BUILDKITE@/$BUILDKITE_JOB_ID.used"
mv "$waiting" "$permit" 2>/dev/null || { echo "assay: this job has no permit: is the hook pre-bootstrap in force?" >&2; exit 3; }
exec "@ATTESTOR@" exec --socket "@SOCKET@" --refused-code 3 --permit "$permit" -- @BUILDKITE_AGENT@ bootstrap "$@"
