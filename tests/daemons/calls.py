#!/usr/bin/env python3
"""Which system calls are Firn's own, by `strace -f -k`, and whether README lists them.

    calls.py README.md TRACE...     prints Firn's calls and who in it makes them; then those not listed

A call is Firn's if a function of its library stands between the kernel and the program, unless that function
only does what libc's of the same name does for the program (`read`, `prctl`, `fork`). Exit status: 1 if a call is
not listed in the table of README's section "System calls".
"""

import collections
import re
import sys

# What the program's own calls are called in the kernel, where the name differs from libc's.
SAME = {
    "sigaction": "rt_sigaction", "signals_action": "rt_sigaction", "signal": "rt_sigaction", "sysv_signal": "rt_sigaction",
    "sigprocmask": "rt_sigprocmask", "pthread_sigmask": "rt_sigprocmask",
    "sigsuspend": "rt_sigsuspend", "sigpause": "rt_sigsuspend",
    "recv": "recvfrom", "poll": "poll", "ppoll": "ppoll", "select": "pselect6", "pselect": "pselect6",
    "epoll_wait": "epoll_wait", "pread": "pread64", "preadv": "preadv", "readv": "readv",
    "stat": "newfstatat", "lstat": "newfstatat", "fstat": "newfstatat", "fstatat": "newfstatat",
    "getdents": "getdents64", "prlimit": "prlimit64", "setrlimit": "prlimit64", "getrlimit": "prlimit64",
    "fork": "clone", "_Fork": "clone", "clone": "clone", "vfork": "vfork",
    "posix_madvise": "madvise", "wait4": "wait4", "waitpid": "wait4", "wait": "wait4", "wait3": "wait4",
    "statfs": "statfs", "fstatfs": "fstatfs", "accept4": "accept4", "semtimedop": "semtimedop",
}
# What libc's own signal handler does in all threads when a program calls setuid, Firn's included: its frames do not
# show.
SET_IDS = {"setuid", "setgid", "setgroups", "setreuid", "setregid", "setresuid", "setresgid", "rt_sigreturn"}
# Firn's functions that make libc's do more than one call for the program.
FOR_PROGRAM = {"syscall", "prctl", "initgroups", "setgroups", "dlopen", "dlmopen"}
CALL = re.compile(r"^(?:\d+ +)?(?:<\.\.\. )?(\w+)(?:\(| resumed>)")
FRAME = re.compile(r"^ > ([^(]*)\(([^+)]*)(?:\+0x[0-9a-f]+)?\) \[")


def functions_inside(frames):
    """Firn's functions on top of the stack, libc's above them left out."""
    inside = []
    for file, function in frames:
        name = file.rsplit("/", 1)[-1]
        if name.startswith("libfirn"):
            inside.append(function)
        elif inside or not name.startswith(("libc.", "ld-linux")):
            break
    return inside


def is_programs(call, inside):
    """Whether the outermost of Firn's functions stands for libc's of that name."""
    outermost = inside[-1]
    if outermost in FOR_PROGRAM or call in SET_IDS:
        return True
    plain = outermost[:-2] if outermost.endswith("64") else outermost
    plain = re.sub(r"^__(\w+)_chk$", r"\1", plain)
    return call in (outermost, plain, SAME.get(plain), SAME.get(outermost))


def read_trace(path, found):
    """Adds to `found` for each call of Firn's who makes it."""
    call, frames = None, []

    def end_of_stack():
        inside = functions_inside(frames)
        if call and inside and not is_programs(call, inside):
            found[call][" < ".join(inside[:5])] += 1

    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(" > "):
                match = FRAME.match(line)
                frames.append((match[1], match[2]) if match else ("?", "?"))
                continue
            end_of_stack()
            match = CALL.match(line)
            call, frames = (match[1] if match else None), []
    end_of_stack()


def read_listed(path):
    """The calls in the table of the section."""
    with open(path, encoding="utf-8") as file:
        section = file.read().split("\n## System calls\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def main():
    """See above."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    listed = read_listed(sys.argv[1])
    found = collections.defaultdict(collections.Counter)
    for path in sys.argv[2:]:
        read_trace(path, found)
    for call in sorted(found):
        who, times = found[call].most_common(1)[0]
        print(f"{call:18} {sum(found[call].values()):7}  {who} ({times})")
    unlisted = sorted(set(found) - listed)
    print("not listed:", " ".join(unlisted) or "none")
    return 1 if unlisted or not found else 0


if __name__ == "__main__":
    sys.exit(main())
