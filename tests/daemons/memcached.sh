#!/usr/bin/env bash
# memcached with four threads: every value that went in comes back, also after a time without load.
. "$(dirname "$0")/lib.sh"

port=$(free_port)

load() {
    run perl "$here/programs/memcached.pl" "$port" $((short ? 3000 : 20000)) >>"$out" 2>&1
}

drive() {
    local user=()
    [ "$(id -u)" != 0 ] || user=(-u nobody)
    start "$port" memcached -l 127.0.0.1 -p "$port" -U 0 -t 4 -m 64 "${user[@]}" || return
    load
    sleep "$idle"
    load
    stop "$pid"
}

need memcached memcached perl && compare memcached drive
finish
