#!/usr/bin/python3
"""Redis and nginx under Firn for a long time, with both tiers at work, and what they hold on to.

soak.py LIBRARY SECONDS [FIRN_OPTIONS]

Cycles of load, changes (BGSAVE, AOF rewrite, a reload) and silence long enough to freeze. Every value read from
Redis and every file from nginx is compared with what it must be. At the end of each cycle's silence: PSS but that
of files (which depends on who else has them mapped: it grows when other programs end), mappings, descriptors,
threads and processes of each server. The mean of the last third's memory may exceed that
of the second's by 1 %, that of mappings by 2 %, the median of descriptors, threads and processes not at all what was
the most before. A run below ten minutes has few cycles, of kinds that differ, and is still settling: a quarter
more memory than the most before, half as many mappings more, some threads. Ends with "ok soak" or "not ok soak: WHY"
and status 1.
"""
import hashlib
import http.client
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

LIBRARY, SECONDS = os.path.abspath(sys.argv[1]), float(sys.argv[2])
OPTIONS = sys.argv[3] if len(sys.argv) > 3 else "cold=on:cold_after=1:mesh=auto"
LOAD, SILENCE = 4.0, 4.0  # seconds of a cycle
KEYS, FILES = 20000, 8
PASSING = 20000  # keys that come with each cycle, nine of ten of which go again, and with the next the rest
IS_LONG = SECONDS >= 600
GROWTH = {"pss": 1.01, "mappings": 1.02} if IS_LONG else {"pss": 1.25, "mappings": 1.5}
COUNTED = {"descriptors": 0, "threads": 0, "processes": 0} if IS_LONG else \
    {"descriptors": 6, "threads": 12, "processes": 2}
LEAST_CYCLES = 6
wrong = []


def complain(what):
    if len(wrong) < 20:
        wrong.append(what)
        print("#", what, flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def value(key, turn):
    """What KEY holds after TURN changes: 20 to 1,500 bytes, half of them with much in common."""
    r = random.Random(key * 1000003 + turn)
    size = int(20 * 75 ** r.random())
    return (b"{'key': %d, 'turn': %d}," % (key, turn) * 70)[:size] if key % 2 else r.randbytes(size)


class Redis:
    """As much of a client as is needed: a list of commands in one go, their answers."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=300)
        self.file = self.socket.makefile("rb")

    def ask(self, commands):
        self.socket.sendall(b"".join(
            b"*%d\r\n" % len(c) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in c) for c in commands))
        return [self.answer() for _ in commands]

    def answer(self):
        line = self.file.readline()
        if line[:1] != b"$":
            return line.rstrip()
        size = int(line[1:])
        return None if size < 0 else self.file.read(size + 2)[:-2]


class Server:
    def __init__(self, name, words, folder):
        self.name, self.log_path = name, f"{folder}/{name}.log"
        options = OPTIONS + ":stats=exit"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder,
                                            env={**os.environ, "LD_PRELOAD": LIBRARY, "FIRN_OPTIONS": options})
        self.samples = []

    def pids(self):
        found = [self.process.pid]
        for pid in found:
            try:
                with open(f"/proc/{pid}/task/{pid}/children") as f:
                    found += [int(word) for word in f.read().split()]
            except OSError:
                pass
        return found

    def sample(self):
        s = dict.fromkeys(("pss", "mappings", *COUNTED), 0)
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/smaps_rollup") as f:
                    s["pss"] += sum(int(kib) for kib in re.findall(r"^Pss_(?:Anon|Shmem):\s+(\d+)", f.read(), re.M))
                with open(f"/proc/{pid}/maps") as f:
                    maps = f.read()
                if maps and LIBRARY not in maps:
                    complain(f"{self.name}: process {pid} runs without the library")
                s["mappings"] += maps.count("\n")
                s["descriptors"] += len(os.listdir(f"/proc/{pid}/fd"))
                s["threads"] += len(os.listdir(f"/proc/{pid}/task"))
                s["processes"] += 1
            except (OSError, TypeError):
                pass  # it has ended meanwhile
        self.samples.append(s)
        return s

    def end(self, sign):
        if self.process.poll() is not None:
            complain(f"{self.name} ended by itself: {self.process.returncode}")
        else:
            self.process.send_signal(sign)
        try:
            if self.process.wait(60) not in (0, -sign):
                complain(f"{self.name} ended with {self.process.returncode}")
        except subprocess.TimeoutExpired:
            complain(f"{self.name} did not end within 60 s")
            self.process.kill()
        with open(self.log_path, errors="replace") as f:
            log = f.read()
        for line in log.splitlines():
            # The statistics are lines of Firn's, too.
            if line.startswith("firn: ") and not re.match(r"firn: (0\.|  |mesh: |cold: )", line):
                complain(f"{self.name}: {line}")
        return {k: int(v) for k, v in re.findall(r"^firn:   (\w+) +(\d+)", log, re.M)}

    def judge(self):
        third = len(self.samples) // 3
        if third == 0:
            return complain(f"{self.name}: {len(self.samples)} samples are too few")
        for what in (*GROWTH, *COUNTED):
            average = statistics.fmean if what in GROWTH else statistics.median
            middle, last = (average(s[what] for s in part)
                            for part in (self.samples[third:2 * third], self.samples[2 * third:]))
            most = max(s[what] for s in self.samples[:2 * third])
            print(f"# {self.name}: {what} {middle:.0f} -> {last:.0f}", flush=True)
            before = middle if IS_LONG and what in GROWTH else most
            if last > before * GROWTH.get(what, 1) + COUNTED.get(what, 0):
                complain(f"{self.name}: {what} grew from {middle:.0f} to {last:.0f}")


def use_redis(port, turns, keys, until):
    """Changes and reads the keys of one thread."""
    r = random.Random()
    redis = Redis(port)
    while time.monotonic() < until:
        some = r.sample(keys, 50)
        for key in some[:15]:
            turns[key] += 1
        answers = redis.ask([(b"SET", b"k%d" % k, value(k, turns[k])) for k in some[:15]] +
                            [(b"GET", b"k%d" % k) for k in some])
        for key, answer in zip(some, answers[15:]):
            if answer != value(key, turns[key]):
                complain(f"redis: k{key}, turn {turns[key]}: {str(answer)[:60]}")
        time.sleep(0.002)


def use_nginx(port, digests, until):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    while time.monotonic() < until:
        name = random.choice(list(digests))
        for attempt in (1, 2):  # a worker that was told to go may close a connection between two requests
            try:
                connection.request("GET", "/" + name)
                body = connection.getresponse().read()
                break
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                body = repr(error).encode()
        if hashlib.sha256(body).digest() != digests[name]:
            complain(f"nginx: /{name}: {body[:60]}")
        time.sleep(0.003)


def guarded(function, *arguments):
    def body():
        try:
            function(*arguments)
        except Exception as error:  # pylint: disable=broad-except
            complain(f"{function.__name__}: {error!r}")
    return threading.Thread(target=body)


def start(folder):
    redis_port, nginx_port = free_port(), free_port()
    digests = {}
    os.mkdir(f"{folder}/files")
    for i in range(FILES):
        body = b"".join(b"%d\n" % k for k in range(4 ** i))
        digests[f"file{i}"] = hashlib.sha256(body).digest()
        with open(f"{folder}/files/file{i}", "wb") as f:
            f.write(body)
    with open(f"{folder}/nginx.conf", "w") as f:
        f.write(f"""daemon off; worker_processes 2; error_log {folder}/error.log; pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{ access_log off; gzip on; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
server {{ listen 127.0.0.1:{nginx_port}; root {folder}/files; }} }}
""")
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    servers = (Server("redis", ["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "",
                                "--appendonly", "yes", "--appendfsync", "no", "--activedefrag", "no",
                                "--auto-aof-rewrite-percentage", "0"], folder),
               Server("nginx", ["nginx", "-c", f"{folder}/nginx.conf", "-p", folder], folder))
    for port in (redis_port, nginx_port):
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
    return servers, redis_port, nginx_port, digests


def fragment(redis, number):
    """Work for compaction."""
    for first in range(0, PASSING, 500):
        redis.ask([(b"SET", b"p%d.%d" % (number, k), b"x" * 200) for k in range(first, first + 500)])
    for first in range(0, PASSING, 500):
        redis.ask([(b"DEL", b"p%d.%d" % (number, k)) for k in range(first, first + 500) if k % 10] +
                  [(b"DEL", b"p%d.%d" % (number - 1, k)) for k in range(first, first + 500, 10)])


def cycle(number, servers, redis_port, nginx_port, digests, turns):
    until = time.monotonic() + LOAD
    threads = [guarded(use_redis, redis_port, turns, range(i, KEYS, 3), until) for i in range(3)]
    threads += [guarded(use_nginx, nginx_port, digests, until) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(LOAD / 4)
    control = Redis(redis_port)
    said = control.ask([(b"BGREWRITEAOF" if number % 2 else b"BGSAVE",)])
    if b"started" not in (said[0] or b""):
        complain(f"redis: {said}")
    if number % 3 == 0:
        servers[1].process.send_signal(signal.SIGHUP)
    for thread in threads:
        thread.join()
    fragment(control, number)
    for _ in range(600):
        info = control.ask([(b"INFO", b"persistence")])[0] or b""
        if b"bgsave_in_progress:0" in info and b"rewrite_in_progress:0" in info:
            break
        time.sleep(0.1)
    for line in info.split():
        if re.match(rb"(rdb_last_bgsave|aof_last_bgrewrite|aof_last_write)_status:", line) and b":ok" not in line:
            complain(f"redis: {line}")
    control.socket.close()
    time.sleep(SILENCE)
    shown = " ".join(f"{s.name} {v['pss']} KiB {v['mappings']} mappings {v['descriptors']} fds {v['threads']} threads"
                     for s in servers for v in [s.sample()])
    print(f"# {number}: {shown}", flush=True)


def main():
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="firn-soak.") as folder:
        os.chmod(folder, 0o755)
        servers, redis_port, nginx_port, digests = start(folder)
        turns = [0] * KEYS
        figures = {}
        try:
            redis = Redis(redis_port)
            for first in range(0, KEYS, 500):
                redis.ask([(b"SET", b"k%d" % k, value(k, 0)) for k in range(first, first + 500)])
            number = 0
            while (time.monotonic() - began < SECONDS or number < LEAST_CYCLES) and len(wrong) < 5:
                cycle(number, servers, redis_port, nginx_port, digests, turns)
                number += 1
            for first in range(0, KEYS, 500):
                keys = range(first, first + 500)
                for k, answer in zip(keys, redis.ask([(b"GET", b"k%d" % k) for k in keys])):
                    if answer != value(k, turns[k]):
                        complain(f"redis at the end: k{k}")
        except Exception as error:  # pylint: disable=broad-except
            complain(repr(error))
        finally:
            figures = [server.end(sign) for server, sign in zip(servers, (signal.SIGTERM, signal.SIGQUIT))]
        for server in servers:
            server.judge()
        for what, option in (("frozen_pages", "cold=on"), ("thawed_pages", "cold=on"), ("mesh_merged", "mesh=auto")):
            count = figures[0].get(what, 0)
            print(f"# redis: {what} {count}", flush=True)
            if option in OPTIONS and count == 0:
                complain(f"redis: {what} is 0: nothing was tried")
    print(f"not ok soak: {wrong[0]}" if wrong else "ok soak", flush=True)
    return 1 if wrong else 0


sys.exit(main())
