#include "src/os/memfile.h"

#include "src/base/text.h"
#include "src/os/caps.h"
#include "src/os/guard.h"
#include "src/os/kernel.h"
#include "src/os/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define MOST_BYTES ((size_t)16 << 30)
#define LEAST_BYTES (16 * MIB)

static uintptr_t view;
// The whole file once more, privately, and never touched: private mappings of frames are copied from it.
// 0: not possible.
static uintptr_t source;
// And once more, shared, with the flags that mappings of frames have, and never touched: those are copied
// from it. Set one by one, flags cost two calls a mapping, and mappings were split and joined.
static uintptr_t pattern;
static size_t view_bytes;

// A file beyond the limit would not only be refused: the process would get SIGXFSZ.
static size_t allowed_bytes(void) {
    struct rlimit r;
    if (getrlimit(RLIMIT_FSIZE, &r) != 0) {
        return 0;
    }
    return r.rlim_cur == RLIM_INFINITY || r.rlim_cur > MOST_BYTES ? MOST_BYTES
                                                                  : r.rlim_cur / MIB * MIB;
}

// A second mapping of a piece of the file: what mremap does with a shared mapping of "no" length.
static bool copy_mapping(uintptr_t from, uintptr_t to, size_t bytes) {
    int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
    return mremap((void *)from, 0, bytes, flags, (void *)to) == (void *)to;
}

// The same of a private mapping. It leaves the source as it was.
static bool copy_private(uintptr_t from, uintptr_t to, size_t bytes) {
    int flags = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
    return mremap((void *)from, bytes, bytes, flags, (void *)to) == (void *)to;
}

// Tried once, as below. The first word of the view is 2.
static bool can_copy_privately(void *to) {
    volatile char *mine = to;
    return copy_private(source, (uintptr_t)to, FIRN_PAGE) && *mine == 2 && (*mine = 3) == 3 &&
           *(volatile char *)view == 2 && copy_private(source, (uintptr_t)to, FIRN_PAGE) &&
           *mine == 2;
}

static void make_source(int fd, size_t bytes, void *to) {
    int flags = MAP_PRIVATE | MAP_NORESERVE;
    void *p = caps_has(CAP_MREMAP_KEEP) ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0)
                                        : MAP_FAILED;
    source = p != MAP_FAILED ? (uintptr_t)p : 0;
    if (source != 0 && !can_copy_privately(to)) {
        munmap(p, bytes);
        source = 0;
    }
}

// Tried once, on the view itself: a kernel, or an emulator, that does something else is found out here.
static bool can_copy(int fd) {
    void *to = mmap(NULL, FIRN_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (to == MAP_FAILED) {
        return false;
    }
    volatile char *word = (volatile char *)view;
    *word = 1;
    bool is_copied = copy_mapping(pattern, (uintptr_t)to, FIRN_PAGE) && *(volatile char *)to == 1;
    if (is_copied) {
        *word = 2;
        is_copied = *(volatile char *)to == 2;
        make_source(fd, view_bytes, to);
    }
    munmap(to, FIRN_PAGE);
    return madvise((void *)view, FIRN_PAGE, MADV_REMOVE) == 0 && *word == 0 && is_copied;
}

static bool map_view(int fd, size_t bytes) {
    if (ftruncate(fd, (off_t)bytes) != 0) {
        return false;
    }
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (p == MAP_FAILED) {
        return false;
    }
    void *q = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    view = (uintptr_t)p;
    pattern = q != MAP_FAILED ? (uintptr_t)q : 0;
    view_bytes = bytes;
    (void)madvise(p, bytes, MADV_DONTDUMP); // the spans that map frames are dumped
    if (pattern == 0 || madvise(q, bytes, MADV_DONTFORK) != 0 || !can_copy(fd)) {
        if (pattern != 0) {
            munmap(q, bytes);
        }
        memfile_forget();
    }
    return view_bytes != 0;
}

bool memfile_start(void) {
    const int saved = errno;
    size_t bytes = allowed_bytes();
    bool is_done = view_bytes != 0;
    if (!is_done && bytes >= LEAST_BYTES) {
        int fd = (int)syscall(SYS_memfd_create, "firn", MFD_CLOEXEC);
        is_done = fd >= 0 && map_view(fd, bytes);
        if (fd >= 0) {
            syscall(SYS_close, fd);
        }
    }
    errno = saved;
    return is_done;
}

size_t memfile_bytes(void) {
    return view_bytes;
}

uintptr_t memfile_view(void) {
    return view;
}

// The kernel takes the old mapping away before the last things that can go wrong (it counts VMAs
// first): then there is a hole, which nobody else may settle in.
static bool fill_hole(uintptr_t address, size_t bytes) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    if (mmap((void *)address, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) != (void *)address) {
        return false;
    }
    (void)madvise((void *)address, bytes, MADV_NOHUGEPAGE);
    return true;
}

bool memfile_map(uintptr_t address, size_t offset, size_t bytes, bool *is_lost) {
    const int saved = errno;
    bool is_done = pattern != 0 && copy_mapping(pattern + offset, address, bytes);
    *is_lost = !is_done && pattern != 0 && fill_hole(address, bytes);
    errno = saved;
    return is_done;
}

bool memfile_can_map_copies(void) {
    const int saved = errno;
    struct rlimit space, data;
    bool can = source != 0 && getrlimit(RLIMIT_AS, &space) == 0 &&
               getrlimit(RLIMIT_DATA, &data) == 0 && space.rlim_cur == RLIM_INFINITY &&
               data.rlim_cur == RLIM_INFINITY;
    errno = saved;
    return can;
}

bool memfile_map_copy(uintptr_t address, size_t offset, size_t bytes, bool *is_lost) {
    const int saved = errno;
    bool is_done = source != 0 && copy_private(source + offset, address, bytes);
    *is_lost = !is_done && source != 0 && fill_hole(address, bytes);
    errno = saved;
    return is_done;
}

// A page of the file's, or one that nobody has touched, is not written to.
static bool is_own(uint64_t entry) {
    const uint64_t is_there = (uint64_t)1 << 63, is_in_swap = (uint64_t)1 << 62;
    const uint64_t is_file = (uint64_t)1 << 61;
    return (entry & (is_there | is_in_swap)) != 0 && (entry & is_file) == 0;
}

static bool read_written(int fd, uintptr_t address, size_t pages, uint64_t *written) {
    enum { AT_ONCE = 256 };
    uint64_t entries[AT_ONCE];
    memset(written, 0, (pages + 63) / 64 * sizeof *written);
    for (size_t i = 0; i < pages; i += AT_ONCE) {
        size_t n = pages - i < AT_ONCE ? pages - i : AT_ONCE;
        off_t at = (off_t)(((address >> FIRN_PAGE_SHIFT) + i) * sizeof entries[0]);
        if (syscall(SYS_pread64, fd, entries, n * sizeof entries[0], at) !=
            (long)(n * sizeof entries[0])) {
            return false;
        }
        for (size_t k = 0; k < n; k++) {
            written[(i + k) / 64] |= (uint64_t)is_own(entries[k]) << ((i + k) % 64);
        }
    }
    return true;
}

bool memfile_find_written(uintptr_t address, size_t bytes, uint64_t *written) {
    const int saved = errno;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    bool is_known = fd >= 0 && read_written(fd, address, bytes >> FIRN_PAGE_SHIFT, written);
    if (fd >= 0) {
        syscall(SYS_close, fd);
    }
    errno = saved;
    return is_known;
}

void memfile_fill(size_t offset, size_t bytes) {
    const int saved = errno;
    if (madvise((void *)(view + offset), bytes, MADV_POPULATE_WRITE) != 0) { // Linux 5.14
        for (size_t i = 0; i < bytes; i += FIRN_PAGE) {
            (void)*(const volatile char *)(view + offset + i);
        }
    }
    errno = saved;
}

void memfile_drop(size_t offset, size_t bytes) {
    const int saved = errno;
    if (madvise((void *)(view + offset), bytes, MADV_REMOVE) != 0) {
        memset((void *)(view + offset), 0, bytes); // the promise of zeros, by hand
    }
    errno = saved;
}

void memfile_seal(size_t bytes) {
    const int saved = errno;
    if (view_bytes > bytes) {
        (void)mprotect((void *)(view + bytes), view_bytes - bytes, PROT_NONE);
    }
    if (source != 0) {
        munmap((void *)source, view_bytes);
        source = 0;
    }
    if (pattern != 0) {
        munmap((void *)pattern, view_bytes);
        pattern = 0;
    }
    errno = saved;
}

void memfile_forget(void) {
    const int saved = errno;
    if (view_bytes != 0) {
        munmap((void *)view, view_bytes);
    }
    if (source != 0) {
        munmap((void *)source, view_bytes);
    }
    view = 0;
    view_bytes = 0;
    source = 0;
    pattern = 0; // which a child never had
    errno = saved;
}

// Those that there are now; 0 if the kernel does not say.
static size_t count_mappings(void) {
    char lines[4096];
    size_t count = 0;
    long got;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    while ((got = syscall(SYS_read, fd, lines, sizeof lines)) > 0 || (got < 0 && errno == EINTR)) {
        for (long i = 0; i < got; i++) {
            count += lines[i] == '\n';
        }
    }
    syscall(SYS_close, fd);
    return count;
}

size_t memfile_count_others(size_t own) {
    const int saved = errno;
    size_t all = count_mappings();
    errno = saved;
    return all > own ? all - own : 0;
}

size_t memfile_vma_budget(size_t others) {
    char digits[32];
    uint64_t count = caps_limits()->max_map_count;
    size_t n = sys_read_file("/proc/sys/vm/max_map_count", digits, sizeof(digits));
    while (n > 0 && (digits[n - 1] == '\n' || digits[n - 1] == ' ')) {
        n--;
    }
    if (!text_parse_size(digits, n, &count)) {
        count = caps_limits()->max_map_count;
    }
    size_t guards = guard_vmas();
    size_t most = (size_t)(count - count / 4);
    others = others > guards ? others : guards;
    return most > others ? most - others : 0;
}
