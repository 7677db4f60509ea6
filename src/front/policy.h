// Which programs get which options: /etc/firn.conf, then /etc/firn.conf.d/*.conf in the order of their names.
// firn.conf(5) describes them. Read once at start, before anything is allocated, also when AT_SECURE: only
// files that nobody but root can have written count (os/trusted.h).
//
// A line is PATTERN OPTION...: options for the programs whose path, symbolic links resolved, matches. In a pattern `?`
// stands for one character and `*` for any number of them, neither for a slash; `**` for anything. All lines
// that match hold, a later one over an earlier one. What is wrong with a line is said on fd 2, with its file and number,
// and the line is ignored.
#ifndef FIRN_FRONT_POLICY_H
#define FIRN_FRONT_POLICY_H

#include "src/base/compiler.h"
#include "src/os/trusted.h"

#include <stdbool.h>
#include <stddef.h>

enum { POLICY_LINE_BYTES = 512, POLICY_FILES_MOST = 64, POLICY_COMPLAINTS_MOST = 8 };

#define POLICY_FILE "/etc/firn.conf"
// Read only where the file is there: a machine without a policy pays one openat a process.
#define POLICY_FOLDER "/etc/firn.conf.d"

struct policy_source {
    const char *file;
    const char *folder;
    unsigned owner;      // the only user whose files count: 0
    const char *program; // a resolved path; NULL: the one that runs
};

// A line that matches: its options, as FIRN_OPTIONS has them, and "FILE:LINE". Returns the number of complaints.
typedef unsigned policy_apply_fn(const char *options, const char *origin, void *context);

// What trusted_open made of source->file. Closes `fd`. Returns the number of complaints, those of `apply` included.
unsigned policy_read_opened(const struct policy_source *source, int fd, const char *wrong,
                            policy_apply_fn *apply, void *context);

// Inline: of all the code for this, a process without a policy runs (and has in memory) one system call.
FIRN_INLINE unsigned policy_read(const struct policy_source *source, policy_apply_fn *apply,
                                 void *context) {
    const char *wrong;
    const int fd = trusted_open(TRUSTED_HERE, source->file, false, source->owner, &wrong);
    return FIRN_LIKELY(fd < 0 && wrong == NULL)
               ? 0
               : policy_read_opened(source, fd, wrong, apply, context);
}

bool policy_matches(const char *pattern, const char *path);

#endif
