// Limits that a program sets for itself while it runs. As libc's functions of these names: 0, or -1
// and errno.
#ifndef FIRN_OS_ALLOWANCE_H
#define FIRN_OS_ALLOWANCE_H

#include <stdbool.h>
#include <sys/resource.h>

// prlimit. Any pointer: what cannot be read or written is EFAULT.
int allowance_change(int process, int resource, const struct rlimit *new_limit,
                     struct rlimit *old_limit);
// Whether that process is this one.
bool allowance_is_own(int process);
int allowance_lock_all(int flags); // mlockall

#endif
