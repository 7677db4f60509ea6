#include "src/os/missing.h"

#include "src/os/caps.h"
#include "src/os/keep.h"
#include "src/os/kernel.h"
#include "src/os/map.h"
#include "src/os/veil.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
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
static struct keep lent = KEEP_NONE; // in the table of the program's threads
static bool sees_forks;
static _Atomic int engine_now; // enum fault_engine
static bool only_writes;       // no events; and pages in swap are looked at, too

// Not libc's, which is exported by us too.
static long control(int fd, unsigned long request, void *argument) {
    return syscall(SYS_ioctl, fd, request, argument);
}

static FIRN_TLS bool is_outside;

static FIRN_TLS int borrowed; // and 1 more; 0: none

static int descriptor(int child) {
    return child != MISSING_SELF ? child : is_outside || lent.fd < 0 ? self : borrowed - 1;
}

void missing_borrow(void) {
    borrowed = keep_descriptor(&lent) + 1;
}

void missing_return(void) {
    borrowed = 0;
}

bool missing_isolate(void) {
    is_outside = syscall(SYS_close_range, 0, ~0u, CLOSE_RANGE_UNSHARE) == 0;
    return is_outside;
}

void missing_enter(void) {
    is_outside = true;
    veil_enter();
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

static const uint64_t needed = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED |
                               UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_MOVE;

bool missing_lends(void) {
    return lent.fd >= 0;
}

void missing_after_fork_in_child(void) {
    const int saved = errno;
    int fd = keep_descriptor(&lent);
    if (fd >= 0) {
        syscall(SYS_close, fd);
    }
    lent = (struct keep)KEEP_NONE;
    errno = saved;
}

// In a child that no handler of forks saw there is one of the parent's.
bool missing_lend(void) {
    missing_after_fork_in_child();
    int fd = caps_has(CAP_FAULT_SIGNAL) && caps_has(CAP_BORROW) ? open_with(false, needed) : -1;
    if (fd >= 0) {
        keep_copy(&lent, fd);
        syscall(SYS_close, fd);
    }
    return lent.fd >= 0;
}

// The one above is tried first: what it lacks is what there is to say.
static const char *try_descriptor(bool is_event, uint64_t features, int *out) {
    bool may = caps_has(is_event ? CAP_FAULT_EVENT : CAP_FAULT_SIGNAL);
    int fd = may ? is_event ? open_full() : open_for_threads() : -1;
    if (fd < 0) {
        return is_event ? "no userfaultfd that serves system calls: that takes CAP_SYS_PTRACE"
                        : "no userfaultfd";
    }
    syscall(SYS_close, fd);
    *out = open_with(is_event, needed | features);
    if (*out >= 0) {
        return NULL;
    }
    fd = features != 0 ? open_with(is_event, needed) : -1;
    if (fd >= 0) {
        syscall(SYS_close, fd);
    }
    return fd < 0 ? "the kernel cannot move pages" : "no events of forks";
}

static const char *open_descriptor(enum fault_engine engine, int *out) {
    bool is_event = engine == FAULT_EVENT;
    return try_descriptor(is_event, is_event ? UFFD_FEATURE_EVENT_FORK : 0, out);
}

const char *missing_try(enum fault_engine engine) {
    const int saved = errno;
    int fd = -1;
    const char *why = engine != FAULT_PROTECT ? open_descriptor(engine, &fd) : NULL;
    if (fd >= 0) {
        syscall(SYS_close, fd);
    }
    errno = saved;
    return why;
}

static const char *open_pagemap(void) {
    pagemap = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    return pagemap < 0 ? "no /proc/self/pagemap" : NULL;
}

static const char *open_all(enum fault_engine engine) {
    self = engine == FAULT_SIGNAL ? keep_borrow(&lent) : -1;
    if (self < 0) {
        lent = (struct keep)KEEP_NONE; // it would be another one
    }
    const char *why = engine == FAULT_PROTECT ? veil_open()
                      : self >= 0             ? NULL
                                              : open_descriptor(engine, &self);
    sees_forks = engine == FAULT_EVENT && self >= 0;
    return why != NULL ? why : open_pagemap();
}

const char *missing_open(enum fault_engine engine) {
    const char *why = open_all(engine);
    if (why != NULL) {
        missing_close();
        return why;
    }
    atomic_store_explicit(&engine_now, (int)engine, memory_order_release);
    return NULL;
}

const char *missing_open_writes(void) {
    const uint64_t writes =
        UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC;
    self = caps_has(CAP_FAULT_SIGNAL) ? open_with(false, writes) : -1;
    if (self < 0) {
        return "no userfaultfd that notes writes";
    }
    only_writes = true;
    sees_forks = false;
    atomic_store_explicit(&engine_now, (int)FAULT_EVENT, memory_order_release);
    const char *why = open_pagemap();
    if (why != NULL) {
        missing_close();
    }
    return why;
}

void missing_close(void) {
    if (self >= 0) {
        syscall(SYS_close, self);
    }
    if (pagemap >= 0) {
        syscall(SYS_close, pagemap);
    }
    self = pagemap = -1;
    veil_close();
}

enum fault_engine missing_engine(void) {
    return (enum fault_engine)atomic_load_explicit(&engine_now, memory_order_acquire);
}

static bool is_veiling(void) {
    return missing_engine() == FAULT_PROTECT;
}

bool missing_sees_forks(void) {
    return sees_forks;
}

bool missing_serves_calls(void) {
    return missing_engine() == FAULT_EVENT;
}

bool missing_holes_fail(void) {
    return missing_engine() == FAULT_SIGNAL;
}

const char *missing_refusal(void) {
    return is_veiling() ? veil_refusal() : NULL;
}

bool missing_has_room(size_t pages) {
    return !is_veiling() || veil_has_room(pages);
}

bool missing_register(uintptr_t address, size_t bytes, bool is_moved_to) {
    if (is_veiling()) {
        return true;
    }
    bool is_silent = is_moved_to || only_writes;
    struct uffdio_register r = {.range = {address, bytes},
                                .mode = UFFDIO_REGISTER_MODE_WP |
                                        (is_silent ? 0 : UFFDIO_REGISTER_MODE_MISSING)};
    return control(self, UFFDIO_REGISTER, &r) == 0;
}

void missing_unregister(uintptr_t address, size_t bytes) {
    struct uffdio_range range = {address, bytes};
    if (!is_veiling()) {
        (void)control(self, UFFDIO_UNREGISTER, &range);
    }
}

// ---- events -------------------------------------------------------------------------------------

short missing_wait(int other, short events) {
    if (is_veiling()) {
        return veil_wait(other, events);
    }
    struct pollfd polled[2] = {{.fd = self, .events = POLLIN}, {.fd = other, .events = events}};
    return syscall(SYS_ppoll, polled, other >= 0 ? 2 : 1, NULL, NULL, 0) > 0 ? polled[1].revents
                                                                             : 0;
}

static struct missing_event next_veiled(void) {
    uintptr_t page = veil_next();
    return (struct missing_event){.kind = page != 0 ? MISSING_FAULT : MISSING_NOTHING,
                                  .address = page};
}

struct missing_event missing_read(int child) {
    struct uffd_msg message;
    if (is_veiling()) {
        return next_veiled();
    }
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
    if (is_veiling()) {
        veil_wake(address);
        return;
    }
    struct uffdio_range range = {address, FIRN_PAGE};
    (void)control(descriptor(child), UFFDIO_WAKE, &range);
}

void missing_settle(uintptr_t address) {
    if (is_veiling()) {
        veil_wake(address);
    }
}

// The whole of it is there before anybody can see it. Without a mapping to spare it can be done later.
static enum missing_result show(uintptr_t address, const void *page) {
    bool is_written = page == NULL || veil_write(address, page);
    if (!is_written || !veil_show(address, FIRN_PAGE)) {
        return MISSING_AGAIN;
    }
    veil_note_split();
    return MISSING_DONE;
}

enum missing_result missing_fill(int child, uintptr_t address, const void *page) {
    if (is_veiling()) {
        return show(address, page);
    }
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

bool missing_is_there(uintptr_t page) {
    return (bits_of(page, 1, 63) | bits_of(page, 1, 62)) != 0;
}

// Linux 6.18 moves a page, at times, whose thread writes to it at that moment after missing_scan has armed it, and says
// that there is one already: nothing is where it was then. (Its thread would get zeros.) Whoever waits there has not been
// woken. In a thread of the program it cannot be told; there, pages are only moved back, to where nobody is.
static bool has_moved(uintptr_t from, uintptr_t to) {
    bool may_look = is_outside || lent.fd < 0;
    return may_look && !missing_is_there(from) && missing_is_there(to);
}

// A failure after some pages is reported as EAGAIN, with their number; called again for the rest, it
// names its reason.
static enum missing_result move_some(uintptr_t from, uintptr_t to, size_t bytes, size_t *moved) {
    struct uffdio_move m = {.dst = to, .src = from, .len = bytes};
    const int fd = descriptor(MISSING_SELF);
    long result = control(fd, UFFDIO_MOVE, &m);
    *moved = m.move > 0 ? (size_t)m.move : 0;
    enum missing_result why = judge(result);
    if ((why == MISSING_THERE || why == MISSING_AGAIN) && *moved == 0 && has_moved(from, to)) {
        missing_wake(MISSING_SELF, to);
        *moved = FIRN_PAGE;
    }
    return *moved > 0 ? MISSING_DONE : why;
}

enum missing_result missing_move(uintptr_t from, uintptr_t to, size_t bytes, size_t *moved) {
    *moved = 0;
    if (is_veiling()) {
        bool is_done = veil_hide(from, bytes);
        *moved = is_done ? bytes : 0;
        veil_note_split();
        return is_done ? MISSING_DONE : MISSING_AGAIN;
    }
    enum missing_result result = MISSING_DONE;
    while (result == MISSING_DONE && *moved < bytes) {
        size_t more;
        result = move_some(from + *moved, to + *moved, bytes - *moved, &more);
        *moved += more;
    }
    return result;
}

enum missing_result missing_move_back(uintptr_t slot, uintptr_t address) {
    size_t moved;
    return is_veiling() ? show(address, NULL) : missing_move(slot, address, FIRN_PAGE, &moved);
}

bool missing_read_moved(uintptr_t address, uintptr_t slot, void *out) {
    if (is_veiling()) {
        return veil_read(address, out);
    }
    memcpy(out, (const void *)slot, FIRN_PAGE);
    return true;
}

void missing_drop_moved(uintptr_t address) {
    if (is_veiling()) {
        map_purge(address, FIRN_PAGE);
    }
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

// What is not shared says so in its entry, which the page of zeros does not.
static int scan_entries(uintptr_t address, size_t bytes, struct missing_run *runs, unsigned most) {
    enum { MOST = 512, EXCLUSIVE_BIT = 56, FILE_BIT = 61, PRESENT_BIT = 63 };
    static uint64_t entries[MOST]; // the freezing thread's
    size_t pages = bytes >> FIRN_PAGE_SHIFT;
    size_t wanted = (pages < MOST ? pages : MOST) * sizeof entries[0];
    off_t at = (off_t)((address >> FIRN_PAGE_SHIFT) * sizeof entries[0]);
    long n = syscall(SYS_pread64, pagemap, entries, wanted, at);
    unsigned count = 0;
    bool is_going_on = false; // the last run does
    for (long i = 0; i < n / (long)sizeof entries[0]; i++) {
        uintptr_t page = address + ((uintptr_t)i << FIRN_PAGE_SHIFT);
        bool is_plain = (entries[i] >> EXCLUSIVE_BIT & 1) != 0 && (entries[i] >> FILE_BIT & 1) == 0;
        if ((entries[i] >> PRESENT_BIT & 1) == 0) {
            is_going_on = false;
        } else if (is_going_on && runs[count - 1].is_plain == is_plain) {
            runs[count - 1].end = page + FIRN_PAGE;
        } else {
            is_going_on = count < most;
            if (is_going_on) {
                runs[count++] = (struct missing_run){
                    .start = page, .end = page + FIRN_PAGE, .is_there = true, .is_plain = is_plain};
            }
        }
    }
    return n < 0 ? -1 : (int)count;
}

int missing_scan(uintptr_t address, size_t bytes, struct missing_run *runs, unsigned most) {
    enum { AT_ONCE = 512 };
    if (is_veiling()) {
        return scan_entries(address, bytes, runs, most);
    }
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
