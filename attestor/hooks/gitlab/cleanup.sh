#!/bin/sh
# cleanup_exec of GitLab Runner's custom executor: ends a permit that was not used, and removes the job's folder.
# Installed by `attestor hook install gitlab`, and one of the measured tools: a change denies this worker.
set -u
case "${ASSAY_HOOK_DIR:-}" in
    "@RUN_GITLAB@"/job.*) ;;
    *) exit 0 ;;
esac
permit=$(sed -n 's/.*"permit_id": *"\([0-9a-f]*\)".*/\1/p' "$ASSAY_HOOK_DIR/permit.json" 2>/dev/null)
if [ -n "$permit" ]; then
    "@ATTESTOR@" permit --end "$permit" --socket "@SOCKET@" || echo "assay: the permit ends by itself" >&2
fi
rm -rf "$ASSAY_HOOK_DIR"
exit 0
