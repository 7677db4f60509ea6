#!/usr/bin/env bash
# PostgreSQL: initdb, pgbench with eight clients, a restart, a crash (SIGKILL) and recovery, a dump that must
# be the same.
. "$(dirname "$0")/lib.sh"

programs=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)
port=$(free_port)
PATH=$PATH:$programs
user=postgres
seconds=120

begin() {
    start "$port" postgres -D "$folder/data" -p "$port" -k "$folder" -c fsync=off \
        -c listen_addresses=127.0.0.1 -c shared_buffers=16MB -c logging_collector=off
}

ask() { # SQL
    run psql -h "$folder" -p "$port" -At -d postgres -c "$1" >>"$out" 2>&1
}

fill() {
    ask "create table t as select i, md5(i::text) m, repeat('x', i % 500) r from generate_series(1,
        $((short ? 5000 : 40000))) i; create index on t(m);"
    ask "select count(*), sum(length(r)), max(m) from t;"
    ask "select m, count(*) from (select substr(m, 1, 1) m, r from t order by r, m) q group by 1 order by 1;"
}

drive() {
    chown "$user" "$folder"
    become "$user"
    run initdb -D "$folder/data" -A trust -N >"$folder/initdb.log" 2>&1 ||
        echo "initdb: $?" >>"$out"
    begin || return
    fill
    run pgbench -h "$folder" -p "$port" -i -s 1 -q postgres >"$folder/init.log" 2>&1
    # Each client a fixed number of transactions of its own seed: the sums come out the same.
    run pgbench -h "$folder" -p "$port" -c 8 -j 2 -t $((short ? 50 : 500)) \
        --random-seed=7 postgres >"$folder/bench.log" 2>&1
    grep 'actually processed' "$folder/bench.log" >>"$out"
    ask "select sum(abalance), count(*) from pgbench_accounts;"
    ask "select sum(delta), count(*) from pgbench_history;"
    ask "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history);"
    sleep "$idle"
    kill -HUP "$pid"
    [ "$how" = plain ] || has_firn "$pid"
    stop "$pid" INT
    begin || return
    ask "insert into t select i, 'crash', '' from generate_series(1, 1000) i;"
    kill -9 $(pgrep -P "$pid" | head -n 2) 2>/dev/null # backends: the postmaster starts all anew
    sleep 1
    await ready
    ask "select count(*) from t where m = 'crash';"
    kill -9 "$pid"
    wait "$pid" 2>/dev/null
    sleep 0.3
    rm -f "$folder/data/postmaster.pid"
    sleep 0.5
    begin || return
    await ready
    fill
    run pg_dump -h "$folder" -p "$port" -t t postgres 2>>"$out" | grep -v '^--\|restrict' | cksum >>"$out"
    stop "$pid" INT
}

ready() {
    run pg_isready -q -h "$folder" -p "$port"
}

if need_root postgresql && [ -n "$programs" ] && need postgresql postgres pgbench psql; then
    compare postgresql drive
fi
finish
