# Checks of programs under a limit; sourced, never run.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # few, short: lib.sh

# Limits are compared, not amounts of work.
few=1

check_some() { # LABEL
    check_perl "$1"
    check_bash "$1"
    [ "$short" = 0 ] || return
    check_lua "$1"
    check_python "$1"
    check_sqlite "$1"
    check_gcc "$1"
    check_sort "$1"
}

# Where it does not matter so much what the programs do.
check_few() { # LABEL
    if [ -n "${FIRN_THOROUGH:-}" ]; then
        check_some "$1"
        return
    fi
    check_perl "$1"
    check_bash "$1"
    [ "$short" = 1 ] || check_python "$1"
}

check_all() { # LABEL
    check_some "$1"
    [ "$short" = 0 ] || return
    check_git "$1"
    check_node "$1"
}
