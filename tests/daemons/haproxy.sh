#!/usr/bin/env bash
# HAProxy as master with workers, two threads, before two servers of Python's; reloaded under load.
. "$(dirname "$0")/lib.sh"

port=$(free_port)
first=$(free_port)
second=$(free_port)

configure() {
    local i
    mkdir -p "$folder/files"
    for i in 1 2 3 4 5; do
        seq 1 $((i * i * 900)) >"$folder/files/file$i"
    done
    cat >"$folder/haproxy.cfg" <<END
global
    maxconn 200
    nbthread 2
    stats socket $folder/socket
defaults
    mode http
    timeout connect 10s
    timeout client 30s
    timeout server 30s
    retries 3
    option redispatch
frontend front
    bind 127.0.0.1:$port
    compression algo gzip
    default_backend servers
backend servers
    balance roundrobin
    server first 127.0.0.1:$first
    server second 127.0.0.1:$second
END
}

load() {
    python3 "$daemons_here/fetch.py" "http://127.0.0.1:$port" $((short ? 10 : 60)) 4 /file1 /file2 /file3 \
        /file5 >>"$out" 2>&1
}

drive() {
    local servers=()
    configure
    start "$first" python3 -m http.server "$first" --bind 127.0.0.1 -d "$folder/files" || return
    servers+=("$pid")
    start "$second" python3 -m http.server "$second" --bind 127.0.0.1 -d "$folder/files" || return
    servers+=("$pid")
    start "$port" haproxy -W -db -f "$folder/haproxy.cfg" || return
    load &
    local loading=$!
    sleep 0.4
    kill -USR2 "$pid"
    wait "$loading"
    await answers "$port"
    sleep "$idle"
    load
    [ "$how" = plain ] || has_firn "$pid"
    stop "$pid"
    stop "${servers[0]}"
    stop "${servers[1]}"
}

need haproxy haproxy python3 && compare haproxy drive
finish
