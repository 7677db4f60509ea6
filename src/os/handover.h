// A parent that wants to know when its forked child has taken what it needs. Preserves errno; nothing here
// allocates.
#ifndef FIRN_OS_HANDOVER_H
#define FIRN_OS_HANDOVER_H

#include "src/os/keep.h"

#include <stdbool.h>

// Both ends of a pipe: the reader's out of the program's way, the writer's for the time of the fork only.
struct handover {
    struct keep from;
    int to;
};

#define HANDOVER_NONE                                                                              \
    { KEEP_NONE, -1 }

// Before fork.
void handover_prepare(struct handover *h);
// False: there were no descriptors to be had. The child knows that, too.
bool handover_can_tell(const struct handover *h);
// In the child, when it is done.
void handover_done(struct handover *h);
// In the parent, after fork.
void handover_begin(struct handover *h);
// In the parent: whether the child is done, or dead, or was never made. Not known, and false, for ever, when
// there were no descriptors to be had, or the program closed ours.
bool handover_is_over(struct handover *h);
// Returns when it is. At once, when that cannot be known.
void handover_wait(struct handover *h);
// In another child: it is none of its business.
void handover_forget(struct handover *h);

#endif
