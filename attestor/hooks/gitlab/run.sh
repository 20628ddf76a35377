#!/bin/bash
# run_exec of GitLab Runner's custom executor: SCRIPT STAGE. What the job's author wrote runs under a permit, and ends with it.
# Installed by `attestor hook install gitlab`, and one of the measured tools: a change denies this worker.
runner_path=${PATH:-}
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
set -u
umask 077
fail() { echo "assay: $1" >&2; exit "${SYSTEM_FAILURE_EXIT_CODE:-2}"; }

[ "$(id -u)" -ne 0 ] || fail "jobs do not run as root: the runner's unit needs User=@USER@"
[ -d "${ASSAY_HOOK_DIR:-}" ] || fail "config_exec is not @HOOKS@/config.sh"
[ $# -ge 2 ] || fail "GitLab Runner gives a script and the name of a stage"
script=$1 stage=$2 job=$ASSAY_HOOK_DIR

# The job's own failure, with its code where the runner takes one.
finish() {
    [ "$1" -eq 0 ] && exit 0
    [ -n "${BUILD_EXIT_CODE_FILE:-}" ] && echo "$1" >"$BUILD_EXIT_CODE_FILE"
    exit "${BUILD_FAILURE_EXIT_CODE:-1}"
}

# Secrets in files are removed whatever happened.
if [ "$stage" = cleanup_file_variables ]; then
    PATH=$runner_path bash "$script"
    finish $?
fi
[ ! -e "$job/ended" ] || fail "stage $stage: the permit of this job has ended"

# Where the job will run; nothing of the author's is in its script.
if [ "$stage" = prepare_script ]; then
    PATH=$runner_path bash "$script"
    finish $?
fi

# Everything else holds the author's commands, or begins with the author's variables, as the stages of caches and artifacts do;
# so may a name that is new here. The first such stage redeems the permit of prepare_exec: one process holds it and runs this
# stage and the others. It is recorded beside the job's folder too: it must be found whatever a job does to the folder.
record="@RUN_GITLAB@/holder.${job##*/job.}"
if [ ! -e "$job/ready" ]; then
    mv "$job/permit.json" "$job/used.json" 2>/dev/null || fail "this job has no permit: is prepare_exec in force?"
    mkfifo "$job/request" || fail "cannot make a pipe"
    (
        PATH=$runner_path /usr/bin/env -u ASSAY_HOOK_DIR "@ATTESTOR@" exec --socket "@SOCKET@" --refused-code 3 \
            --permit "$job/used.json" -- "@HOOKS@/stages.sh" "$job" &
        holder=$!
        read -r stat <"/proc/$holder/stat"
        set -f
        set -- ${stat##*) }
        # Nobody would find it, or see its end.
        echo "$holder ${20}" >"$record" || kill "$holder"
        wait "$holder"
        echo $? >"$job/ended"
    ) </dev/null >"$job/holder.log" 2>&1 &
    starter=$!
    until [ -e "$job/ready" ] && [ -s "$record" ]; do
        # It goes with the holder, whether or not it can write how that ended.
        kill -0 "$starter" 2>/dev/null || break
        sleep 0.1
    done
fi

# Whether the holder runs, and has the folder: what it has to say of its end or a stage's has nowhere to stand without.
holds() {
    local holder born stat
    [ -d "$job" ] && read -r holder born <"$record" && read -r stat <"/proc/$holder/stat" || return 1
    set -f
    set -- ${stat##*) }
    set +f
    [ "$1" != Z ] && [ "${20}" = "$born" ]
} 2>/dev/null

# What the holder said since it was shown last.
shown=$(cat "$job/shown" 2>/dev/null || echo 0)
show() {
    [ -f "$job/holder.log" ] || return
    tail -c "+$((shown + 1))" "$job/holder.log" >&2
    shown=$(stat -c %s "$job/holder.log")
    echo "$shown" >"$job/shown"
}
show

rm -f "$job/result" "$job/output"
mkfifo "$job/output" && cp "$script" "$job/stage.sh" || fail "cannot hand the stage over"
cat "$job/output" &
reader=$!
# Open for reading too, so that it waits for nobody.
exec 3<>"$job/request" || fail "cannot ask for the stage"
# The stage's result begins with this, which the stage does not know: a file of its own making is none.
read -r mark </proc/sys/kernel/random/uuid
echo "$mark" >&3
code=
while :; do
    is_over=
    holds || is_over=1
    if [ -f "$job/result" ] && read -r said code <"$job/result" && [ "$said" = "$mark" ]; then break; fi
    code=
    [ -z "$is_over" ] || break
    sleep 0.1
done

# Until the output's end, but not for a process that was left behind with it.
for _ in 1 2 3 4 5 6 7 8 9 10; do
    kill -0 "$reader" 2>/dev/null || break
    sleep 0.1
done
kill "$reader" 2>/dev/null
if [ -z "$code" ]; then
    show
    fail "stage $stage was refused, or ended with its permit"
fi
case "$code" in
    "" | *[!0-9]*) fail "stage $stage left no exit code" ;;
esac
finish "$code"
