#include "src/os/purge.h"

#include "src/base/fatal.h"
#include "src/os/caps.h"
#include "src/os/map.h"
#include "src/os/sys.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef SYS_process_madvise // Linux 5.10
#define SYS_process_madvise 440
#endif
enum { THIS_PROCESS = -10000 }; // PIDFD_SELF, Linux 6.14: no descriptor

_Static_assert(sizeof(struct purge_range) == sizeof(struct iovec) &&
                   offsetof(struct purge_range, address) == offsetof(struct iovec, iov_base) &&
                   offsetof(struct purge_range, bytes) == offsetof(struct iovec, iov_len),
               "a list is what the kernel takes");

static _Atomic enum { UNTRIED, POSSIBLE, IMPOSSIBLE } possibility;

static long advise(const struct purge_range *ranges, unsigned count, int advice) {
    return sys_may_call() ? syscall(SYS_process_madvise, THIS_PROCESS, ranges, count, advice, 0)
                          : -1;
}

// An answer is not believed: the page must be gone.
static bool try_it(void) {
    void *p = mmap(NULL, FIRN_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        return false;
    }
    volatile char *byte = p;
    const struct purge_range range = {(uintptr_t)p, FIRN_PAGE};
    *byte = 1;
    bool is_gone = advise(&range, 1, MADV_DONTNEED) == FIRN_PAGE && *byte == 0;
    munmap(p, FIRN_PAGE);
    return is_gone;
}

// Two threads may try at once, and find the same.
bool purge_has_lists(void) {
    const int saved = errno;
    if (caps_has(CAP_PURGE_LIST) && possibility == UNTRIED) {
        possibility = try_it() ? POSSIBLE : IMPOSSIBLE;
    }
    errno = saved;
    return caps_has(CAP_PURGE_LIST) && possibility == POSSIBLE;
}

void purge_add(struct purge_list *l, uintptr_t address, size_t bytes) {
    struct purge_range *last = l->count > 0 ? &l->ranges[l->count - 1] : NULL;
    if (last != NULL && last->address + last->bytes == address) {
        last->bytes += bytes;
        return;
    }
    FIRN_ENSURE(l->count < PURGE_MOST);
    l->ranges[l->count++] = (struct purge_range){address, bytes};
}

void purge_all(struct purge_list *l) {
    const int saved = errno;
    unsigned i = 0;
    if (l->count > 1 && purge_has_lists()) {
        long done = advise(l->ranges, l->count, MADV_DONTNEED);
        for (; i < l->count && done >= (long)l->ranges[i].bytes; i++) {
            done -= (long)l->ranges[i].bytes;
        }
    }
    // The kernel stops at what it will not do, at locked memory for one.
    for (; i < l->count; i++) {
        map_purge(l->ranges[i].address, l->ranges[i].bytes);
    }
    l->count = 0;
    errno = saved;
}

static long bytes_of(const struct purge_list *l) {
    size_t bytes = 0;
    for (unsigned i = 0; i < l->count; i++) {
        bytes += l->ranges[i].bytes;
    }
    return (long)bytes;
}

bool purge_withdraw(const struct purge_list *l) {
    const int saved = errno;
    bool is_done = purge_has_lists() && advise(l->ranges, l->count, MADV_DONTFORK) == bytes_of(l);
    if (is_done) {
        (void)advise(l->ranges, l->count, MADV_DONTNEED);
    } else {
        for (unsigned i = 0; i < l->count; i++) {
            purge_restore(l->ranges[i].address, l->ranges[i].bytes);
        }
    }
    errno = saved;
    return is_done;
}

void purge_restore(uintptr_t address, size_t bytes) {
    const int saved = errno;
    (void)madvise((void *)address, bytes, MADV_DOFORK);
    errno = saved;
}
