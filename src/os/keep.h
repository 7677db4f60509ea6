// A descriptor kept for later in a program that closes and reuses descriptors as it likes: copied
// out of the way, and re-checked before use, so that Firn never writes into a file of the program.
#ifndef FIRN_OS_KEEP_H
#define FIRN_OS_KEEP_H

#include <stdint.h>

struct keep {
    int fd; // -1: none
    uint64_t device;
    uint64_t inode;
};

#define KEEP_NONE                                                                                  \
    { -1, 0, 0 }

// Copies `fd` to a high number, closed on exec. KEEP_NONE stays when fd is closed or no number is
// free. Preserves errno.
void keep_copy(struct keep *k, int fd);
// The copy, or -1 when there is none or it is no longer the file it was. Preserves errno.
int keep_descriptor(const struct keep *k);
// For a thread whose descriptor table is not the program's: a copy of the program's, in that thread's, for
// the thread to close; -1, also where there is a filter of system calls. Preserves errno.
int keep_borrow(const struct keep *k);

#endif
