#include "src/os/secret.h"

#include "src/base/compiler.h"
#include "src/os/caps.h"
#include "src/os/map.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

// The descriptor is closed at once: nobody can map the page again. Such memory counts as locked; where
// the limit is used up the mapping is refused.
static void *hidden_page(void) {
    if (!caps_has(CAP_SECRET)) {
        return MAP_FAILED;
    }
    int fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
    if (fd < 0) {
        return MAP_FAILED;
    }
    void *p = MAP_FAILED;
    if (ftruncate(fd, FIRN_PAGE) == 0) {
        p = mmap(NULL, FIRN_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    close(fd);
    return p;
}

static void *plain_page(void) {
    void *p = mmap(NULL, FIRN_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p != MAP_FAILED) {
        (void)map_exclude_from_dump((uintptr_t)p, FIRN_PAGE);
        (void)mlock(p, FIRN_PAGE); // not within the limit: the key can be swapped out, no worse
    }
    return p;
}

void *secret_page(bool *is_hidden) {
    int saved = errno;
    void *p = hidden_page();
    *is_hidden = p != MAP_FAILED;
    if (!*is_hidden) {
        p = plain_page();
    }
    errno = saved;
    return p != MAP_FAILED ? p : NULL;
}

void secret_seal_page(void *page) {
    map_make_readonly((uintptr_t)page, FIRN_PAGE);
}

void secret_wipe(void *p, size_t n) {
    memset(p, 0, n);
    __asm__ volatile("" : : "r"(p) : "memory");
}
