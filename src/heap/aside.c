#include "src/heap/aside.h"

#include "hardening/slot.h"
#include "src/meta/size_class.h"

#include <dlfcn.h>
#include <string.h>

struct aside firn_aside FIRN_KEPT;
size_t firn_large_only FIRN_KEPT;
size_t firn_large_least FIRN_KEPT;

static const char *const names[] = {
    "malloc",      "free",    "calloc",    "realloc",      "memalign",   "malloc_usable_size",
    "malloc_trim", "mallopt", "mallinfo2", "malloc_stats", "malloc_info"};

enum { NAMES = sizeof names / sizeof names[0] };

_Static_assert(sizeof(struct aside) == NAMES * sizeof(void *), "a name for each, in their order");

bool aside_find(void) {
    void *found[NAMES];
    for (unsigned i = 0; i < NAMES; i++) {
        found[i] = dlsym(RTLD_NEXT, names[i]);
        if (found[i] == NULL) {
            return false;
        }
    }
    memcpy(&firn_aside, found, sizeof found); // ISO C has no cast from object to function
    return true;
}

void aside_take_below(size_t bytes) {
    firn_large_only = bytes;
    firn_large_least = bytes;
    if (bytes != 0 && bytes - 1 <= SMALL_MAX - FIRN_SLOT_EXTRA) {
        unsigned last = size_class_of(bytes - 1 + FIRN_SLOT_EXTRA);
        firn_large_least = size_class_bytes(last) - FIRN_SLOT_EXTRA + 1;
    }
}
