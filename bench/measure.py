"""Peers, workloads, and one run of one workload under one allocator."""

import glob
import os
import subprocess
import tempfile
import time
from collections import namedtuple

BENCH_DIR = os.path.dirname(os.path.abspath(__file__))
ROOT_DIR = os.path.dirname(BENCH_DIR)
LIB_DIR = "/usr/lib/x86_64-linux-gnu"
LIBC_PATH = "/lib/x86_64-linux-gnu/libc.so.6"
PYTHON = "/usr/bin/python3"  # not the first one in PATH: a version manager's shim is a shell script
TIMEOUT_S = 180

# `level` is 0..3 for Firn's own builds and None for everyone else; `path` None means no preload.
Peer = namedtuple("Peer", "name path level")

# A workload is a command that prints `NAME VALUE UNIT` lines; `metrics` are the names to expect.
# `needs_quiet`: its figures are wall time, so that whatever else runs on the machine enters them.
Workload = namedtuple("Workload", "name argv metrics needs_quiet")

# A run is disturbed when other processes took more than this many CPUs while it lasted.
DISTURBED_CPUS = 0.10
QUIET_TRIES = 6
QUIET_PAUSE_S = 0.3

OTHERS = [
    ("jemalloc", f"{LIB_DIR}/libjemalloc.so.2"),
    ("mimalloc", f"{LIB_DIR}/libmimalloc.so.2.0"),
    ("tcmalloc", f"{LIB_DIR}/libtcmalloc_minimal.so.4"),
    ("scudo", "/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.scudo_standalone-x86_64.so"),
]

FIRN = [
    ("firn-bare", "libfirn-bare.so", 0),
    ("firn-light", "libfirn-light.so", 1),
    ("firn", "libfirn.so", 2),
    ("firn-strict", "libfirn-strict.so", 3),
]


def brief(errors):
    """A program's complaint on one line, fit for a table of failures."""
    return " / ".join(line.strip() for line in errors.splitlines() if line.strip())[:300]


class RunFailed(Exception):
    """A run that gave no figure: crash, timeout, wrong output, or a library that did not load."""


def find_peers(build_dir, extra):
    """glibc, the packaged allocators found, Firn's levels found in build_dir, then `extra`
    (words `name=path.so`). Returns (peers, names of packaged allocators that are missing)."""
    peers = [Peer("glibc", None, None)]
    missing = []
    for name, pattern in OTHERS:
        found = sorted(glob.glob(pattern))
        if found:
            peers.append(Peer(name, found[-1], None))
        else:
            missing.append(name)
    for name, filename, level in FIRN:
        path = os.path.join(os.path.abspath(build_dir), filename)
        if os.path.exists(path):
            peers.append(Peer(name, path, level))
    for word in extra:
        name, _, path = word.partition("=")
        if not name or not os.path.exists(path):
            raise SystemExit(f"bench: {word!r}: expected name=path.so of an existing library")
        peers = [peer for peer in peers if peer.name != name]
        peers.append(Peer(name, os.path.abspath(path), None))
    return peers, missing


def micro_workloads(build_dir):
    """The C workloads, in the order of the table."""
    binaries = os.path.join(os.path.abspath(build_dir), "bench")

    def binary(name, *args):
        return [os.path.join(binaries, name), *args]

    report_pss = "print(open('/proc/self/smaps_rollup').read())"
    return [
        Workload("pair", binary("pair"), ["pair"], False),
        Workload("pair_mixed", binary("pair_mixed"), ["pair_mixed"], False),
        Workload("churn1", binary("churn", "1"), ["churn1"], False),
        Workload("churn2", binary("churn", "2"), ["churn2", "churn2_cpu"], True),
        Workload("churn8", binary("churn", "8"), ["churn8", "churn8_cpu"], True),
        Workload("sites", binary("sites"), ["sites"], False),
        Workload("prodcons", binary("prodcons"), ["prodcons", "prodcons_cpu"], True),
        Workload("live200k", binary("live200k"), ["live200k"], False),
        Workload("large", binary("large"), ["large"], False),
        Workload("fill", binary("fill"), ["fill"], False),
        Workload("fork", binary("fork"), ["fork_blocked", "fork", "fork_cpu"], True),
        Workload("startup_true", binary("startup"), ["startup_true"], False),
        Workload("startup_python", [PYTHON, "-c", report_pss], ["startup_python"], False),
    ]


def build_workloads(build_dir):
    """Compiles every bench/*.c whose binary is missing or older than its sources, always with
    the same flags: CFLAGS given for Firn must not change what Firn is compared by."""
    binaries = os.path.join(os.path.abspath(build_dir), "bench")
    header = os.path.join(BENCH_DIR, "bench.h")
    os.makedirs(binaries, exist_ok=True)
    for source in sorted(glob.glob(os.path.join(BENCH_DIR, "*.c"))):
        binary = os.path.join(binaries, os.path.basename(source)[:-2])
        newest = max(os.path.getmtime(source), os.path.getmtime(header))
        if os.path.exists(binary) and os.path.getmtime(binary) >= newest:
            continue
        subprocess.run([os.environ.get("CC") or "gcc", "-std=c17", "-D_GNU_SOURCE", "-I", ROOT_DIR,
                        "-O2", "-pthread", "-Wall", "-Wextra", "-o", binary, source], check=True)


def environment(peer, names_libc=False):
    """The child's environment. `names_libc` preloads libc itself for the peer without a library:
    a program that links another allocator (Debian's redis-server) is otherwise not on glibc's."""
    env = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    env["LC_ALL"] = "C"
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    if peer.path is not None:
        env["LD_PRELOAD"] = peer.path
    elif names_libc:
        env["LD_PRELOAD"] = LIBC_PATH
    return env


def busy_seconds():
    """CPU seconds of the whole machine that were not idle, stolen ones included."""
    with open("/proc/stat", encoding="ascii") as stat:
        ticks = [int(field) for field in stat.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # 3 idle, 4 iowait


def run_command(argv, peer, stdin_path=os.devnull, cwd=None):
    """Runs argv under the peer. Returns (stdout text, wall seconds, CPU seconds of the process
    and of every descendant it waited for)."""
    with open(stdin_path, "rb") as stdin, tempfile.TemporaryFile() as out, \
            tempfile.TemporaryFile() as err:
        start = time.monotonic()
        with subprocess.Popen(argv, stdin=stdin, stdout=out, stderr=err, cwd=cwd,
                              env=environment(peer)) as child:
            status, usage = wait_with_usage(child, start)
        wall_s = time.monotonic() - start
        out.seek(0)
        err.seek(0)
        output = out.read().decode("utf-8", "replace")
        errors = err.read().decode("utf-8", "replace")
    # ld.so only warns when it cannot preload: the run would then measure glibc.
    if status != 0 or "ERROR: ld.so" in errors:
        raise RunFailed(f"{argv[0]} under {peer.name}: status {status}: {brief(errors)}")
    return output, wall_s, usage.ru_utime + usage.ru_stime


def wait_with_usage(child, start):
    """wait4 with a time limit, so that the resource usage of exactly this child is known."""
    pause_s = 0.001
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode, usage
        if time.monotonic() - start > TIMEOUT_S:
            child.kill()
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            raise RunFailed(f"{child.args[0]}: no end after {TIMEOUT_S} s")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.01)


def run_when_quiet(workload, peer):
    """Runs until no other process disturbed a run, at most QUIET_TRIES times. Returns the output
    of the least disturbed one and the CPUs that others took. Which run is kept depends on the
    rest of the machine alone, never on the figure."""
    best = None
    for attempt in range(QUIET_TRIES if workload.needs_quiet else 1):
        if attempt > 0:
            time.sleep(QUIET_PAUSE_S)
        before_s = busy_seconds() - sum(os.times()[:2])
        output, wall_s, cpu_s = run_command(workload.argv, peer)
        others_s = busy_seconds() - sum(os.times()[:2]) - before_s - cpu_s
        others_cpus = max(0.0, others_s / wall_s)
        if best is None or others_cpus < best[1]:
            best = output, others_cpus
        if others_cpus <= DISTURBED_CPUS:
            break
    return best


def run_micro(workload, peer):
    """One run. Returns {metric: (value, unit)} and whether others disturbed it."""
    output, others_cpus = run_when_quiet(workload, peer)
    is_disturbed = workload.needs_quiet and others_cpus > DISTURBED_CPUS
    if workload.name == "startup_python":
        fields = dict(line.split(":", 1) for line in output.splitlines() if ":  " in line)
        return {"startup_python": (float(fields["Pss"].split()[0]), "KiB")}, is_disturbed
    found = {}
    for line in output.splitlines():
        name, value, unit = line.split()
        found[name] = (float(value), unit)
    if sorted(found) != sorted(workload.metrics):
        raise RunFailed(f"{workload.name} under {peer.name}: unexpected output {output!r}")
    return found, is_disturbed


def is_rate(unit):
    """True where more is better."""
    return unit.endswith("/s")
