// To be told when memory is short: by the service manager, by the process's cgroup, or by the machine.
//
// In this order: what $MEMORY_PRESSURE_WATCH names (a file of the kernel's, a pipe or a socket; systemd's
// protocol, https://systemd.io/MEMORY_PRESSURE), the memory.pressure of its cgroup, /proc/pressure/memory.
// The descriptor is in the table of Firn's threads (os/missing.h), and all but strain_choose is theirs.
#ifndef FIRN_OS_STRAIN_H
#define FIRN_OS_STRAIN_H

#include "src/base/compiler.h"

#include <stdbool.h>

// From the environment, at start; copied. NULL: not set. `watch` as "/dev/null": not at all. A path or text that
// is too long, or no base64, counts as that.
void strain_choose(const char *watch, const char *write);
// Opens it, or nothing where there is none.
void strain_open(void);
void strain_close(void);

struct strain_poll {
    int descriptor; // -1: none
    short events;
};
struct strain_poll strain_poll(void);
// What poll said of the descriptor: whether memory is short. Where the other side is gone it is closed.
bool strain_is_short(short events) FIRN_CHECKED;

#endif
