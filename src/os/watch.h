// A look at the faults of a program that handles none itself: its SIGSEGV has the default action, so
// nobody notices that ours is there.
#ifndef FIRN_OS_WATCH_H
#define FIRN_OS_WATCH_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

// Called in the context of the signal for each fault; returns if it is none of ours. The process then
// ends as it would have: by the default action, at the faulting instruction.
struct watch_fault {
    uintptr_t address;
    uintptr_t pc;
    bool is_write;
};
typedef void watch_fn(const struct watch_fault *fault);

// Puts the watcher in the place of SIGSEGV's default action; from then on os/signals.c puts it there
// whenever the program asks for that action. A handler of the program's is left alone, and one that it
// installs later takes the watcher's place. True if the watcher is there. Early: a filter that the
// program installs later may forbid the calls. `fn` is the same every time. Preserves errno.
bool watch_install(watch_fn *fn);
// What is to be installed for SIGSEGV where the program asks for `set`: the watcher, or `set` itself.
const struct sigaction *watch_instead_of(const struct sigaction *set);
// Whether an action is the watcher: to the program it is the default one.
bool watch_is_ours(const struct sigaction *action);

#endif
