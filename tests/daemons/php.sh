#!/usr/bin/env bash
# PHP-FPM, three processes with a limit of requests each, asked over FastCGI: arrays, strings, JSON, regular
# expressions, an error; reloaded on the way. And the same script from the command line.
. "$(dirname "$0")/lib.sh"

port=$(free_port)
fpm=$(ls /usr/sbin/php-fpm* 2>/dev/null | head -n 1)

configure() {
    cat >"$folder/page.php" <<'END'
<?php
$n = (int)($_GET['n'] ?? $argv[1] ?? 5);
$rows = [];
for ($i = 0; $i < $n * 100; $i++) {
    $rows["key$i"] = ['id' => $i, 'text' => str_repeat(chr(97 + $i % 26), $i % 300), 'tags' => range(0, $i % 9)];
}
uasort($rows, fn($a, $b) => strlen($b['text']) <=> strlen($a['text']) ?: $a['id'] <=> $b['id']);
$json = json_encode($rows);
$back = json_decode($json, true);
echo $n, ' ', strlen($json), ' ', md5($json), ' ', $back == $rows ? 'same' : 'differs', ' ',
    preg_match_all('/([a-z])\1{20,}/', $json), ' ', md5(gzcompress_or_not($json)), "\n";
function gzcompress_or_not($s) { return function_exists('gzcompress') ? gzcompress($s) : $s; }
END
    cat >"$folder/fpm.conf" <<END
[global]
error_log = $folder/fpm.log
daemonize = no
[www]
listen = 127.0.0.1:$port
pm = static
pm.max_children = 3
pm.max_requests = 20
clear_env = no
$([ "$(id -u)" != 0 ] || printf 'user = www-data\ngroup = www-data\n')
END
}

drive() {
    configure
    run php "$folder/page.php" 30 >>"$out" 2>&1
    start "$port" "$fpm" -F -y "$folder/fpm.conf" || return
    run python3 "$daemons_here/fastcgi.py" "$port" "$folder/page.php" $((short ? 40 : 200)) >>"$out" 2>&1
    kill -USR2 "$pid"
    sleep 0.5
    await answers "$port"
    sleep "$idle"
    run python3 "$daemons_here/fastcgi.py" "$port" "$folder/page.php" $((short ? 40 : 200)) >>"$out" 2>&1
    [ "$how" = plain ] || has_firn "$pid"
    grep -ac 'exited on signal\|SIGSEGV' "$folder/fpm.log" >>"$out"
    stop "$pid"
}

if [ -n "$fpm" ]; then
    need php php python3 && compare php drive
else
    skip php "php-fpm is not installed"
fi
finish
