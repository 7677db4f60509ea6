#include "mesh/plan.h"

#include "mesh/pages.h"

// A frame beside the one that the page before is in: no mapping more.
static uint32_t wish(const struct plan *p, unsigned i) {
    uintptr_t before = p->addresses[i] - FIRN_PAGE;
    uint32_t left = i != 0 && p->addresses[i - 1] == before ? p->frames[i - 1] : FRAME_NONE;
    uint32_t entry = pages_get(before);
    if (left == FRAME_NONE && pages_is_mapped(entry)) {
        left = pages_frame(entry);
    }
    return left != FRAME_NONE ? left + 1 : FRAME_NONE;
}

static unsigned page_phase(const struct plan *p, unsigned i) {
    return (unsigned)((p->addresses[i] >> FIRN_PAGE_SHIFT) % p->span_pages % p->cycle);
}

// So many numbers more, and the frame is one for the page.
static unsigned phase_gap(const struct plan *p, unsigned i, uint32_t frame) {
    return (page_phase(p, i) + p->cycle - frame % p->cycle) % p->cycle;
}

// Pages from `i` on whose phases follow each other: a span begins anew, if it is no whole number of cycles.
static unsigned left_in_phase(const struct plan *p, unsigned i) {
    unsigned page = (unsigned)((p->addresses[i] >> FIRN_PAGE_SHIFT) % p->span_pages);
    return p->span_pages % p->cycle == 0 ? PLAN_STRETCH : p->span_pages - page;
}

static uint64_t places_for(const struct plan *p, unsigned i, uint32_t first) {
    uint64_t places = 0;
    for (unsigned place = phase_gap(p, i, first); place < FRAME_BLOCK; place += p->cycle) {
        places |= (uint64_t)1 << place;
    }
    return places;
}

struct spot {
    uint32_t frame;
    unsigned pages;
};

static struct spot find_wished(const struct plan *p, unsigned i, unsigned n, unsigned cell) {
    struct frame_block b;
    uint32_t wished = wish(p, i);
    if (wished == FRAME_NONE || phase_gap(p, i, wished) != 0 || !frame_block_of(cell, wished, &b)) {
        return (struct spot){FRAME_NONE, 0};
    }
    unsigned place = frame_place(wished);
    return (struct spot){wished, search_length(&p->masks[i], n, b.bins, b.usable, place)};
}

static struct spot find_spot(struct plan *p, unsigned i, unsigned n, unsigned cell) {
    struct spot wished = find_wished(p, i, n, cell);
    struct spot best = {FRAME_NONE, 0};
    struct frame_block b;
    uint32_t at = 0;
    for (unsigned k = 0; k < PLAN_BLOCKS && best.pages < n && frame_next_block(cell, &at, &b);) {
        if (b.usable == 0) {
            continue;
        }
        struct search_fit fit =
            search_best(&p->masks[i], n, b.bins, b.usable, places_for(p, i, b.first));
        p->tried += FRAME_BLOCK / p->cycle;
        k++;
        if (fit.pages > best.pages) {
            best = (struct spot){b.first + fit.place, fit.pages};
        }
    }
    return 2 * wished.pages > best.pages ? wished : best;
}

static bool is_empty(const struct plan *p, unsigned i) {
    return search_is_empty(p->masks[i].mask);
}

// Of a stretch so many pages at a time, so that the pages after them share these first: what is opened at
// once stays sparse.
enum { OPEN_PART = 4 };

// Frames of their own, next to each other. Those behind pages that need none are not kept.
static struct spot open_spot(struct plan *p, unsigned i, unsigned n, unsigned cell) {
    unsigned got = 0;
    n = n < p->stretch / OPEN_PART ? n : p->stretch / OPEN_PART;
    n = n > 0 ? n : 1;
    while (n > 1 && is_empty(p, i + n - 1)) {
        n--;
    }
    uint32_t frame = frame_open(cell, n, &(struct frame_phase){p->cycle, page_phase(p, i)}, &got);
    for (unsigned k = 0; frame != FRAME_NONE && k < got; k++) {
        if (is_empty(p, i + k)) {
            frame_release(frame + k);
        }
    }
    return (struct spot){frame, frame != FRAME_NONE ? got : 0};
}

static uintptr_t span_of(const struct plan *p, unsigned i) {
    return (p->addresses[i] >> FIRN_PAGE_SHIFT) / p->span_pages;
}

static bool is_beside(const struct plan *p, unsigned i, unsigned after) {
    return p->addresses[after] == p->addresses[i] + FIRN_PAGE && span_of(p, i) == span_of(p, after);
}

// The pages before and after those [i, end) of a stretch that occupy nothing.
static void extend(struct plan *p, unsigned i, unsigned end) {
    while (end < p->count && is_beside(p, end - 1, end) && is_empty(p, end) &&
           frame_place(p->frames[end - 1]) + 1 < FRAME_BLOCK) {
        p->frames[end] = p->frames[end - 1] + 1;
        end++;
    }
    while (i > 0 && is_beside(p, i - 1, i) && is_empty(p, i - 1) &&
           p->frames[i - 1] == FRAME_NONE && frame_place(p->frames[i]) > 0 &&
           p->frames[i] - 1 != FRAME_NONE) {
        // cppcheck-suppress arrayIndexOutOfBoundsCond ; a page of the batch
        p->frames[i - 1] = p->frames[i] - 1;
        i--;
    }
}

static void place(struct plan *p, unsigned i, struct spot spot) {
    for (unsigned k = 0; k < spot.pages; k++) {
        p->frames[i + k] = spot.frame + k;
        frame_claim(spot.frame + k, p->masks[i + k].mask);
    }
    extend(p, i, i + spot.pages);
}

// With existing frames: each may have lost its last user since it was looked at.
static unsigned hold(const struct plan *p, unsigned i, struct spot spot) {
    unsigned k = 0;
    while (k < spot.pages && (is_empty(p, i + k) || frame_hold(spot.frame + k))) {
        k++;
    }
    return k;
}

static void place_stretch(struct plan *p, unsigned first, unsigned end, unsigned cell) {
    for (unsigned i = first; i < end;) {
        if (is_empty(p, i)) {
            i++;
            continue;
        }
        unsigned n = end - i < p->stretch ? end - i : p->stretch;
        n = n < left_in_phase(p, i) ? n : left_in_phase(p, i);
        struct spot spot = find_spot(p, i, n, cell);
        spot.pages = hold(p, i, spot);
        if (spot.pages == 0) {
            spot = open_spot(p, i, n, cell);
        }
        if (spot.pages == 0) {
            return; // no frame is left
        }
        place(p, i, spot);
        i += spot.pages;
    }
}

// A page that would have a frame to itself gains nothing.
static void drop_single(struct plan *p) {
    for (unsigned i = 0; i < p->count; i++) {
        if (p->frames[i] != FRAME_NONE && !is_empty(p, i) && frame_users(p->frames[i]) < 2) {
            frame_release(p->frames[i]);
            p->frames[i] = FRAME_NONE;
        }
    }
}

void plan_make(struct plan *p, unsigned cell) {
    for (unsigned i = 0; i < p->count; i++) {
        p->frames[i] = FRAME_NONE;
    }
    for (unsigned i = 0; i < p->count;) {
        unsigned first = i++;
        while (i < p->count && p->addresses[i] == p->addresses[i - 1] + FIRN_PAGE) {
            i++;
        }
        place_stretch(p, first, i, cell);
    }
    drop_single(p);
}

unsigned plan_stretch(const struct plan *p, unsigned i, unsigned *users) {
    unsigned n = 0;
    *users = 0;
    do {
        *users += !is_empty(p, i + n);
        n++;
    } while (n < PLAN_STRETCH && i + n < p->count && is_beside(p, i + n - 1, i + n) &&
             p->frames[i + n] == p->frames[i] + n && frame_place(p->frames[i]) + n < FRAME_BLOCK);
    return n;
}
