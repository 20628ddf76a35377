#!/bin/sh
# cleanup_exec of GitLab Runner's custom executor: ends the job's permit, and with it what is left of the job.
# Installed by `attestor hook install gitlab`, and one of the measured tools: a change denies this worker.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
set -u
case "${ASSAY_HOOK_DIR:-}" in
    "@RUN_GITLAB@"/job.*) ;;
    *) exit 0 ;;
esac
# The number and start of the one who holds it, which lie beside the folder. Unless it is another process by now.
record="@RUN_GITLAB@/holder.${ASSAY_HOOK_DIR##*/job.}"
holder= born=
[ -f "$record" ] && read -r holder born <"$record"
case "$holder$born" in
    *[!0-9]*) holder= ;;
esac
holds() {
    [ -n "$holder" ] && [ -n "$born" ] && [ -e "/proc/$holder/stat" ] || return 1
    { read -r stat <"/proc/$holder/stat"; } 2>/dev/null || return 1
    # After the name, which may hold anything.
    set -f
    set -- ${stat##*) }
    set +f
    [ "$1" != Z ] && [ "${20}" = "$born" ]
}
# Whoever holds the permit ends all that came of the job, in sessions of their own too, and gives the permit back: processes get
# 8 s to end. One that the job has stopped would not see it.
if holds; then
    kill -s TERM "$holder" 2>/dev/null
    kill -s CONT "$holder" 2>/dev/null
    waited=0
    while holds && [ "$waited" -lt 20 ]; do
        sleep 1
        waited=$((waited + 1))
    done
    # Whoever waited for it writes its end just then.
    [ -e "$ASSAY_HOOK_DIR/ended" ] || sleep 1
fi
# One that was never redeemed, or whose holder is not known or did not end.
for file in permit used; do
    permit=$(sed -n 's/.*"permit_id": *"\([0-9a-f]*\)".*/\1/p' "$ASSAY_HOOK_DIR/$file.json" 2>/dev/null)
    [ -n "$permit" ] || continue
    [ -e "$ASSAY_HOOK_DIR/ended" ] && ! holds || "@ATTESTOR@" permit --end "$permit" --socket "@SOCKET@" ||
        echo "assay: the permit ends by itself" >&2
done
if holds; then
    groups=$(cat /proc/"$holder"/task/*/children 2>/dev/null)
    for group in $groups; do
        kill -s KILL -- "-$group" 2>/dev/null
    done
    kill -s KILL "$holder" 2>/dev/null
    # The next job does not begin beside what is being ended.
    for group in $groups; do
        waited=0
        while kill -s 0 -- "-$group" 2>/dev/null && [ "$waited" -lt 5 ]; do
            sleep 1
            waited=$((waited + 1))
        done
    done
fi
rm -f "$record"
# As above.
rm -rf "$ASSAY_HOOK_DIR" 2>/dev/null || { sleep 1; rm -rf "$ASSAY_HOOK_DIR"; }
exit 0
