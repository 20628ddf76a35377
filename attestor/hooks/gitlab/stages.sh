#!/bin/bash
# What holds a GitLab job's permit: FOLDER. Runs the stages that run.sh asks for, one after the other, until the permit ends.
# Installed by `attestor hook install gitlab`, and one of the measured tools: a change denies this worker.
stage_path=${PATH:-}
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
set -u
umask 077
job=$1
# Open for writing too, so that it never ends.
exec 3<>"$job/request"
: >"$job/ready"
while read -r mark <&3; do
    umask 022
    PATH=$stage_path bash "$job/stage.sh" >"$job/output" 2>&1 3<&- </dev/null
    code=$?
    umask 077
    # Over whatever the stage left under this name. Where it cannot be written, nobody has to wait for it.
    rm -rf "$job/result.new"
    echo "$mark $code" >"$job/result.new" && mv -fT "$job/result.new" "$job/result" || exit 1
done
