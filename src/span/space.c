// Holes first, then the frontier of any tract, then a new tract.
#include "src/span/space.h"

#include "src/base/align.h"
#include "src/base/fatal.h"
#include "src/os/caps.h"

#include <errno.h>

#define SPACE_TRACT_BYTES ((size_t)64 << 30)

enum {
    SPACE_ATTEMPTS = 4,
    SPACE_ALIGN = 2 << 20,
    SPACE_SLACK = 1 << 20 // a tract's last page, gaps, and a step of the frontier
};

bool space_add(struct space *space, const struct reservation *range) {
    if (space->count == SPACE_TRACTS) {
        return false;
    }
    if (!tract_start(&space->tracts[space->count], &space->shared, range, space->is_rationed,
                     space->count)) {
        return false;
    }
    atomic_fetch_add_explicit(&space->count, 1, memory_order_release);
    return true;
}

struct tract *space_find(struct space *space, uintptr_t address) {
    for (unsigned i = 0; i < space->count; i++) {
        struct tract *tract = &space->tracts[i];
        if (address - tract->range.base < tract->range.bytes) {
            return tract;
        }
    }
    return NULL;
}

struct tract *space_tract_of(struct space *space, const struct run *run) {
    FIRN_ENSURE(run->region < space->count);
    return &space->tracts[run->region];
}

// From a hole, or from the free end of a tract, at least `room` bytes long.
static struct run *space_take_hole(struct space *space, const struct carve_request *request,
                                   size_t room) {
    for (;;) {
        struct run *hole =
            bins_fit(&space->shared.free, room, request->align, SIZE_MAX, space->shared.random);
        if (hole == NULL) {
            return NULL;
        }
        struct run *run = carve_cut(space_tract_of(space, hole), hole, request);
        if (run != NULL || errno != EEXIST) {
            return run;
        }
    }
}

static struct run *space_take_frontier(struct tract *tract, const struct carve_request *request) {
    for (;;) {
        struct run *last = carve_grow(tract, request->bytes, request->align);
        if (last == NULL) {
            return NULL;
        }
        struct run *run = carve_cut(tract, last, request);
        if (run != NULL || errno != EEXIST) {
            return run;
        }
    }
}

static bool space_has_room(const struct tract *tract, const struct carve_request *request) {
    size_t room = tract->limit - tract->frontier;
    size_t bytes = request->bytes;
    size_t align = request->align;
    return room > SPACE_SLACK && room - SPACE_SLACK > bytes && room - SPACE_SLACK - bytes > align;
}

// Bytes to reserve for a request: the least that will do, and what is better.
static bool space_measure(const struct carve_request *request, size_t *least, size_t *wanted) {
    if (__builtin_add_overflow(request->bytes, request->align, least) ||
        __builtin_add_overflow(*least, 2 * (size_t)SPACE_SLACK, least) ||
        !align_up_checked(*least, SPACE_ALIGN, least)) {
        return false;
    }
    uint64_t limit = caps_limits()->address_space_bytes;
    size_t usual = limit < SPACE_TRACT_BYTES ? align_down(limit, SPACE_ALIGN) : SPACE_TRACT_BYTES;
    *wanted = *least + align_up(*least / 10, SPACE_ALIGN);
    if (*wanted < usual) {
        *wanted = usual;
    }
    return true;
}

// Reserves a tract for an object too large for the others, with room for more if that can be had.
static struct tract *space_reserve(struct space *space, const struct carve_request *request) {
    size_t least;
    size_t wanted;
    unsigned limit_bits = caps_has(CAP_WIDE_ADDRESS) ? 47 : 39;
    if (!space_measure(request, &least, &wanted) || least >> limit_bits != 0 ||
        space->count == SPACE_TRACTS) {
        return NULL;
    }
    bool is_sparse = !caps_has(CAP_RESERVE);
    struct reservation range;
    while (!map_reserve(&range, wanted, SPACE_ALIGN, limit_bits, is_sparse)) {
        if (wanted == least) {
            return NULL;
        }
        wanted = wanted / 2 > least ? align_up(wanted / 2, SPACE_ALIGN) : least;
    }
    if (!space_add(space, &range)) {
        map_unreserve(&range);
        return NULL;
    }
    return &space->tracts[space->count - 1];
}

// In a new tract. A sparse one may turn out to have somebody else in its middle: then another.
static struct run *space_take_new(struct space *space, const struct carve_request *request) {
    for (unsigned attempt = 0; attempt < SPACE_ATTEMPTS; attempt++) {
        struct tract *tract = space_reserve(space, request);
        struct run *run = tract != NULL ? space_take_frontier(tract, request) : NULL;
        if (run != NULL || tract == NULL || space_has_room(tract, request)) {
            return run;
        }
    }
    return NULL;
}

// At the frontier of some tract, which may be a new one.
static struct run *space_take_fresh(struct space *space, const struct carve_request *request) {
    for (unsigned i = 0; i < space->count; i++) {
        struct tract *tract = &space->tracts[i];
        struct run *run = space_take_frontier(tract, request);
        if (run != NULL) {
            return run;
        }
        // Room, but no memory: another reservation would not help, and would stay for ever.
        if (space_has_room(tract, request)) {
            return NULL;
        }
    }
    return space_take_new(space, request);
}

struct run *space_take(struct space *space, const struct carve_request *request) {
    struct run *run = NULL;
    if (request->is_roomy) {
        // Twice the size, so that holes are filled before the frontier moves, and still leave room.
        run = space_take_hole(space, request, 2 * request->bytes);
        if (run == NULL) {
            run = space_take_fresh(space, request);
        }
    }
    if (run == NULL) {
        run = space_take_hole(space, request, request->bytes);
    }
    if (run == NULL && !request->is_roomy) {
        run = space_take_fresh(space, request);
    }
    if (run == NULL) {
        errno = ENOMEM;
    }
    return run;
}
