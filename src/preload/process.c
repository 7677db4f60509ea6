// Calls that the kernel refuses to a process with more than one thread: Firn's own is sent away first, and
// comes back when there is something to gain again. A program that makes them in assembly of its own, or by
// syscall, is on its own, as with any library that has a thread.
//
// Not in the archive, where libc's own definitions may be linked in, too.
#include "src/base/compiler.h"
#include "src/heap/keeper.h"
#include "src/heap/upkeep.h"
#include "src/os/sys.h"

#include <sched.h>

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
