#include "src/os/swap.h"

#include "src/os/kernel.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

// Not libc's, which is exported by us too.
static void advise(uintptr_t address, size_t bytes, int advice) {
    const int saved = errno;
    (void)syscall(SYS_madvise, address, bytes, advice);
    errno = saved;
}

void swap_look(struct swap_room *out) {
    const int saved = errno;
    struct sysinfo info;
    *out = (struct swap_room){0, 0};
    if (syscall(SYS_sysinfo, &info) == 0) {
        out->total_bytes = (uint64_t)info.totalswap * info.mem_unit;
        out->free_bytes = (uint64_t)info.freeswap * info.mem_unit;
    }
    errno = saved;
}

void swap_put_out(uintptr_t address, size_t bytes) {
    advise(address, bytes, MADV_PAGEOUT);
}

void swap_bring_back(uintptr_t address, size_t bytes) {
    advise(address, bytes, MADV_POPULATE_READ);
}

void swap_announce(uintptr_t address, size_t bytes) {
    uintptr_t from = address & ~(uintptr_t)(FIRN_PAGE - 1);
    advise(from, bytes + (address - from), MADV_WILLNEED);
}
