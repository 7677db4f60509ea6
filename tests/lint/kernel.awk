# Calls that reach the kernel, in stripped C (strip.awk), outside src/os. -v file=NAME.
# preload/syscalls.c, next.c, raw.c, reads.c, records.c, paths.c, programs.c, streams.c, waits.c, signals.c, limits.c, fork.c, sandbox.c
# and pages.c are not given to this check: they define
# what they wrap.
BEGIN {
    list = "mmap munmap mremap madvise mprotect msync mlock munlock mlockall mincore memfd_create " \
        "process_madvise syscall futex ioctl prctl fcntl open openat creat close dup dup2 dup3 " \
        "read write pread pwrite readv writev lseek fstat stat lstat ftruncate fallocate " \
        "readlink unlink getrandom getentropy fork vfork _Fork clone execve posix_spawn " \
        "kill raise abort tgkill sigaction signal sigaltstack sigprocmask pthread_sigmask " \
        "getpid gettid getrlimit setrlimit sysconf sysinfo getauxval sched_yield sched_getaffinity " \
        "sched_getcpu nanosleep usleep clock_nanosleep clock_gettime gettimeofday time poll select " \
        "epoll_wait eventfd pipe pipe2 socket connect send syslog getenv secure_getenv " \
        "pthread_create pthread_mutex_lock pthread_cond_wait fopen fprintf printf dprintf perror"
    n = split(list, names, " ")
    for (i = 1; i <= n; i++) is_call[names[i]] = 1
    # A fatal report cannot go through layers that may be what is broken.
    except("src/base/fatal.c", "write syscall abort raise sigaction signal kill sigprocmask")
    # malloc_info writes to the stream its caller names.
    except("src/front/figures.c", "fprintf")
    # abort_conf=1 ends the process while the heap is still starting: there is nothing to report on.
    except("src/front/options.c", "abort")
    # The fuzzing allocator reports crashes itself, and places blocks where its seed says, which
    # os/map.h, made for random places, does not offer.
    if (file ~ /^src\/fuzzbuild\//)
        except(file, "sigaction signal sigaltstack sigprocmask pthread_sigmask raise kill abort " \
            "mmap munmap madvise mprotect")
}

function except(path, list,    names, n, i) {
    if (file != path) return
    n = split(list, names, " ")
    for (i = 1; i <= n; i++) delete is_call[names[i]]
}

{
    text = $0
    while (match(text, /[A-Za-z_][A-Za-z_0-9]*[ \t]*\(/)) {
        before = RSTART > 1 ? substr(text, RSTART - 1, 1) : ""
        name = substr(text, RSTART, RLENGTH)
        sub(/[ \t]*\($/, "", name)
        text = substr(text, RSTART + RLENGTH)
        calls++
        if (name in is_call && before != "." && before != ">") {
            print file ":" FNR ": " name " belongs in src/os"
            bad++
        }
    }
}

END {
    print "calls " calls + 0
    exit bad != 0
}
