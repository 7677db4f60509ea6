#!/usr/bin/env bash
# sudo, su and man: programs that change their user, call PAM, or put themselves under a seccomp filter
# (man, by libseccomp).
. "$(dirname "$0")/lib.sh"

drive_man() {
    local page
    for page in bash ls perl tar; do
        MANPAGER=cat MAN_KEEP_FORMATTING='' run man --no-hyphenation "$page" 2>>"$folder/man.log" | cksum >>"$out"
    done
    MANPAGER=cat run man -k printf 2>&1 | sort | cksum >>"$out"
    cat "$folder/man.log" >>"$out"
    run mandb -u --no-straycats -q "$folder" >/dev/null 2>&1
    echo "mandb $?" >>"$out"
}

# The library stands in a folder that the loader trusts only when it is installed: through env it is, for
# the command that sudo and su run.
drive_users() {
    run sudo -n id -u >>"$out" 2>&1
    run sudo -n -u nobody id -u >>"$out" 2>&1
    if [ "$how" = firn ]; then
        run sudo -n -u nobody env LD_PRELOAD="$FIRN_LIB" sh -c 'seq 1 1000 | sort -n | cksum' >>"$out" 2>&1
    else
        run sudo -n -u nobody sh -c 'seq 1 1000 | sort -n | cksum' >>"$out" 2>&1
    fi
    run sudo -n -l >>"$out" 2>&1
    run su nobody -s /bin/sh -c 'id -u; seq 1 1000 | sort -n | cksum' >>"$out" 2>&1
    run runuser -u nobody -- sh -c 'id -u; seq 1 1000 | sort -n | cksum' >>"$out" 2>&1
    run setpriv --reuid=nobody --clear-groups --no-new-privs id -u >>"$out" 2>&1
}

need man man mandb && compare man drive_man
need_root users && need users sudo su && compare users drive_users
finish
