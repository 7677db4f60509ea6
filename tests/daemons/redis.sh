#!/usr/bin/env bash
# Redis: every value that went in comes back; BGSAVE and an AOF rewrite while clients write; a restart from
# each of the two files.
. "$(dirname "$0")/lib.sh"
. "$here/lib_daemons.sh"

count=$((short ? 4000 : 30000))
port=$(free_port)

begin() { # OPTION...
    start "$port" redis-server --port "$port" --bind 127.0.0.1 --dir "$folder" --save '' \
        --activedefrag no "$@"
}

ask() { # COMMAND...
    run redis-cli -p "$port" --raw "$@"
}

is_quiet() {
    ask INFO persistence >"$folder/info"
    grep -q 'rdb_bgsave_in_progress:0' "$folder/info" &&
        grep -q 'aof_rewrite_in_progress:0' "$folder/info" &&
        grep -q 'aof_rewrite_scheduled:0' "$folder/info"
}

show() {
    redis_queries "$count" | run redis-cli -p "$port" --raw | cksum >>"$out"
    ask DBSIZE >>"$out"
}

write_meanwhile() {
    run redis-benchmark -p "$port" -q -n $((short ? 4000 : 40000)) -c 20 -P 8 -d 300 -r 5000 \
        -t set,lpush,sadd,hset,zadd >"$folder/bench.log" 2>&1
}

drive() {
    begin --appendonly yes --appendfsync no || return
    redis_load "$count" | awk '{
        printf "*%d\r\n", NF
        for (i = 1; i <= NF; i++) printf "$%d\r\n%s\r\n", length($i), $i
    }' | run redis-cli -p "$port" --pipe >"$folder/load.log" 2>&1
    show
    local i writer
    for ((i = 0; i < (short ? 2 : 6); i++)); do
        write_meanwhile &
        writer=$!
        ask BGSAVE >/dev/null
        await is_quiet
        ask BGREWRITEAOF >/dev/null
        await is_quiet
        wait "$writer" || echo "benchmark: $?" >>"$out"
        grep -E 'last_bgsave_status|aof_last_bgrewrite_status|aof_last_write_status' "$folder/info" >>"$out"
    done
    sleep "$idle"
    show_steady
    stop "$pid"
    begin --appendonly yes --appendfsync no || return
    await is_loaded
    show_steady
    ask SAVE >>"$out"
    stop "$pid"
    begin --appendonly no || return
    await is_loaded
    show_steady
    ask FLUSHALL ASYNC >>"$out"
    stop "$pid"
}

is_loaded() {
    [ "$(ask PING)" = PONG ]
}

# What the benchmark wrote is random; what was loaded before is not.
show_steady() {
    redis_queries "$count" | run redis-cli -p "$port" --raw | cksum >>"$out"
}

need redis redis-server redis-cli redis-benchmark && compare redis drive
finish
