#!/usr/bin/env bash
# MariaDB: a new data folder, eight clients at once, a restart, a crash (SIGKILL) and recovery, a dump that
# must be the same.
. "$(dirname "$0")/lib.sh"

port=$(free_port)
user=mysql
seconds=150
rows=$((short ? 2000 : 20000))

begin() {
    start "$port" mariadbd --no-defaults --datadir="$folder/data" --port="$port" \
        --bind-address=127.0.0.1 --socket="$folder/socket" --pid-file="$folder/pid" \
        --innodb-buffer-pool-size=32M --innodb-flush-log-at-trx-commit=0 --innodb-log-file-size=16M
}

client() {
    run mariadb --no-defaults --socket="$folder/socket" -u root -N test "$@"
}

# Thread NUMBER of eight: rows of its own, changed, some removed.
one() { # NUMBER
    local i
    echo "start transaction;"
    for ((i = 0; i < rows / 8; i++)); do
        echo "insert into t values ($1 * 100000 + $i, md5($i), repeat('y', $i % 300));"
        [ $((i % 50)) != 0 ] || echo "commit; start transaction;"
    done
    echo "update t set v = concat(v, 'z') where k >= $1 * 100000 and k < $1 * 100000 + 500;"
    echo "delete from t where k >= $1 * 100000 and k < $1 * 100000 + 90000 and k % 7 = 0; commit;"
}

show() {
    client -e "select count(*), sum(length(v)), min(m), max(m) from t;
        select substr(m, 1, 1) x, count(*), group_concat(k order by k limit 5) from t group by x order by x;
        select sha1(group_concat(v order by k separator '')) from t where k % 100 = 1;" >>"$out" 2>&1
}

drive() {
    chown "$user" "$folder"
    run mariadb-install-db --no-defaults --user="$user" --datadir="$folder/data" \
        --auth-root-authentication-method=normal --skip-test-db >"$folder/install.log" 2>&1 ||
        echo "install: $?" >>"$out"
    become "$user"
    begin || return
    run mariadb --no-defaults --socket="$folder/socket" -u root -e "create database test;
        create table test.t (k bigint primary key, m char(32), v text, index(m));" >>"$out" 2>&1
    local i clients=()
    for i in 1 2 3 4 5 6 7 8; do
        one "$i" | client >>"$folder/client.log" 2>&1 &
        clients+=($!)
    done
    wait "${clients[@]}"
    cat "$folder/client.log" >>"$out"
    show
    sleep "$idle"
    show
    stop "$pid"
    begin || return
    show
    client -e "insert into t select k + 5000000, m, v from t;" >>"$out" 2>&1
    sleep 1.5 # the log is written once a second
    kill -9 "$pid"
    wait "$pid" 2>/dev/null
    begin || return
    show
    run mariadb-dump --no-defaults --socket="$folder/socket" -u root --skip-dump-date test |
        grep '^INSERT' | cksum >>"$out"
    stop "$pid"
}

need_root mariadb && need mariadb mariadbd mariadb mariadb-install-db && compare mariadb drive
finish
