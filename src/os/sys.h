// Small kernel services for the layers above: output, environment, identity. errno is preserved.
#ifndef FIRN_OS_SYS_H
#define FIRN_OS_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Writes all of it to `fd`, retrying EINTR and short writes; gives up on any other error.
void sys_write(int fd, const char *data, size_t n);
// getenv without libc's help (works before libc's own start); NULL when AT_SECURE is set, so that a
// set-user-ID program never reads the caller's environment.
const char *sys_environment(const char *name);
bool sys_is_secure(void); // AT_SECURE
// Reads a small file (say, under /proc) into `buffer`, NUL-terminates; bytes read, 0 on failure.
size_t sys_read_file(const char *path, char *buffer, size_t capacity);
// fatal_locate_fn: finds the module of a code address in /proc/self/maps (read(2) on the stack).
uintptr_t sys_locate(uintptr_t pc, char *path, size_t path_bytes);
// The same without a system call, for a process whose calls a filter judges: from what the loader knows. The
// program itself is named as it was executed.
uintptr_t sys_locate_quietly(uintptr_t pc, char *path, size_t path_bytes);
// Under the kernel's strict mode (SECCOMP_MODE_STRICT) any call but read, write and a thread's end kills the process.
// From sys_go_mute on sys_may_call is false, with ENOMEM, for the calling thread, and its heap is what it has.
void sys_go_mute(void);
bool sys_is_mute(void);
bool sys_may_call(void);
int sys_process_id(void);
int sys_thread_id(void);
// Whether a thread of this process has that number. Preserves errno.
bool sys_has_thread(int thread);
void sys_yield(void);
// unshare(2) and setns(2): 0, or -1 and errno.
int sys_unshare(int flags);
int sys_setns(int fd, int type);

#endif
