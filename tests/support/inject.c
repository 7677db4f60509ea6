#include "tests/support/inject.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>

void *__real_mmap(void *, size_t, int, int, int, off_t);
int __real_munmap(void *, size_t);
int __real_mprotect(void *, size_t, int);
int __real_madvise(void *, size_t, int);
void *__real_mremap(void *, size_t, size_t, int, void *);
int __real_munlock(const void *, size_t);
int __real_mlock2(const void *, size_t, unsigned);
int __real_getrlimit(__rlimit_resource_t, struct rlimit *);
long __real_syscall(long, long, long, long, long, long, long);

void *__wrap_mmap(void *, size_t, int, int, int, off_t);
int __wrap_munmap(void *, size_t);
int __wrap_mprotect(void *, size_t, int);
int __wrap_madvise(void *, size_t, int);
void *__wrap_mremap(void *, size_t, size_t, int, ...);
int __wrap_munlock(const void *, size_t);
int __wrap_mlock2(const void *, size_t, unsigned);
int __wrap_getrlimit(__rlimit_resource_t, struct rlimit *);
long __wrap_syscall(long, ...);

static atomic_uint calls;
static atomic_bool is_armed, is_hit, is_munmap_hit;
static unsigned failing_from, failing_until;
static int failing_error;

void inject_start(unsigned nth, enum inject_mode mode, int error) {
    calls = 0;
    is_hit = is_munmap_hit = false;
    failing_from = nth;
    failing_until = mode == INJECT_ONCE ? nth : ~0u;
    failing_error = error;
    is_armed = true;
}

bool inject_stop(void) {
    is_armed = false;
    return is_hit;
}

bool inject_hit_munmap(void) {
    return is_munmap_hit;
}

static bool fails(int usual_error) {
    if (!is_armed) {
        return false;
    }
    unsigned call = ++calls;
    if (call < failing_from || call > failing_until) {
        return false;
    }
    is_hit = true;
    errno = failing_error != 0 ? failing_error : usual_error;
    return true;
}

void *__wrap_mmap(void *p, size_t n, int protection, int flags, int fd, off_t offset) {
    return fails(ENOMEM) ? MAP_FAILED : __real_mmap(p, n, protection, flags, fd, offset);
}

int __wrap_munmap(void *p, size_t n) {
    if (fails(ENOMEM)) {
        is_munmap_hit = true;
        return -1;
    }
    return __real_munmap(p, n);
}

int __wrap_mprotect(void *p, size_t n, int protection) {
    return fails(ENOMEM) ? -1 : __real_mprotect(p, n, protection);
}

int __wrap_madvise(void *p, size_t n, int advice) {
    return fails(EINVAL) ? -1 : __real_madvise(p, n, advice);
}

void *__wrap_mremap(void *p, size_t from, size_t to, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    void *where = (flags & MREMAP_FIXED) != 0 ? va_arg(arguments, void *) : NULL;
    va_end(arguments);
    return fails(ENOMEM) ? MAP_FAILED : __real_mremap(p, from, to, flags, where);
}

int __wrap_munlock(const void *p, size_t n) {
    return fails(EPERM) ? -1 : __real_munlock(p, n);
}

int __wrap_mlock2(const void *p, size_t n, unsigned flags) {
    return fails(EPERM) ? -1 : __real_mlock2(p, n, flags);
}

int __wrap_getrlimit(__rlimit_resource_t resource, struct rlimit *limit) {
    return fails(EPERM) ? -1 : __real_getrlimit(resource, limit);
}

static bool call_fails(long number) {
    switch (number) {
    case SYS_openat:
    case SYS_pipe2:
        return fails(EMFILE);
    case SYS_read:
    case SYS_write:
        return fails(EIO);
    case SYS_getrandom:
        return fails(ENOSYS);
    case SYS_faccessat:
    case SYS_process_madvise:
        return fails(EPERM);
    default:
        return false; // getpid and the like cannot fail; a futex wait may return for no reason
    }
}

long __wrap_syscall(long number, ...) {
    long a[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++) {
        a[i] = va_arg(arguments, long);
    }
    va_end(arguments);
    return call_fails(number) ? -1 : __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
