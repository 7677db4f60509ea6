// Where reports go: FIRN_OPTIONS=report=FILE, report=fd:N or report=syslog. Opened at start, while
// the program still has the rights, the root directory and the descriptors it was started with;
// checked again, and if need be opened again, when there is something to report.
#ifndef FIRN_OS_SINK_H
#define FIRN_OS_SINK_H

#include <stdbool.h>
#include <stddef.h>

enum { SINK_TARGET_BYTES = 256 };

// Remembers and opens the target. NULL: ready. Else why not, a short phrase; reports then still try,
// and go to standard error. A file is created with mode 0600, appended to, never followed through a
// symbolic link, and has to be a regular file of the effective user or of root.
const char *sink_set(const char *target);

// A fatal_write_fn: one write for a file or descriptor; a datagram a line for syslog, where stderr
// gets the report, too.
const char *sink_write(const char *text, size_t n);

#endif
