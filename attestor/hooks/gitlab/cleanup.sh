#!/bin/sh
# cleanup_exec of GitLab Runner's custom executor: ends the job's permit, and with it what is left of the job.
# Installed by `attestor hook install gitlab`, and one of the measured tools: a change denies this worker.
set -u
case "${ASSAY_HOOK_DIR:-}" in
    "@RUN_GITLAB@"/job.*) ;;
    *) exit 0 ;;
esac
for file in permit used; do
    permit=$(sed -n 's/.*"permit_id": *"\([0-9a-f]*\)".*/\1/p' "$ASSAY_HOOK_DIR/$file.json" 2>/dev/null)
    [ -n "$permit" ] || continue
    [ -e "$ASSAY_HOOK_DIR/ended" ] || "@ATTESTOR@" permit --end "$permit" --socket "@SOCKET@" ||
        echo "assay: the permit ends by itself" >&2
done
# Its processes get 10 s to end.
waited=0
while [ -e "$ASSAY_HOOK_DIR/request" ] && [ ! -e "$ASSAY_HOOK_DIR/ended" ] && [ "$waited" -lt 15 ]; do
    sleep 1
    waited=$((waited + 1))
done
rm -rf "$ASSAY_HOOK_DIR"
exit 0
