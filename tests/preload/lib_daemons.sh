# Checks of daemons, used with and without limits; sourced, never run.
# shellcheck shell=bash
# shellcheck disable=SC2154 # work, here, few, limit: lib.sh

# ---- redis ----

# Commands that set COUNT keys of all the main types; no word holds a space.
redis_load() { # COUNT
    awk -v n="$1" 'BEGIN {
        for (i = 1; i <= n; i++) {
            text = sprintf("{\"id\":%d,\"name\":\"user-%d\",\"tags\":[%d,%d,%d]", i, i * 7919 % n, i % 7,
                i % 11, i % 13)
            for (j = 0; j < i % 9; j++) text = text sprintf(",\"field%d\":\"value-%d\"", j, i * j)
            printf "SET key:%d %s}\n", i, text
            if (i % 10 == 0) printf "HSET hash:%d a %d b %d c %s}\n", i % 500, i, i * 3, text
            if (i % 10 == 1) printf "RPUSH list:%d item-%d\n", i % 300, i
            if (i % 10 == 2) printf "ZADD zset:%d %d member-%d\n", i % 200, i % 97, i
        }
    }'
}

redis_queries() { # COUNT
    awk -v n="$1" 'BEGIN {
        for (i = 1; i <= n; i++) print "GET key:" i
        for (i = 0; i < 500; i++) print "HGET hash:" i " c"
        for (i = 0; i < 300; i++) print "LRANGE list:" i " 0 -1"
        for (i = 0; i < 200; i++) print "ZRANGE zset:" i " 0 -1"
    }'
}

# The answers, from the commands alone: what redis must say.
redis_expected() { # COUNT
    redis_load "$1" | awk -v n="$1" '
        $1 == "SET" { print $3 }
        $1 == "HSET" { hash[$2] = $8 }
        $1 == "RPUSH" { list[$2] = list[$2] $3 "\n" }
        $1 == "ZADD" { zset[$2] = zset[$2] sprintf("%d %s\n", $3, $4) }
        END {
            for (i = 0; i < 500; i++) print hash["hash:" i]
            for (i = 0; i < 300; i++) printf "%s", list["list:" i] == "" ? "\n" : list["list:" i]
            for (i = 0; i < 200; i++)
                if (zset["zset:" i] == "") print ""
                else {
                    sort = "sort -k1,1n -k2,2 | cut -d \" \" -f 2"
                    printf "%s", zset["zset:" i] | sort
                    close(sort)
                }
        }'
}

redis_fill() { # NAME COUNT PORT
    # In the wire format; in this mode redis-cli counts the reply to each command, errors too.
    redis_load "$2" | awk '{
        printf "*%d\r\n", NF
        for (i = 1; i <= NF; i++) printf "$%d\r\n%s\r\n", length($i), $i
    }' | firn redis-cli -p "$3" --pipe >"$work/load.log" 2>&1
    grep -q 'errors: 0' "$work/load.log" || not_ok "$1" "$(tail -n 1 "$work/load.log")"
}

redis_verify() { # NAME COUNT PORT: every answer as expected
    redis_queries "$2" | plain redis-cli -p "$3" --raw >"$work/answers" 2>"$work/redis.err"
    if cmp -s "$work/expected" "$work/answers"; then
        ok "$1"
    else
        not_ok "$1" "$(cmp "$work/expected" "$work/answers" 2>&1) $(tail -n 1 "$work/redis.err")"
    fi
}

check_redis() { # LABEL
    local name="${1}redis" count=$((few ? 4000 : 30000)) port
    need "$name" redis-server redis-cli redis-benchmark || return
    port=$(free_port)
    mkdir -p "$work/redis"
    if ! start_daemon "$port" redis-server --port "$port" --bind 127.0.0.1 --save '' \
        --appendonly no --dir "$work/redis" --io-threads $((few ? 1 : 2)) --activedefrag no; then
        not_ok "$name" "did not start: $(tail -n 2 "$work/daemon.log" | tr '\n' ' ')"
        return
    fi
    local server=$pid
    redis_expected "$count" >"$work/expected"
    redis_fill "$name-load" "$count" "$port"
    redis_verify "$name-values" "$count" "$port"
    if firn redis-benchmark -p "$port" -q -n $((few ? 3000 : 20000)) -c 30 -P 8 -d 200 -r 10000 \
        -t set,get,lpush,sadd,hset,zadd,mset >"$work/bench.log" 2>&1; then
        ok "$name-benchmark"
    else
        not_ok "$name-benchmark" "$(tail -n 1 "$work/bench.log")"
    fi
    # Forks, with all threads at work; the child writes the whole data set.
    plain redis-cli -p "$port" SAVE >/dev/null
    plain redis-cli -p "$port" BGSAVE >/dev/null
    for _ in $(seq 300); do
        sleep 0.2
        plain redis-cli -p "$port" INFO persistence >"$work/info"
        grep -q 'rdb_bgsave_in_progress:0' "$work/info" && break
    done
    if grep -q 'rdb_last_bgsave_status:ok' "$work/info" &&
        plain redis-check-rdb "$work/redis/dump.rdb" >"$work/rdb.log" 2>&1; then
        ok "$name-bgsave"
    else
        not_ok "$name-bgsave" "$(tail -n 1 "$work/rdb.log" "$work/daemon.log" | tr '\n' ' ')"
    fi
    # Another thread frees what the first one allocated, while that one allocates the same again.
    plain redis-cli -p "$port" FLUSHALL ASYNC >/dev/null
    redis_fill "$name-load-again" "$count" "$port"
    redis_verify "$name-values-again" "$count" "$port"
    rm -rf "$work/redis"
    end_daemon "$name-end" "$server"
}

# ---- memcached ----

check_memcached() { # LABEL OPTION...
    local name="${1}memcached" port user=()
    shift
    need "$name" memcached || return
    [ "$(id -u)" != 0 ] || user=(-u nobody)
    port=$(free_port)
    if ! start_daemon "$port" memcached -l 127.0.0.1 -p "$port" -U 0 -t 4 -m 128 "${user[@]}" "$@"; then
        not_ok "$name" "did not start: $(tail -n 2 "$work/daemon.log" | tr '\n' ' ')"
        return
    fi
    local server=$pid
    if firn perl "$here/programs/memcached.pl" "$port" $((few ? 3000 : 20000)) \
        >"$work/client.log" 2>&1 && grep -q '^all values are right' "$work/client.log"; then
        ok "$name-values"
    else
        not_ok "$name-values" "$(tail -n 1 "$work/client.log")"
    fi
    end_daemon "$name-end" "$server"
}

# ---- nginx ----

nginx_configuration() { # PORT
    cat <<END
daemon off;
worker_processes 2;
error_log $work/nginx/error.log;
pid $work/nginx/nginx.pid;
events { worker_connections 128; }
http {
    access_log $work/nginx/access.log;
    client_body_temp_path $work/nginx/body;
    proxy_temp_path $work/nginx/proxy;
    fastcgi_temp_path $work/nginx/fastcgi;
    uwsgi_temp_path $work/nginx/uwsgi;
    scgi_temp_path $work/nginx/scgi;
    gzip on;
    gzip_types *;
    gzip_min_length 100;
    keepalive_requests 200;
    server {
        listen 127.0.0.1:$1;
        root $work/nginx/files;
        location /proxied/ { proxy_pass http://127.0.0.1:$1/; }
    }
}
END
}

check_nginx() { # LABEL
    local name="${1}nginx" port i
    need "$name" nginx || return
    port=$(free_port)
    mkdir -p "$work/nginx/files"
    chmod 755 "$work" "$work/nginx" "$work/nginx/files" # the workers run as another user
    for i in 1 2 3 4 5 6 7 8 9 10; do
        seq 1 $((i * i * 700)) >"$work/nginx/files/file$i"
    done
    nginx_configuration "$port" >"$work/nginx/nginx.conf"
    if ! start_daemon "$port" nginx -c "$work/nginx/nginx.conf" -p "$work/nginx"; then
        not_ok "$name" "did not start: $(tail -n 2 "$work/daemon.log" | tr '\n' ' ')"
        return
    fi
    local server=$pid
    # The client reloads the configuration (workers fork and end) in the middle of its requests.
    if firn perl "$here/programs/nginx.pl" "$port" "$work/nginx/files" "$server" \
        $((few ? 300 : 2000)) >"$work/client.log" 2>&1 &&
        grep -q '^all files are right' "$work/client.log"; then
        ok "$name-files"
    else
        not_ok "$name-files" "$(head -c 300 "$work/client.log" | tr '\n' ' ')"
    fi
    if grep -aE 'exited on signal|^firn:|alert' "$work/nginx/error.log" >"$work/alerts"; then
        not_ok "$name-workers" "$(head -n 1 "$work/alerts")"
    fi
    end_daemon "$name-end" "$server"
    rm -rf "$work/nginx"
}
