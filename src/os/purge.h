// Pages of many places given back together: by one call, where the kernel takes a list (Linux 6.14).
// Each call makes every processor that runs the process forget what it knows of its pages, which costs more
// than the pages do.
#ifndef FIRN_OS_PURGE_H
#define FIRN_OS_PURGE_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PURGE_MOST = 64 }; // ranges of a list

struct purge_range {
    uintptr_t address;
    size_t bytes;
};

struct purge_list {
    unsigned count;
    struct purge_range ranges[PURGE_MOST];
};

// The list has room, and nobody uses the range until purge_all. One that continues the one before joins it.
void purge_add(struct purge_list *l, uintptr_t address, size_t bytes);
// As map_purge, for all of them; the list is empty then. Preserves errno.
void purge_all(struct purge_list *l);

// Whether the kernel takes a list. Preserves errno.
bool purge_has_lists(void);
// For pages that are about to be mapped anew, one after the other, each of which would be a call that makes
// all processors forget: their memory goes back now, as far as the kernel lets it go, and children forked
// meanwhile get none of them, lest they read zeros. False: they are as they were. Preserves errno.
bool purge_withdraw(const struct purge_list *l) FIRN_CHECKED;
// For a range of the list that was not mapped anew: children get it again. Preserves errno.
void purge_restore(uintptr_t address, size_t bytes);

#endif
