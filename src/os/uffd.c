// Write protection by userfaultfd takes the lock of the address space for reading only and splits no
// mapping: 1.7 us for four pages, against 2.7 us for mprotect (Linux 6.18). What counts more is that a
// thread which would write sleeps in the kernel until it is woken: no handler that could be missing,
// blocked or replaced.
#include "src/os/uffd.h"

#include "src/os/keep.h"
#include "src/os/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef UFFD_USER_MODE_ONLY // Linux 5.11
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM // Linux 5.19
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED // Linux 6.4
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef USERFAULTFD_IOC_NEW // Linux 6.1
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

enum { FORK_RETRIES = 1000 };

static struct keep kept = KEEP_NONE;
// Pages never touched are protected too. Else they are filled in first.
static bool covers_unpopulated;

// Not libc's: that one is exported by us too (preload/syscalls.c), for programs.
static long control(int fd, unsigned long request, void *argument) {
    return syscall(SYS_ioctl, fd, request, argument);
}

static long open_plain(bool is_full) {
    return syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | (is_full ? 0 : UFFD_USER_MODE_ONLY));
}

// The device serves who may open it, whatever vm.unprivileged_userfaultfd says.
static long open_by_device(void) {
    long device = syscall(SYS_openat, AT_FDCWD, "/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device < 0) {
        return -1;
    }
    long fd = syscall(SYS_ioctl, (int)device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    syscall(SYS_close, (int)device);
    return fd;
}

static bool agree_on(int fd, uint64_t features) {
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    return control(fd, UFFDIO_API, &api) == 0 && (api.features & features) == features;
}

bool uffd_open(bool is_full) {
    const uint64_t needed = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    const int saved = errno;
    uffd_close(); // what is left of one that the program closed
    long fd = open_plain(is_full);
    if (fd < 0 && is_full) {
        fd = open_by_device();
    }
    if (fd >= 0) {
        covers_unpopulated = agree_on((int)fd, needed | UFFD_FEATURE_WP_UNPOPULATED);
        if (covers_unpopulated || agree_on((int)fd, needed)) {
            keep_copy(&kept, (int)fd);
        }
        syscall(SYS_close, (int)fd);
    }
    errno = saved;
    return kept.fd >= 0;
}

bool uffd_is_open(void) {
    return keep_descriptor(&kept) >= 0;
}

void uffd_close(void) {
    const int saved = errno;
    int fd = keep_descriptor(&kept);
    kept = (struct keep)KEEP_NONE;
    if (fd >= 0) {
        syscall(SYS_close, fd);
    }
    errno = saved;
}

// EAGAIN: another thread forks, or maps, at this moment.
static bool call(unsigned long request, void *argument) {
    const int saved = errno;
    const int fd = keep_descriptor(&kept);
    long result = -1;
    for (unsigned i = 0; fd >= 0 && i < FORK_RETRIES; i++) {
        result = control(fd, request, argument);
        if (result == 0 || errno != EAGAIN) {
            break;
        }
    }
    errno = saved;
    return result == 0;
}

bool uffd_register(uintptr_t address, size_t bytes) {
    struct uffdio_register r = {.range = {address, bytes}, .mode = UFFDIO_REGISTER_MODE_WP};
    return call(UFFDIO_REGISTER, &r);
}

static bool set_protection(uintptr_t address, size_t bytes, bool is_on) {
    struct uffdio_writeprotect w = {.range = {address, bytes},
                                    .mode = is_on ? UFFDIO_WRITEPROTECT_MODE_WP : 0};
    return call(UFFDIO_WRITEPROTECT, &w);
}

bool uffd_deny_writes(uintptr_t address, size_t bytes) {
    const int saved = errno;
    bool is_populated =
        covers_unpopulated || madvise((void *)address, bytes, MADV_POPULATE_READ) == 0;
    errno = saved;
    if (!is_populated) {
        return false;
    }
    // A range mapped anew since the last time is not registered: then, and only then, it is refused
    // once.
    if (set_protection(address, bytes, true) ||
        (uffd_register(address, bytes) && set_protection(address, bytes, true))) {
        return true;
    }
    uffd_allow_writes(address, bytes);
    return false;
}

void uffd_allow_writes(uintptr_t address, size_t bytes) {
    if (!set_protection(address, bytes, false)) {
        uffd_wake(address, bytes); // mapped anew, in part or whole
    }
}

void uffd_wake(uintptr_t address, size_t bytes) {
    struct uffdio_range range = {address, bytes};
    (void)call(UFFDIO_WAKE, &range);
}

bool uffd_deny_reads(uintptr_t address, size_t bytes) {
    struct uffdio_register r = {.range = {address, bytes},
                                .mode = UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MISSING};
    return call(UFFDIO_REGISTER, &r);
}

bool uffd_fill(uintptr_t address, uintptr_t from) {
    struct uffdio_copy c = {
        .dst = address, .src = from, .len = FIRN_PAGE, .mode = UFFDIO_COPY_MODE_DONTWAKE};
    return call(UFFDIO_COPY, &c) || c.copy == -EEXIST;
}

void uffd_release(uintptr_t address, size_t bytes) {
    struct uffdio_range range = {address, bytes};
    (void)call(UFFDIO_UNREGISTER, &range);
}

static bool call_borrowed(unsigned long request, void *argument) {
    const int saved = errno;
    const int fd = keep_borrow(&kept);
    bool is_done = fd >= 0 && control(fd, request, argument) == 0;
    if (fd >= 0) {
        syscall(SYS_close, fd);
    }
    errno = saved;
    return is_done;
}

bool uffd_leave(uintptr_t address, size_t bytes) {
    struct uffdio_range range = {address, bytes};
    return kept.fd < 0 || call_borrowed(UFFDIO_UNREGISTER, &range);
}

bool uffd_come_back(uintptr_t address, size_t bytes) {
    struct uffdio_register r = {.range = {address, bytes}, .mode = UFFDIO_REGISTER_MODE_WP};
    return kept.fd < 0 || call_borrowed(UFFDIO_REGISTER, &r);
}
