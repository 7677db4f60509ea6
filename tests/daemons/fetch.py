#!/usr/bin/env python3
"""Requests paths from a server over kept connections and prints what came back, one line a path.

fetch.py URL TIMES THREADS PATH...     each path TIMES times; answers to one path must be the same
"""
import hashlib
import http.client
import ssl
import sys
import threading
from urllib.parse import urlsplit

base, times, threads = urlsplit(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
paths = sys.argv[4:]
seen, errors, lock = {}, [], threading.Lock()


def connect():
    if base.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(base.netloc, timeout=30, context=context)
    return http.client.HTTPConnection(base.netloc, timeout=30)


def ask(connection, path):
    connection.request("GET", path, headers={"Accept-Encoding": "identity"})
    answer = connection.getresponse()
    body = answer.read()
    return f"{answer.status} {len(body)} {hashlib.sha256(body).hexdigest()}"


def work(number):
    connection = connect()
    for i in range(number, times * len(paths), threads):
        path = paths[i % len(paths)]
        for attempt in (1, 2):  # a server that reloads may close a connection between two requests
            try:
                said = ask(connection, path)
                break
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                connection = connect()
                said = f"error {error}" if attempt == 2 else None
        with lock:
            if seen.setdefault(path, said) != said:
                errors.append(f"{path}: {seen[path]} and {said}")


workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
for path in paths:
    print(path, seen.get(path))
for error in errors[:5]:
    print("differs:", error)
