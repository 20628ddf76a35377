#!/bin/bash
# Job-started hook of the GitHub Actions runner: the job gets a permit, or its worker process ends.
# Installed by `attestor hook install github`, and one of the measured tools: a change denies this worker.
#
# The runner starts this as `bash -e FILE`, a child of Runner.Worker, which runs the steps. A hook that merely fails does
# not keep steps with `if: always()` from running, so whatever is not a permit kills the worker.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
# Root's: what an earlier job left in the runner's own (.curlrc, .netrc) is nobody's settings here.
HOME=/
export PATH HOME
# Of the runner's surroundings only what a site has reason to set, such as a proxy, leads to GitHub.
unset BASH_ENV ENV LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT CURL_HOME XDG_CONFIG_HOME SSLKEYLOGFILE OPENSSL_CONF
worker=$PPID

# A process's start: a number alone could be another's by then.
start_of() {
    local stat
    read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
    set -f
    # After the name, which may hold anything.
    set -- ${stat##*) }
    echo "${20}"
}
born=$(start_of "$worker") || born=

stop_worker() {
    [ -n "$born" ] && [ "$(start_of "$worker")" = "$born" ] && kill -KILL "$worker"
}

# Sees every end of this hook, also one by a signal: what it says comes through here, and unless the last of it is a permit,
# the worker ends. `permit` must be a child of the worker (it takes this shell's place), so no shell could wait for it.
watch() {
    trap '' HUP INT TERM
    set +e
    local line proved=
    while IFS= read -r line; do
        printf '%s\n' "$line"
        [ "$line" = "attestor: this worker has proved itself for this job" ] && proved=1
    done
    [ -n "$proved" ] || stop_worker
}
exec > >(watch)

refuse() {
    echo "assay: this job does not run here: $1"
    echo "::error title=assay::GATE_HOOK_FAILED $1"
    # The worker sends what was said to GitHub in the meantime; it waits for this hook and runs no step.
    sleep 3
    stop_worker || :
    exit 3
}

# What keeps a program from starting at all (a missing file, a missing library) shows here, while somebody can still act.
"@ATTESTOR@" permit --help >/dev/null 2>&1 || refuse "@ATTESTOR@ does not run"
[ -n "${GITHUB_ENV:-}" ] && set -- --env-out "$GITHUB_ENV"
if [ -n "@AUDIENCE@" ]; then
    [ -n "${ACTIONS_ID_TOKEN_REQUEST_URL:-}" ] || refuse "no token: the job needs permissions: id-token: write"
    # The token that asks for the token goes through a pipe: arguments can be read by others.
    answer=$(printf 'Authorization: bearer %s\n' "${ACTIONS_ID_TOKEN_REQUEST_TOKEN:-}" |
        /usr/bin/curl -q -fsS --proto '=https,http' --max-time 30 -H @- "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=@AUDIENCE@") ||
        refuse "GitHub gave no token"
    ASSAY_TOKEN=$(printf '%s' "$answer" | sed -n 's/.*"value" *: *"\([A-Za-z0-9._-]*\)".*/\1/p')
    [ -n "$ASSAY_TOKEN" ] || refuse "GitHub's answer has no token"
    export ASSAY_TOKEN
    set -- "$@" --token-env ASSAY_TOKEN
fi

# By exec, so that the parent of the one who asks is the worker: its processes get the job's identities. One that fails ends this
# shell before anything else is said, unless both of these are set.
shopt -s execfail
set +e
exec "@ATTESTOR@" permit --job github --for parent --socket "@SOCKET@" --refused-code 3 --stop-parent "$@"
refuse "@ATTESTOR@ did not start"
