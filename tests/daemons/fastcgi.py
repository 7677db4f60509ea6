#!/usr/bin/env python3
"""Asks a FastCGI server for a script COUNT times, n=1..10 in turn; prints the answers, each once.

fastcgi.py PORT SCRIPT COUNT
"""
import socket
import struct
import sys
import time


def record(kind, content):
    return struct.pack("!BBHHBB", 1, kind, 1, len(content), 0, 0) + content


def pair(name, value):
    return struct.pack("!BI", len(name), 0x80000000 | len(value)) + name.encode() + value.encode()


def ask(port, script, query):
    parameters = {"SCRIPT_FILENAME": script, "REQUEST_METHOD": "GET", "QUERY_STRING": query,
                  "SCRIPT_NAME": "/page.php", "REQUEST_URI": "/page.php?" + query,
                  "SERVER_PROTOCOL": "HTTP/1.1", "GATEWAY_INTERFACE": "CGI/1.1"}
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(record(1, struct.pack("!HB5x", 1, 0))
                       + record(4, b"".join(pair(k, v) for k, v in parameters.items()))
                       + record(4, b"") + record(5, b""))
    data = b""
    while True:
        got = connection.recv(65536)
        if not got:
            break
        data += got
    output = b""
    while len(data) >= 8:
        _, kind, _, length, padding, _ = struct.unpack("!BBHHBB", data[:8])
        if kind in (6, 7):
            output += data[8:8 + length]
        data = data[8 + length + padding:]
    return output.decode(errors="replace").partition("\r\n\r\n")[2]


answers = {}
for i in range(int(sys.argv[3])):
    query = f"n={1 + i % 10}"
    for attempt in range(20):
        try:
            said = ask(int(sys.argv[1]), sys.argv[2], query)
            break
        except OSError as error:
            said = f"error {error}"
            time.sleep(0.2)
    if answers.setdefault(query, said) != said:
        print("differs:", query, said)
for query in sorted(answers):
    print(query, answers[query].strip())
