// Calls that make address space scarce. They do what libc's do; Firn then gives back what it holds in
// reserve, or the process would be out of addresses at once: its terabytes count like any mapping.
//
// Not in the archive, where libc's own definitions may be linked in, too.
#include "src/base/compiler.h"
#include "src/heap/ration.h"
#include "src/os/allowance.h"
#include "src/preload/call.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/types.h>

static void add_limits(struct call *c, const struct rlimit *new_limit,
                       const struct rlimit *old_limit) {
    add(c, new_limit, sizeof *new_limit);
    add(c, old_limit, sizeof *old_limit);
}

static int change(int process, int resource, const struct rlimit *new_limit,
                  struct rlimit *old_limit) {
    struct call c = {0};
    do {
        add_limits(&c, new_limit, old_limit);
    } while (call_begin(&c));
    int result = allowance_change(process, resource, new_limit, old_limit);
    call_end(&c);
    // Only what the kernel has read may be read.
    if (result == 0 && resource == RLIMIT_AS && new_limit != NULL &&
        new_limit->rlim_cur != RLIM_INFINITY && allowance_is_own(process)) {
        ration_addresses();
    }
    return result;
}

FIRN_EXPORT int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit) {
    return change(0, (int)resource, limit, NULL);
}

FIRN_EXPORT int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit) {
    return change(0, (int)resource, (const struct rlimit *)limit, NULL);
}

FIRN_EXPORT int prlimit(pid_t process, enum __rlimit_resource resource,
                        const struct rlimit *new_limit, struct rlimit *old_limit) {
    return change(process, (int)resource, new_limit, old_limit);
}

FIRN_EXPORT int prlimit64(pid_t process, enum __rlimit_resource resource,
                          const struct rlimit64 *new_limit, struct rlimit64 *old_limit) {
    return change(process, (int)resource, (const struct rlimit *)new_limit,
                  (struct rlimit *)old_limit);
}

// Refused for want of RLIMIT_MEMLOCK: perhaps for addresses that are only reserved.
FIRN_EXPORT int mlockall(int flags) {
    if (flags != 0 && (flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)) == 0) {
        ration_before_lock();
    }
    int result = allowance_lock_all(flags);
    if (result != 0 && errno == ENOMEM && (flags & MCL_CURRENT) != 0) {
        ration_addresses();
        result = allowance_lock_all(flags);
    }
    return result;
}
