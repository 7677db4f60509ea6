#!/usr/bin/env bash
# nginx: four workers, plain and TLS, compression, its own proxy; reloaded under load, left idle, asked again.
. "$(dirname "$0")/lib.sh"

port=$(free_port)
secure=$(free_port)

configure() {
    mkdir -p "$folder/files" "$folder/temporary"
    local i
    for i in 1 2 3 4 5 6 7 8 9 10; do
        seq 1 $((i * i * 700)) >"$folder/files/file$i"
    done
    openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 2 \
        -keyout "$folder/key.pem" -out "$folder/certificate.pem" 2>/dev/null
    cat >"$folder/nginx.conf" <<END
daemon off;
worker_processes 4;
error_log $folder/error.log;
pid $folder/nginx.pid;
events { worker_connections 128; }
http {
    access_log $folder/access.log;
    client_body_temp_path $folder/temporary/body;
    proxy_temp_path $folder/temporary/proxy;
    fastcgi_temp_path $folder/temporary/fastcgi;
    uwsgi_temp_path $folder/temporary/uwsgi;
    scgi_temp_path $folder/temporary/scgi;
    gzip on;
    gzip_types *;
    ssl_certificate $folder/certificate.pem;
    ssl_certificate_key $folder/key.pem;
    ssl_session_cache shared:s:1m;
    server {
        listen 127.0.0.1:$port;
        listen 127.0.0.1:$secure ssl;
        root $folder/files;
        location /proxied/ { proxy_pass http://127.0.0.1:$port/; }
    }
}
END
}

load() {
    python3 "$daemons_here/fetch.py" "$1" $((short ? 10 : 100)) 6 /file1 /file4 /file7 /file10 \
        /proxied/file3 /proxied/file9 /none >>"$out" 2>&1
}

drive() {
    configure
    start "$port" nginx -c "$folder/nginx.conf" -p "$folder" || return
    load "http://127.0.0.1:$port" &
    local first=$! i
    for i in 1 2 3; do
        sleep 0.3
        kill -HUP "$pid"
    done
    wait "$first"
    load "https://127.0.0.1:$secure"
    sleep "$idle"
    load "https://127.0.0.1:$secure"
    [ "$how" = plain ] || has_firn "$pid"
    grep -acE 'exited on signal|alert' "$folder/error.log" >>"$out"
    stop "$pid" QUIT
}

need nginx nginx openssl python3 && compare nginx drive
finish
