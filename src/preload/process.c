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
#include <stdbool.h>
#include <stddef.h>
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

static int (*next_setgroups)(size_t, const gid_t *);
static int (*next_initgroups)(const char *, gid_t);

// At start: dlsym takes the loader's lock, which a forked child, where these are often called, had better not.
__attribute__((constructor)) static void look_up(void) {
    void *found = dlsym(RTLD_NEXT, "setgroups");
    *(void **)&next_setgroups = found;
    found = dlsym(RTLD_NEXT, "initgroups");
    *(void **)&next_initgroups = found;
}

static bool has_next(void) {
    if (next_setgroups == NULL || next_initgroups == NULL) {
        look_up(); // an earlier constructor calls
    }
    return next_setgroups != NULL && next_initgroups != NULL;
}

static int fail(int error) {
    errno = error;
    return -1;
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
    if (!has_next()) {
        return fail(ENOSYS);
    }
    if (!firn_has_cold_upkeep || n == 0 || n > GROUPS_MOST) {
        return next_setgroups(n, groups);
    }
    gid_t *list = make_list();
    if (list == NULL) {
        return fail(ENOMEM);
    }
    memcpy(list, groups, n * sizeof *list);
    const int result = next_setgroups(n, list);
    drop_list(list);
    return result;
}

// libc's calls its own setgroups, with a list in the heap. More groups than the kernel takes: as many as it does.
FIRN_EXPORT int initgroups(const char *user, gid_t group) {
    if (!has_next()) {
        return fail(ENOSYS);
    }
    if (!firn_has_cold_upkeep) {
        return next_initgroups(user, group);
    }
    int n = GROUPS_MOST;
    gid_t *list = make_list();
    if (list == NULL) {
        return fail(ENOMEM);
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
