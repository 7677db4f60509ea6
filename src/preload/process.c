// Calls that mean Firn's own threads, too.
//
// unshare and setns are refused by the kernel to a process with more than one thread: Firn's is sent away
// first, and comes back when there is something to gain again.
//
// setgroups is made by libc in every thread, Firn's among them, with the program's list. Those of the cold
// tier must not touch memory that may be away (in the kernel they would wait for themselves, and the
// caller for them: sshd's logins did), so they get a copy of the list outside of the heap.
//
// A program that makes these calls in assembly of its own, or by syscall, is on its own, as with any library
// that has a thread.
//
// Not in the archive, where libc's own definitions may be linked in, too.
#include "src/base/compiler.h"
#include "src/heap/keeper.h"
#include "src/heap/upkeep.h"
#include "src/os/aside.h"
#include "src/os/sys.h"

#include <dlfcn.h>
#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <string.h>

FIRN_EXPORT int unshare(int flags) {
    if (firn_has_keeper) {
        keeper_stop();
    }
    return sys_unshare(flags);
}

FIRN_EXPORT int setns(int fd, int type) {
    if (firn_has_keeper) {
        keeper_stop();
    }
    return sys_setns(fd, type);
}

enum { GROUPS_MOST = 65536 }; // NGROUPS_MAX

static int next_setgroups(size_t n, const gid_t *groups) {
    int (*function)(size_t, const gid_t *);
    void *found = dlsym(RTLD_NEXT, "setgroups");
    memcpy(&function, &found, sizeof function);
    if (function == NULL) {
        errno = ENOSYS;
        return -1;
    }
    return function(n, groups);
}

static gid_t *make_list(void) {
    return (gid_t *)aside_make(GROUPS_MOST * sizeof(gid_t)); // NOLINT(performance-no-int-to-ptr)
}

static void drop_list(gid_t *list) {
    const int saved = errno;
    aside_drop((uintptr_t)list, GROUPS_MOST * sizeof(gid_t));
    errno = saved;
}

FIRN_EXPORT int setgroups(size_t n, const gid_t *groups) {
    if (!firn_has_cold_upkeep || n == 0 || n > GROUPS_MOST) {
        return next_setgroups(n, groups);
    }
    gid_t *list = make_list();
    if (list == NULL) {
        errno = ENOMEM;
        return -1;
    }
    memcpy(list, groups, n * sizeof *list);
    const int result = next_setgroups(n, list);
    drop_list(list);
    return result;
}

// libc's calls its own setgroups. More groups than the kernel takes: as many as it does.
FIRN_EXPORT int initgroups(const char *user, gid_t group) {
    int n = GROUPS_MOST;
    gid_t *list = make_list();
    if (list == NULL) {
        errno = ENOMEM;
        return -1;
    }
    int result = -1;
    if (getgrouplist(user, group, list, &n) < 0 && n <= GROUPS_MOST) {
        errno = ENOMEM; // and nothing is in the list
        n = 0;
    }
    n = n < GROUPS_MOST ? n : GROUPS_MOST;
    for (; n > 0; n--) {
        result = next_setgroups((size_t)n, list);
        if (result == 0 || errno != EINVAL) {
            break;
        }
    }
    drop_list(list);
    return result;
}
