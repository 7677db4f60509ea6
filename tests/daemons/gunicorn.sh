#!/usr/bin/env bash
# A Python application under gunicorn: workers forked from a master that has loaded it, threads in each,
# a limit of requests, a reload.
. "$(dirname "$0")/lib.sh"

port=$(free_port)

drive() {
    cat >"$folder/application.py" <<'END'
import hashlib, json
table = {f"k{i}": {"id": i, "text": "x" * (i % 200), "list": list(range(i % 20))} for i in range(5000)}
def app(environ, start):
    n = int(environ["PATH_INFO"].strip("/") or 0)
    rows = sorted(table.values(), key=lambda r: (len(r["text"]) * n % 97, r["id"]))[: n * 50]
    text = json.dumps(rows)
    assert json.loads(text) == rows
    start("200 OK", [("Content-Type", "text/plain")])
    return [hashlib.sha256(text.encode()).hexdigest().encode(), b"\n", text.encode()]
END
    start "$port" gunicorn --chdir "$folder" -b "127.0.0.1:$port" -w 3 --threads 3 --max-requests 40 \
        --preload --worker-tmp-dir "$folder" application:app || return
    load
    kill -HUP "$pid"
    sleep 1
    await answers "$port"
    sleep "$idle"
    load
    [ "$how" = plain ] || has_firn "$pid"
    stop "$pid"
}

load() {
    python3 "$daemons_here/fetch.py" "http://127.0.0.1:$port" $((short ? 10 : 40)) 4 /1 /2 /3 /7 /20 \
        >>"$out" 2>&1
}

need gunicorn gunicorn python3 && compare gunicorn drive
finish
