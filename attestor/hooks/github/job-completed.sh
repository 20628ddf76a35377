#!/bin/bash
# Job-completed hook of the GitHub Actions runner: ends the job's permit.
# Installed by `attestor hook install github`, and one of the measured tools: a change denies this worker.
#
# ASSAY_PERMIT_ID comes from the job-started hook through GITHUB_ENV. A job that changes it gains nothing: a permit that
# nobody ends does so by itself, at its time or when its worker is not what it proved to be.
case "${ASSAY_PERMIT_ID:-}" in
    "") echo "assay: this job has no permit to end" ;;
    *[!0-9a-f]*) echo "assay: ASSAY_PERMIT_ID is not a permit" ;;
    *) "@ATTESTOR@" permit --end "$ASSAY_PERMIT_ID" --socket "@SOCKET@" || echo "assay: the permit ends by itself" ;;
esac
exit 0
