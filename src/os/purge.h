// Pages of many places given back together: by one call, where the kernel takes a list (Linux 6.14).
// Each call makes every processor that runs the process forget what it knows of its pages, which costs more
// than the pages do.
#ifndef FIRN_OS_PURGE_H
#define FIRN_OS_PURGE_H

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

#endif
