#include "src/os/allowance.h"

#include "src/os/sys.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int allowance_change(int process, int resource, const struct rlimit *new_limit,
                     struct rlimit *old_limit) {
    return (int)syscall(SYS_prlimit64, process, resource, new_limit, old_limit);
}

bool allowance_is_own(int process) {
    return process == 0 || process == sys_process_id();
}

int allowance_lock_all(int flags) {
    return (int)syscall(SYS_mlockall, flags);
}
