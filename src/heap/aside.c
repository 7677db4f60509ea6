#include "src/heap/aside.h"

#include <dlfcn.h>
#include <string.h>

struct aside firn_aside;

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
