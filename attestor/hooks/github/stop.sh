#!/bin/sh
# What the daemon runs as jobs.on_end and jobs.on_refused: the runner is stopped, by root's path unit, if the job was the runner's.
# Installed by `attestor hook install github`, and one of the measured tools: a change denies this worker.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
set -u
user=$(id -u "@USER@")
# Jobs of other systems run as other users. Where it cannot be told whose it was, the runner is stopped.
[ -n "$user" ] && [ -n "${ASSAY_UID:-}" ] && [ "$ASSAY_UID" != "$user" ] && exit 0
exec touch "@RUN@/stop-github"
