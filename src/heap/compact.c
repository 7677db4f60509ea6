#include "src/heap/compact.h"

#include "mesh/mesh.h"
#include "src/heap/heap.h"
#include "src/heap/life.h"
#include "src/meta/size_class.h"

#include <errno.h>

size_t compact_now(void) {
    const int saved = errno;
    size_t bytes = 0;
    if (heap_trim()) { // starts the heap
        bytes += FIRN_PAGE;
    }
    for (unsigned i = 0; life_has_started() && i < SIZE_CLASSES; i++) {
        bytes += mesh_pass(i, &(struct mesh_pace){.is_forced = true, .share = 100});
    }
    errno = saved;
    return bytes;
}
