"""Objects, big integers, json, re, zlib, threads, fork, an sqlite table.  objects.py COUNT

Run with PYTHONMALLOC unset: requests above 512 bytes and all of the arenas come from malloc.
"""
import hashlib
import json
import os
import re
import sqlite3
import sys
import threading
import zlib

count = int(sys.argv[1]) if len(sys.argv) > 1 else 10000
state = 7


def number(bound):
    global state
    state = (state * 1103515245 + 12345) % 2147483648
    return (state >> 8) % bound


class Node:
    def __init__(self, value, left=None):
        self.value, self.left, self.data = value, left, bytearray(number(2000))


def thread_work(results, index):
    words = [("w%d" % (i * index)) * (i % 50) for i in range(count // 4)]
    packed = zlib.compress("\n".join(words).encode())
    results[index] = hashlib.sha256(zlib.decompress(packed)).hexdigest()


live = {}
for i in range(count):
    live["key%d" % number(5000)] = Node(i, live.get("key%d" % number(5000)))
    if i % 3 == 0:
        live.pop("key%d" % number(5000), None)
    if i % 1000 == 0:
        for node in live.values():
            node.left = None
text = json.dumps({k: [v.value, len(v.data)] for k, v in sorted(live.items())})
print(len(text), len(re.findall(r"key(\d)\d+", text)), len(json.loads(text)))
print(hashlib.sha256(text.encode()).hexdigest(), pow(3, 20000) % (10**9 + 7))
results = {}
threads = [threading.Thread(target=thread_work, args=(results, i)) for i in range(1, 5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sorted(results.items()))
database = sqlite3.connect(":memory:")
database.execute("create table t(a, b)")
database.executemany("insert into t values(?, ?)", ((i % 100, "x" * (i % 200)) for i in range(count)))
print(database.execute("select a, sum(length(b)) from t group by a order by 2, 1 limit 5").fetchall())
sys.stdout.flush()
pid = os.fork()
if pid == 0:
    print("child", len(json.dumps(sorted(live))), flush=True)
    os._exit(0)
print(os.waitpid(pid, 0)[1])
