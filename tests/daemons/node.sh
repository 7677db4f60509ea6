#!/usr/bin/env bash
# A node HTTP server in a cluster of two: JSON, buffers, zlib and worker threads; V8 handles faults itself.
. "$(dirname "$0")/lib.sh"

port=$(free_port)

drive() {
    cat >"$folder/server.js" <<'END'
const cluster = require('cluster'), http = require('http'), zlib = require('zlib'), crypto = require('crypto');
if (cluster.isPrimary) {
    for (let i = 0; i < 2; i++) cluster.fork();
    process.on('SIGTERM', () => { for (const id in cluster.workers) cluster.workers[id].kill(); process.exit(0); });
} else {
    http.createServer((request, response) => {
        const n = parseInt(request.url.slice(1)) || 1;
        const rows = Array.from({ length: n * 200 }, (_, i) => ({ i, s: 'v'.repeat(i % 99), b: i % 3 === 0 }));
        const text = JSON.stringify(rows);
        zlib.deflate(Buffer.from(text), (error, packed) => {
            const back = zlib.inflateSync(packed).toString();
            const digest = crypto.createHash('sha256').update(back).digest('hex');
            response.end(`${back === text} ${digest} ${text}`);
        });
    }).listen(Number(process.argv[2]), '127.0.0.1');
}
END
    start "$port" node "$folder/server.js" "$port" || return
    load
    sleep "$idle"
    load
    [ "$how" = plain ] || has_firn "$pid"
    stop "$pid"
}

load() {
    python3 "$daemons_here/fetch.py" "http://127.0.0.1:$port" $((short ? 10 : 60)) 4 /1 /2 /9 /20 >>"$out" 2>&1
}

need node node python3 && compare node drive
finish
