// A parent that waits until its forked child has taken what it needs. Preserves errno; nothing here
// allocates. Descriptors are closed on both sides before either goes on.
#ifndef FIRN_OS_HANDOVER_H
#define FIRN_OS_HANDOVER_H

struct handover {
    int from, to; // ends of a pipe, or -1
};

// Before fork. With no descriptors to be had nobody will wait.
void handover_prepare(struct handover *h);
// In the child, when it is done.
void handover_done(struct handover *h);
// In the parent: returns when the child is done, or dead, or was never made.
void handover_wait(struct handover *h);

#endif
