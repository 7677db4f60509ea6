#include "src/os/missing.h"

#include "src/os/caps.h"
#include "src/os/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef UFFD_USER_MODE_ONLY // Linux 5.11
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED // Linux 6.4
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC // Linux 6.7
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef UFFD_FEATURE_MOVE // Linux 6.8
#define UFFD_FEATURE_MOVE (1 << 16)
#endif
#ifndef UFFDIO_MOVE
struct uffdio_move {
    __u64 dst, src, len, mode;
    __s64 move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif
#ifndef USERFAULTFD_IOC_NEW // Linux 6.1
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef CLOSE_RANGE_UNSHARE // Linux 5.9
#define CLOSE_RANGE_UNSHARE 2
#endif
#ifndef SYS_pidfd_open // Linux 5.3
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd // Linux 5.6
#define SYS_pidfd_getfd 438
#endif
#ifndef MADV_POPULATE_WRITE // Linux 5.14
#define MADV_POPULATE_WRITE 23
#endif
#ifndef PAGEMAP_SCAN // Linux 6.7
struct page_region {
    __u64 start, end, categories;
};
struct pm_scan_arg {
    __u64 size, flags, start, end, walk_end, vec, vec_len, max_pages;
    __u64 category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#define PAGE_IS_WRITTEN (1 << 1)
#define PAGE_IS_FILE (1 << 2)
#define PAGE_IS_PRESENT (1 << 3)
#define PAGE_IS_SWAPPED (1 << 4)
#define PAGE_IS_PFNZERO (1 << 5)
#define PM_SCAN_WP_MATCHING (1 << 0)
#define PM_SCAN_CHECK_WPASYNC (1 << 1)
#endif

static int self = -1, pagemap = -1;
static bool sees_forks;
static bool only_writes; // no events; and pages in swap are looked at, too
static atomic_bool serves_calls;

// Not libc's, which is exported by us too.
static long control(int fd, unsigned long request, void *argument) {
    return syscall(SYS_ioctl, fd, request, argument);
}

static int descriptor(int child) {
    return child == MISSING_SELF ? self : child;
}

static FIRN_TLS bool is_outside;

bool missing_isolate(void) {
    is_outside = syscall(SYS_close_range, 0, ~0u, CLOSE_RANGE_UNSHARE) == 0;
    return is_outside;
}

void missing_enter(void) {
    is_outside = true;
}

void missing_open_error(void) {
    enum { ERROR = 2 };
    if (!is_outside) {
        return;
    }
    long fd;
    if (caps_has(CAP_BORROW)) {
        long process = syscall(SYS_pidfd_open, (int)syscall(SYS_getpid), 0);
        fd = process >= 0 ? syscall(SYS_pidfd_getfd, (int)process, ERROR, 0) : -1;
    } else { // opened anew: all but sockets can be
        fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/fd/2",
                     O_WRONLY | O_APPEND | O_NOCTTY | O_CLOEXEC);
    }
    if (fd >= 0 && fd != ERROR) {
        syscall(SYS_dup3, (int)fd, ERROR, 0);
    }
}

static int open_for_threads(void) {
    return (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
}

static int open_full(void) {
    long fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0) {
        return (int)fd;
    }
    long device = syscall(SYS_openat, AT_FDCWD, "/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device < 0) {
        return -1;
    }
    fd = syscall(SYS_ioctl, (int)device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    syscall(SYS_close, (int)device);
    return (int)fd;
}

static bool agree_on(int fd, uint64_t features) {
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    return control(fd, UFFDIO_API, &api) == 0 && (api.features & features) == features;
}

// A refused agreement may leave the descriptor unusable: each try has a new one.
static int open_with(bool is_event, uint64_t features) {
    int fd = is_event ? open_full() : open_for_threads();
    if (fd >= 0 && !agree_on(fd, features)) {
        syscall(SYS_close, fd);
        fd = -1;
    }
    return fd;
}

static const char *open_pagemap(void) {
    pagemap = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0) {
        missing_close();
        return "no /proc/self/pagemap";
    }
    return NULL;
}

const char *missing_open(bool is_event) {
    const uint64_t needed = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED |
                            UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_MOVE;
    bool may = caps_has(is_event ? CAP_FAULT_EVENT : CAP_FAULT_SIGNAL);
    int fd = may ? is_event ? open_full() : open_for_threads() : -1;
    if (fd < 0) {
        return is_event ? "no userfaultfd that serves system calls: that takes CAP_SYS_PTRACE, or "
                          "fault=signal"
                        : "no userfaultfd";
    }
    syscall(SYS_close, fd);
    self = open_with(is_event, needed | (is_event ? UFFD_FEATURE_EVENT_FORK : 0));
    sees_forks = is_event && self >= 0;
    if (self < 0) {
        return !is_event || open_with(true, needed) < 0 ? "the kernel cannot move pages"
                                                        : "no events of forks";
    }
    atomic_store_explicit(&serves_calls, is_event, memory_order_release);
    return open_pagemap();
}

const char *missing_open_writes(void) {
    const uint64_t needed =
        UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC;
    self = caps_has(CAP_FAULT_SIGNAL) ? open_with(false, needed) : -1;
    if (self < 0) {
        return "no userfaultfd that notes writes";
    }
    only_writes = true;
    sees_forks = false;
    atomic_store_explicit(&serves_calls, true, memory_order_release);
    return open_pagemap();
}

void missing_close(void) {
    if (self >= 0) {
        syscall(SYS_close, self);
    }
    if (pagemap >= 0) {
        syscall(SYS_close, pagemap);
    }
    self = pagemap = -1;
}

bool missing_sees_forks(void) {
    return sees_forks;
}

bool missing_serves_calls(void) {
    return atomic_load_explicit(&serves_calls, memory_order_acquire);
}

bool missing_register(uintptr_t address, size_t bytes, bool is_moved_to) {
    bool is_silent = is_moved_to || only_writes;
    struct uffdio_register r = {.range = {address, bytes},
                                .mode = UFFDIO_REGISTER_MODE_WP |
                                        (is_silent ? 0 : UFFDIO_REGISTER_MODE_MISSING)};
    return control(self, UFFDIO_REGISTER, &r) == 0;
}

void missing_unregister(uintptr_t address, size_t bytes) {
    struct uffdio_range range = {address, bytes};
    (void)control(self, UFFDIO_UNREGISTER, &range);
}

// ---- events -------------------------------------------------------------------------------------

short missing_wait(int other, short events) {
    struct pollfd polled[2] = {{.fd = self, .events = POLLIN}, {.fd = other, .events = events}};
    return syscall(SYS_ppoll, polled, other >= 0 ? 2 : 1, NULL, NULL, 0) > 0 ? polled[1].revents
                                                                             : 0;
}

struct missing_event missing_read(int child) {
    struct uffd_msg message;
    if (syscall(SYS_read, descriptor(child), &message, sizeof message) != sizeof message) {
        return (struct missing_event){.kind = MISSING_NOTHING};
    }
    if (message.event == UFFD_EVENT_PAGEFAULT) {
        return (struct missing_event){.kind = MISSING_FAULT,
                                      .address = (uintptr_t)message.arg.pagefault.address &
                                                 ~(uintptr_t)(FIRN_PAGE - 1)};
    }
    if (message.event == UFFD_EVENT_FORK) {
        return (struct missing_event){.kind = MISSING_FORK, .child = (int)message.arg.fork.ufd};
    }
    return (struct missing_event){.kind = MISSING_OTHER};
}

void missing_close_child(int child) {
    syscall(SYS_close, child);
}

// ---- pages --------------------------------------------------------------------------------------

static enum missing_result judge(long result) {
    if (result == 0) {
        return MISSING_DONE;
    }
    switch (errno) {
    case EEXIST:
        return MISSING_THERE;
    case EAGAIN:
    case ENOMEM:
        return MISSING_AGAIN;
    case EBUSY:
        return MISSING_BUSY;
    case ENOENT:
        return MISSING_NOWHERE;
    default:
        return MISSING_GONE;
    }
}

void missing_wake(int child, uintptr_t address) {
    struct uffdio_range range = {address, FIRN_PAGE};
    (void)control(descriptor(child), UFFDIO_WAKE, &range);
}

enum missing_result missing_fill(int child, uintptr_t address, const void *page) {
    struct uffdio_copy c = {.dst = address, .src = (uintptr_t)page, .len = FIRN_PAGE};
    enum missing_result result = judge(control(descriptor(child), UFFDIO_COPY, &c));
    if (result == MISSING_THERE) {
        missing_wake(child, address);
    }
    return result;
}

enum missing_result missing_fill_zero(int child, uintptr_t address, size_t bytes) {
    struct uffdio_zeropage z = {.range = {address, bytes}};
    enum missing_result result = judge(control(descriptor(child), UFFDIO_ZEROPAGE, &z));
    if (result == MISSING_AGAIN && z.zeropage > 0) {
        return MISSING_DONE; // some of it, and the first page with it
    }
    if (result == MISSING_THERE) {
        missing_wake(child, address);
    }
    return result;
}

// A failure after some pages is reported as EAGAIN, with their number; called again for the rest, it
// names its reason.
enum missing_result missing_move(uintptr_t from, uintptr_t to, size_t bytes, size_t *moved) {
    struct uffdio_move m = {.dst = to, .src = from, .len = bytes};
    *moved = 0;
    long result = control(self, UFFDIO_MOVE, &m);
    while (result != 0 && errno == EAGAIN && m.move > 0) {
        *moved += (size_t)m.move;
        m = (struct uffdio_move){.dst = to + *moved, .src = from + *moved, .len = bytes - *moved};
        result = control(self, UFFDIO_MOVE, &m);
    }
    if (m.move > 0) {
        *moved += (size_t)m.move;
    }
    return judge(result);
}

static uint64_t bits_of(uintptr_t address, unsigned pages, unsigned bit) {
    enum { MOST = 64 };
    uint64_t entries[MOST], result = 0;
    size_t bytes = (pages < MOST ? pages : MOST) * sizeof entries[0];
    off_t at = (off_t)((address >> FIRN_PAGE_SHIFT) * sizeof entries[0]);
    long n = syscall(SYS_pread64, pagemap, entries, bytes, at);
    for (long i = 0; i < n / (long)sizeof entries[0]; i++) {
        result |= (entries[i] >> bit & 1) << i;
    }
    return result;
}

uint64_t missing_unshared(uintptr_t address, unsigned pages) {
    return bits_of(address, pages, 56);
}

uint64_t missing_swapped(uintptr_t address, unsigned pages) {
    return bits_of(address, pages, 62);
}

// Not a write of ours: the program may have made its block read-only.
bool missing_unshare(uintptr_t address, size_t bytes) {
    return syscall(SYS_madvise, address, bytes, MADV_POPULATE_WRITE) == 0;
}

int missing_scan(uintptr_t address, size_t bytes, struct missing_run *runs, unsigned most) {
    enum { AT_ONCE = 512 };
    struct page_region found[AT_ONCE];
    struct pm_scan_arg a = {
        .size = sizeof a,
        .flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
        .start = address,
        .end = address + bytes,
        .vec = (uintptr_t)found,
        .vec_len = most < AT_ONCE ? most : AT_ONCE,
        .category_anyof_mask = PAGE_IS_PRESENT | (only_writes ? PAGE_IS_SWAPPED : 0),
        .return_mask = PAGE_IS_WRITTEN | PAGE_IS_FILE | PAGE_IS_PRESENT | PAGE_IS_PFNZERO,
    };
    long n = control(pagemap, PAGEMAP_SCAN, &a);
    for (long i = 0; i < n; i++) {
        runs[i] = (struct missing_run){
            .start = found[i].start,
            .end = found[i].end,
            .is_there = (found[i].categories & PAGE_IS_PRESENT) != 0,
            .is_written = (found[i].categories & PAGE_IS_WRITTEN) != 0,
            .is_plain = (found[i].categories & (PAGE_IS_FILE | PAGE_IS_PFNZERO)) == 0,
        };
    }
    return (int)n;
}
