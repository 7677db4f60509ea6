// Ways to fork that run no fork handlers. What fork itself needs is done by handlers (heap/life.h).
//
// _Fork may be called in a signal handler, also in one that interrupted an allocation: life_begin_fork does
// nothing then, and the child comes to terms when the handler has returned.
#include "src/base/compiler.h"
#include "src/heap/life.h"

#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

// libc's own, under the name that is not interposed.
int __clone(int (*function)(void *), void *stack, int flags, void *argument, ...);

static pid_t (*next_fork)(void);

__attribute__((constructor)) static void look_up(void) {
    void *found = dlsym(RTLD_NEXT, "_Fork");
    *(void **)&next_fork = found;
}

FIRN_EXPORT pid_t _Fork(void) {
    if (next_fork == NULL) {
        look_up(); // an earlier constructor calls
    }
    if (next_fork == NULL) {
        errno = ENOSYS;
        return -1;
    }
    life_begin_fork();
    pid_t child = next_fork();
    life_end_fork(child == 0);
    return child;
}

struct start {
    int (*function)(void *);
    void *argument;
};

static int run(void *opaque) {
    const struct start start = *(const struct start *)opaque;
    life_end_fork(true);
    return start.function(start.argument);
}

// Without CLONE_VM it is a fork whose child has another stack. Not with another thread's storage: there
// we are not the thread that began.
FIRN_EXPORT int clone(int (*function)(void *), void *stack, int flags, void *argument, ...) {
    va_list rest;
    va_start(rest, argument);
    pid_t *parent_id = va_arg(rest, pid_t *);
    void *storage = va_arg(rest, void *);
    pid_t *child_id = va_arg(rest, pid_t *);
    va_end(rest);
    if (function == NULL || stack == NULL || (flags & (CLONE_VM | CLONE_SETTLS)) != 0) {
        return __clone(function, stack, flags, argument, parent_id, storage, child_id);
    }
    struct start start = {function, argument};
    life_begin_fork();
    int child = __clone(run, stack, flags, &start, parent_id, storage, child_id);
    life_end_fork(false);
    return child;
}
