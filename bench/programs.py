"""Whole programs as workloads: their inputs, made once, and one run under one allocator."""

import os
import subprocess
import sys
import time

import measure

REDIS_REQUESTS = 120000
REDIS_TESTS = "set,get,incr,lpush,lpop,sadd,hset,zadd,mset"
GIT_COMMITS = 600
GIT_FILES = 40
GCC_FUNCTIONS = 70

# The programs of the bar. `python3-malloc` (every Python object through malloc, which the
# interpreter's own small-object allocator otherwise hides) is measured and shown beside them.
BAR_PROGRAMS = ["python3", "perl", "gcc", "git", "redis", "sqlite3"]
PROGRAMS = BAR_PROGRAMS + ["python3-malloc"]


def make_c_source(path):
    """A C file that costs cc1 about half a second at -O2: loops, switches, structs, inlining."""
    with open(path, "w", encoding="ascii") as source:
        source.write("struct node { struct node *next; unsigned key[4]; };\n")
        for n in range(GCC_FUNCTIONS):
            source.write(
                f"static unsigned mix{n}(unsigned a, unsigned b)\n"
                f"{{ switch (a % {n % 7 + 3}) {{\n"
                f"  case 0: return b * {n + 1}u; case 1: return b ^ a;\n"
                f"  case 2: return (b >> {n % 13 + 1}) | a; default: return a + b; }} }}\n"
                f"unsigned walk{n}(struct node *list, unsigned *table, unsigned count)\n"
                f"{{ unsigned sum = {n}u;\n"
                f"  for (struct node *at = list; at; at = at->next)\n"
                f"  {{ for (unsigned i = 0; i < 4; i++) sum = mix{n}(sum, at->key[i]); }}\n"
                f"  for (unsigned i = 0; i < count; i++)\n"
                f"  {{ table[i] = mix{n}(table[i], sum)\n"
                f"      + (i & {n % 5 + 1}u ? table[count - 1 - i] : 0); }}\n"
                f"  return sum; }}\n")


def make_git_repository(path):
    """A repository of a few hundred commits over a few dozen files, through fast-import."""
    env = dict(os.environ, GIT_CONFIG_NOSYSTEM="1", HOME=path)
    subprocess.run(["git", "init", "-q", path], check=True, env=env)
    lines = []
    contents = [[f"line {k} of file {n}" for k in range(60)] for n in range(GIT_FILES)]
    for commit in range(GIT_COMMITS):
        message = f"change {commit}"
        lines.append("commit refs/heads/main")
        lines.append(f"committer Bench <bench@localhost> {1600000000 + commit * 600} +0000")
        lines.append(f"data {len(message)}\n{message}")
        for step in range(6):
            n = (commit * 7 + step * 11) % GIT_FILES
            contents[n].insert((commit * 13 + step) % len(contents[n]),
                               f"added by {commit}: {commit * 2654435761 % 2**32:08x}")
            text = "\n".join(contents[n]) + "\n"
            lines.append(f"M 100644 inline folder{n % 5}/file{n}.txt\ndata {len(text)}\n{text}")
    subprocess.run(["git", "-C", path, "fast-import", "--quiet"], check=True, env=env,
                   input="\n".join(lines).encode() + b"\n")


def prepare(work_dir):
    """Makes every input under work_dir."""
    make_c_source(os.path.join(work_dir, "source.c"))
    make_git_repository(os.path.join(work_dir, "repository"))


def run_program(name, peer, work_dir):
    """One run. Returns (CPU seconds, wall seconds)."""
    if name == "redis":
        return run_redis(peer, work_dir)
    programs = os.path.join(measure.BENCH_DIR, "programs")
    repository = os.path.join(work_dir, "repository")
    git_script = ("git -c pack.threads=1 -c gc.auto=0 repack -adfq && "
                  "git log -p --stat -M main >/dev/null && git fsck --full --no-progress")
    python = [measure.PYTHON, os.path.join(programs, "objects.py")]
    commands = {
        "python3": python,
        "python3-malloc": ["/usr/bin/env", "PYTHONMALLOC=malloc"] + python,
        "perl": ["/usr/bin/perl", os.path.join(programs, "words.pl")],
        "gcc": ["/usr/bin/gcc", "-O2", "-c", "-o", os.path.join(work_dir, "source.o"),
                os.path.join(work_dir, "source.c")],
        "git": ["/bin/sh", "-c", git_script],
        "sqlite3": ["/usr/bin/sqlite3", ":memory:"],
    }
    stdin_path = os.path.join(programs, "orders.sql") if name == "sqlite3" else os.devnull
    cwd = repository if name == "git" else work_dir
    _, wall_s, cpu_s = measure.run_command(commands[name], peer, stdin_path, cwd)
    return cpu_s, wall_s


def run_redis(peer, work_dir):
    """A server under the peer on a socket in work_dir, a fixed number of requests from an
    unmodified client. CPU seconds are the server's, wall seconds the client's run."""
    socket_path = os.path.join(work_dir, "redis.sock")
    argv = ["/usr/bin/redis-server", "--port", "0", "--unixsocket", socket_path, "--save", "",
            "--appendonly", "no", "--dir", work_dir, "--loglevel", "warning"]
    client = ["/usr/bin/redis-cli", "-s", socket_path]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE,
                          env=measure.environment(peer, names_libc=True)) as server:
        try:
            wait_for_redis(server, client)
            start = time.monotonic()
            subprocess.run(["/usr/bin/redis-benchmark", "-s", socket_path, "-q", "-P", "32",
                            "-n", str(REDIS_REQUESTS), "-r", "50000", "-d", "120",
                            "-t", REDIS_TESTS], check=True, stdout=subprocess.DEVNULL,
                           timeout=measure.TIMEOUT_S)
            wall_s = time.monotonic() - start
            subprocess.run(client + ["shutdown", "nosave"], check=False,
                           stdout=subprocess.DEVNULL, timeout=30)
            status, usage = measure.wait_with_usage(server, time.monotonic())
        except (subprocess.SubprocessError, OSError) as error:
            server.kill()
            raise measure.RunFailed(f"redis under {peer.name}: {error}") from error
        errors = server.stderr.read().decode("utf-8", "replace")
    if status != 0 or "ERROR: ld.so" in errors:
        raise measure.RunFailed(f"redis-server under {peer.name}: status {status}: "
                                f"{measure.brief(errors)}")
    return usage.ru_utime + usage.ru_stime, wall_s


def wait_for_redis(server, client):
    """Returns when the server answers; fails when it ended or stays silent for ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        answer = subprocess.run(client + ["ping"], capture_output=True, check=False, timeout=10)
        if answer.stdout.strip() == b"PONG":
            return
        if server.poll() is not None:
            raise OSError(f"the server ended with status {server.returncode}")
        time.sleep(0.02)
    raise OSError("the server does not answer")


def missing_programs():
    """Names of programs that are not installed and therefore not measured."""
    needed = {"perl": "/usr/bin/perl", "gcc": "/usr/bin/gcc", "git": "/usr/bin/git",
              "redis": "/usr/bin/redis-benchmark", "sqlite3": "/usr/bin/sqlite3",
              "python3": measure.PYTHON, "python3-malloc": measure.PYTHON}
    return [name for name in PROGRAMS if not os.access(needed[name], os.X_OK)]


if __name__ == "__main__":
    sys.exit("programs.py is a part of bench/run; run that")
