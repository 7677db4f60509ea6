#!/usr/bin/env bash
# Apache with the prefork model: a process for each connection, CGI scripts, children that end after a few
# requests, a graceful restart under load.
. "$(dirname "$0")/lib.sh"

port=$(free_port)

configure() {
    local modules=/usr/lib/apache2/modules i
    mkdir -p "$folder/files" "$folder/cgi"
    for i in 1 2 3 4 5; do
        seq 1 $((i * i * 900)) >"$folder/files/file$i"
    done
    printf '#!/bin/sh\necho Content-Type: text/plain\necho\nseq 1 500\necho "$QUERY_STRING"\n' \
        >"$folder/cgi/count"
    chmod 755 "$folder/cgi/count"
    cat >"$folder/httpd.conf" <<END
ServerRoot $folder
ServerName localhost
Listen 127.0.0.1:$port
PidFile $folder/httpd.pid
ErrorLog $folder/error.log
LoadModule mpm_prefork_module $modules/mod_mpm_prefork.so
LoadModule authz_core_module $modules/mod_authz_core.so
LoadModule alias_module $modules/mod_alias.so
LoadModule cgi_module $modules/mod_cgi.so
LoadModule dir_module $modules/mod_dir.so
LoadModule autoindex_module $modules/mod_autoindex.so
LoadModule deflate_module $modules/mod_deflate.so
LoadModule filter_module $modules/mod_filter.so
$([ "$(id -u)" != 0 ] || printf 'User www-data\nGroup www-data\n')
StartServers 3
MaxRequestWorkers 12
MaxConnectionsPerChild 40
MaxKeepAliveRequests 20
DocumentRoot $folder/files
ScriptAlias /cgi/ $folder/cgi/
<Directory $folder>
    Require all granted
</Directory>
END
}

load() {
    python3 "$daemons_here/fetch.py" "http://127.0.0.1:$port" $((short ? 10 : 60)) 6 /file1 /file3 /file5 \
        /cgi/count?a=1 /cgi/count?b=22 /none >>"$out" 2>&1
}

drive() {
    configure
    start "$port" apache2 -DFOREGROUND -f "$folder/httpd.conf" || return
    load &
    local first=$!
    sleep 0.4
    kill -USR1 "$pid"
    wait "$first"
    sleep "$idle"
    load
    [ "$how" = plain ] || has_firn "$pid"
    grep -ac 'exit signal' "$folder/error.log" >>"$out"
    stop "$pid"
}

need apache apache2 python3 && compare apache drive
finish
