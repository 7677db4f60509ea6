#!/usr/bin/env bash
# BIND: a zone of some thousand names, asked by several clients at once, reloaded, left idle, asked again.
. "$(dirname "$0")/lib.sh"

port=$(free_port)
names=$((short ? 300 : 3000))

configure() {
    mkdir -p "$folder/cache"
    {
        echo "\$TTL 60"
        echo "@ IN SOA ns.firn.example. root.firn.example. 1 3600 600 86400 60"
        echo "  IN NS ns"
        echo "ns IN A 127.0.0.1"
        awk -v n="$names" 'BEGIN { for (i = 0; i < n; i++) {
            printf "h%d IN A 10.%d.%d.%d\nh%d IN TXT \"text of %d\"\n", i, i / 65536, i / 256 % 256, i % 256, i, i } }'
    } >"$folder/zone"
    cat >"$folder/named.conf" <<END
options {
    directory "$folder/cache";
    listen-on port $port { 127.0.0.1; };
    listen-on-v6 { none; };
    pid-file "$folder/pid";
    session-keyfile "$folder/session.key";
    managed-keys-directory "$folder/cache";
    recursion no;
    dnssec-validation no;
    allow-transfer { 127.0.0.1; };
};
controls { };
zone "firn.example" { type primary; file "$folder/zone"; };
END
    [ "$(id -u)" != 0 ] || chown -R bind "$folder"
}

ask() {
    local i clients=()
    for i in 1 2 3 4; do
        awk -v n="$names" -v s="$i" 'BEGIN { for (i = s; i < n; i += 7) {
            print "h" i ".firn.example A"; print "h" i ".firn.example TXT"; print "none" i ".firn.example A" } }' \
            >"$folder/questions.$i"
        run dig @127.0.0.1 -p "$port" +short +tries=3 -f "$folder/questions.$i" >"$folder/answers.$i" 2>&1 &
        clients+=($!)
    done
    wait "${clients[@]}"
    cat "$folder"/answers.* | cksum >>"$out"
    run dig @127.0.0.1 -p "$port" axfr firn.example +nostats +nocmd +nocookie | grep -v '^;' | sort | cksum >>"$out"
}

drive() {
    local user=()
    configure
    [ "$(id -u)" != 0 ] || user=(-u bind)
    start "$port" named -g -c "$folder/named.conf" -n 2 "${user[@]}" || return
    ask
    kill -HUP "$pid"
    ask
    sleep "$idle"
    ask
    stop "$pid"
}

need named named dig && compare named drive
finish
