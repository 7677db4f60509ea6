// Every answer comes from trying the thing on a page of our own. A version number lies in both
// directions: distributions backport, sandboxes forbid.
#include "src/os/caps.h"

#include "src/base/compiler.h"
#include "src/base/text.h"
#include "src/os/kernel.h"
#include "src/os/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DEFAULT_MAP_COUNT = 65530 };
#define RESERVE_TRIAL ((size_t)8 << 40)
#define WIDE_TRIAL ((uintptr_t)1 << 46)
#define NARROW_LIMIT ((uintptr_t)1 << 39)

// Before the probe, only what costs nothing to try: the seed source may be wanted first.
static _Atomic uint32_t present = CAP_GETRANDOM;
static struct limits limits = {UINT64_MAX, UINT64_MAX, false, DEFAULT_MAP_COUNT};

static void *map_trial(size_t bytes, uintptr_t hint, int protection, int flags) {
    return mmap((void *)hint, bytes, protection,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
}

// Emulators answer any advice with success. One that nobody knows tells them apart.
static bool is_advice_honest(void *page) {
    return madvise(page, FIRN_PAGE, -1) != 0;
}

// Success alone is not believed: the kernel itself must be refused a read of the guarded page.
static bool has_guard_marker(void *page) {
    if (madvise(page, FIRN_PAGE, MADV_GUARD_INSTALL) != 0) {
        return false;
    }
    bool is_refused = syscall(SYS_faccessat, AT_FDCWD, page, F_OK) != 0 && errno == EFAULT;
    return madvise(page, FIRN_PAGE, MADV_GUARD_REMOVE) == 0 && is_refused;
}

static bool has_mremap_keep(void *page) {
    void *moved = mremap(page, FIRN_PAGE, FIRN_PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    if (moved == MAP_FAILED) {
        return false;
    }
    munmap(moved, FIRN_PAGE);
    return moved != page;
}

// An older kernel takes the unknown flag for nothing and the address for a hint.
static bool has_noreplace(void *page) {
    void *p = map_trial(FIRN_PAGE, (uintptr_t)page, PROT_NONE, MAP_FIXED_NOREPLACE);
    if (p != MAP_FAILED) {
        munmap(p, FIRN_PAGE);
        return false;
    }
    return errno == EEXIST;
}

static bool has_reserve(void) {
    if (limits.address_space_bytes != UINT64_MAX || KERNEL_TSAN) {
        return false;
    }
    void *p = map_trial(RESERVE_TRIAL, 0, PROT_NONE, 0);
    if (p == MAP_FAILED) {
        // 39-bit address spaces hold 256 GiB of it at best: ask for less before giving up.
        p = map_trial(RESERVE_TRIAL >> 8, 0, PROT_NONE, 0);
        if (p == MAP_FAILED) {
            return false;
        }
        munmap(p, RESERVE_TRIAL >> 8);
        return true;
    }
    munmap(p, RESERVE_TRIAL);
    return true;
}

static bool has_wide_address(const void *page) {
    if ((uintptr_t)page >= NARROW_LIMIT) {
        return true;
    }
    void *p = map_trial(FIRN_PAGE, WIDE_TRIAL, PROT_NONE, 0);
    if (p == MAP_FAILED) {
        return false;
    }
    munmap(p, FIRN_PAGE);
    return (uintptr_t)p >= NARROW_LIMIT;
}

static bool has_getrandom(void) {
    uint8_t byte;
    return syscall(SYS_getrandom, &byte, sizeof(byte), 1) >= 0 || errno == EAGAIN;
}

static uint32_t probe_page(void *page) {
    uint32_t found = 0;
    if (is_advice_honest(page)) {
        found |= has_guard_marker(page) ? CAP_GUARD_MARKER : 0u;
        found |= madvise(page, FIRN_PAGE, MADV_WIPEONFORK) == 0 ? CAP_WIPE_ON_FORK : 0u;
        found |= madvise(page, FIRN_PAGE, MADV_POPULATE_WRITE) == 0 ? CAP_POPULATE : 0u;
    }
    found |= has_mremap_keep(page) ? CAP_MREMAP_KEEP : 0u;
    found |= has_noreplace(page) ? CAP_NOREPLACE : 0u;
    found |= has_wide_address(page) ? CAP_WIDE_ADDRESS : 0u;
    return found;
}

static uint64_t limit_of(int resource) {
    struct rlimit r;
    if (getrlimit((__rlimit_resource_t)resource, &r) != 0 || r.rlim_cur == RLIM_INFINITY) {
        return UINT64_MAX;
    }
    return r.rlim_cur;
}

static uint64_t number_in(const char *path, uint64_t otherwise) {
    char digits[32];
    uint64_t v = otherwise;
    size_t n = sys_read_file(path, digits, sizeof(digits));
    while (n > 0 && (digits[n - 1] == '\n' || digits[n - 1] == ' ')) {
        n--;
    }
    return text_parse_size(digits, n, &v) ? v : otherwise;
}

static void probe_limits(void) {
    limits.address_space_bytes = limit_of(RLIMIT_AS);
    limits.data_bytes = limit_of(RLIMIT_DATA);
    limits.is_strict_overcommit = number_in("/proc/sys/vm/overcommit_memory", 0) == 2;
    limits.max_map_count = number_in("/proc/sys/vm/max_map_count", DEFAULT_MAP_COUNT);
}

void caps_probe(uint32_t mask) {
    int saved = errno;
    uint32_t found =
        CAP_FAULT_EVENT | CAP_FAULT_SIGNAL | CAP_FOLLOW | (CAPS_RARE & ~(uint32_t)CAP_POPULATE);
    probe_limits();
    void *page = map_trial(FIRN_PAGE, 0, PROT_READ | PROT_WRITE, 0);
    if (page != MAP_FAILED) {
        found |= probe_page(page);
        munmap(page, FIRN_PAGE);
    }
    found |= has_reserve() ? CAP_RESERVE : 0u;
    found |= has_getrandom() ? CAP_GETRANDOM : 0u;
    found &= prctl(PR_GET_SECCOMP, 0, 0, 0, 0) <= 0 ? UINT32_MAX : ~(uint32_t)CAPS_RARE;
    atomic_store_explicit(&present, found & mask, memory_order_relaxed);
    errno = saved;
}

bool caps_has(enum cap c) {
    return (caps_bits() & (uint32_t)c) != 0;
}

void caps_forget(enum cap c) {
    atomic_fetch_and_explicit(&present, ~(uint32_t)c, memory_order_relaxed);
}

uint32_t caps_bits(void) {
    return atomic_load_explicit(&present, memory_order_relaxed);
}

const struct limits *caps_limits(void) {
    return &limits;
}
