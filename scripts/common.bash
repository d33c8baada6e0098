# What setup, demo and test share: where the checkout is, how to become root, and how a long step shows that it is alive.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$top/.venv

fail() { # fail SENTENCE HINT
    printf '%s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

# Machines of the `runc` driver need root. HOME and PATH stay the caller's, so that the image lies in the caller's cache.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        # Root's bytecode is not to lie in the caller's checkout, which they could not remove then.
        local bytecode=PYTHONDONTWRITEBYTECODE=1
        [[ -z ${PYTHONPYCACHEPREFIX:-} ]] || bytecode=PYTHONPYCACHEPREFIX=$PYTHONPYCACHEPREFIX
        sudo env HOME="$HOME" PATH="$PATH" ${CI:+CI="$CI"} "$bytecode" "$@"
    else
        fail "This needs root, and there is no sudo." "run '$0' as root"
    fi
}

# step NUMBER/ALL WHAT COMMAND...: run the command with its output in a log, saying what runs, how far it is (the last
# thing that it printed) and for how long; show the log's end when it fails.
step() {
    local label="[$1] $2" log=$venv.log began=$SECONDS seconds worker status=0
    shift 2
    "$@" >"$log" 2>&1 </dev/null &
    worker=$!
    # A background command does not hear Ctrl-C, and what it started would outlive it.
    # shellcheck disable=SC2064  # this very worker
    trap "pkill -P $worker; kill $worker; exit 130" INT TERM
    printf '%s ...\n' "$label"
    while kill -0 "$worker" 2>/dev/null; do
        sleep 0.2
        seconds=$((SECONDS - began))
        if [[ -t 1 ]]; then
            printf '\r\e[K      %3d s  %.90s' "$seconds" "$(tail -c 400 "$log" | tr '\r' '\n' | grep -v '^ *$' | tail -n 1)"
        elif ((seconds >= ${next:=15})); then
            next=$((seconds + 15))
            printf '      %3d s  %.90s\n' "$seconds" "$(tail -c 400 "$log" | tr '\r' '\n' | grep -v '^ *$' | tail -n 1)"
        fi
    done
    wait "$worker" || status=$?
    trap - INT TERM
    unset next
    [[ -t 1 ]] && printf '\r\e[K'
    if ((status != 0)); then
        tail -n 40 "$log" >&2
        fail "$label: failed after $((SECONDS - began)) s (exit $status)." "read $log, mend the cause and run this again"
    fi
    printf '%s: %d s\n' "$label" "$((SECONDS - began))"
    rm -f "$log"
}
