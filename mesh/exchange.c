#include "mesh/exchange.h"

#include "mesh/frame.h"
#include "mesh/pages.h"
#include "src/os/fault.h"

#include <string.h>

enum { RUNS_ONE_BY_ONE = 4 };

unsigned exchange_most(void) {
    return fault_can_empty() ? MERGE_RUNS : RUNS_ONE_BY_ONE;
}

struct search_page *exchange_now(struct exchange *x, const struct merge_run *run) {
    return &x->now[(run->address - x->runs[0].address) >> FIRN_PAGE_SHIFT];
}

static uintptr_t page_of(const struct merge_run *run, unsigned i) {
    return run->address + i * (uintptr_t)FIRN_PAGE;
}

static size_t bytes_of(const struct merge_run *run) {
    return (size_t)run->done << FIRN_PAGE_SHIFT;
}

static bool is_user(const struct merge_run *run, unsigned i) {
    return !search_is_empty(run->planned[i].mask);
}

// Before any page is taken away: a child that nobody knows of finds its pages by these entries (lend.h).
static void note(const struct merge_run *run) {
    size_t users = 0;
    for (unsigned i = 0; i < run->done; i++) {
        enum pages_kind kind = is_user(run, i) ? PAGES_MESHED : PAGES_FILLER;
        merge_note_entry(page_of(run, i), pages_entry(kind, run->frame + i));
        users += is_user(run, i);
    }
    merge_count_meshed(users);
}

static void forget(const struct merge_run *run) {
    size_t users = 0;
    for (unsigned i = 0; i < run->done; i++) {
        enum pages_kind kind = is_user(run, i) ? PAGES_PRIVATE : PAGES_PURGED;
        merge_note_entry(page_of(run, i), pages_entry(kind, 0));
        users += is_user(run, i);
    }
    merge_count_unmeshed(users);
    merge_note_unmeshed(merge_span_of(run->address));
}

// First the mark: from here on, what stands in front of a slot may be a partner's.
static void copy_in(struct exchange *x, struct merge_run *run, struct purge_list *parts) {
    const struct search_page *now = exchange_now(x, run);
    span_set_mesh(merge_span_of(run->address), SPAN_MESHED, 0);
    for (unsigned i = 0; i < run->done; i++) {
        merge_copy_granules(now[i].mask, page_of(run, i), frame_view(run->frame + i));
    }
    note(run);
    purge_add(parts, run->address, bytes_of(run));
}

// The kernel took the pages away and mapped nothing: private zeros are there now.
static void copy_back(const struct merge_run *run, const struct search_page now[]) {
    for (unsigned i = 0; i < run->done; i++) {
        merge_copy_granules(now[i].mask, frame_view(run->frame + i), page_of(run, i));
    }
    fault_adopt(run->address, bytes_of(run));
}

// Its pages were taken away and are wanted after all. Not as the frames are: what partners have in them stays
// with them.
static void fill_back(const struct merge_run *run, const struct search_page now[]) {
    static _Alignas(FIRN_PAGE) unsigned char desk[FIRN_PAGE];
    for (unsigned i = 0; i < run->done; i++) {
        if (is_user(run, i)) {
            merge_copy_granules(now[i].mask, frame_view(run->frame + i), (uintptr_t)desk);
            fault_fill(page_of(run, i), (uintptr_t)desk);
            memset(desk, 0, sizeof desk);
        }
    }
    purge_restore(run->address, bytes_of(run));
}

static bool map_frames(const struct exchange *x, const struct merge_run *run, bool *is_lost) {
    if (!x->are_copies) {
        return frame_map(run->frame, run->address, run->done, is_lost);
    }
    if (!frame_map_copy(run->frame, run->address, run->done, is_lost)) {
        return false;
    }
    for (unsigned i = 0; i < run->done; i++) {
        merge_note_entry(page_of(run, i), pages_get(page_of(run, i)) | PAGES_COPY);
    }
    return true;
}

static void map_run(struct exchange *x, struct merge_run *run, bool is_emptied) {
    bool is_lost = false;
    run->result = MERGE_DONE;
    if (map_frames(x, run, &is_lost)) {
        return;
    }
    if (is_lost) {
        copy_back(run, exchange_now(x, run));
    } else if (is_emptied) {
        fill_back(run, exchange_now(x, run));
    }
    forget(run);
    run->result = MERGE_REFUSED;
    run->done = 0;
}

// What lies between the runs, and what of them is not merged: it can be written to again.
static void open_gaps(const struct exchange *x, bool is_uncovered) {
    uintptr_t at = x->address;
    for (unsigned i = 0; i <= x->count; i++) {
        const struct merge_run *run = &x->runs[i];
        bool is_last = i == x->count;
        if (!is_last && run->done == 0) {
            continue;
        }
        uintptr_t next = is_last ? x->end : run->address;
        if (next > at && is_uncovered) {
            fault_adopt(at, next - at);
        } else if (next > at) {
            fault_open(at, next - at);
        }
        at = is_last ? next : next + bytes_of(run);
    }
}

void exchange_all(struct exchange *x) {
    struct purge_list parts = {.count = 0};
    size_t bytes = x->end - x->address;
    for (unsigned i = 0; i < x->count; i++) {
        if (x->runs[i].done > 0) {
            copy_in(x, &x->runs[i], &parts);
        }
    }
    bool is_covered = parts.count > 0 && fault_can_empty();
    bool is_emptied = is_covered && fault_empty(x->address, bytes, &parts);
    for (unsigned i = 0; i < x->count; i++) {
        if (x->runs[i].done > 0) {
            map_run(x, &x->runs[i], is_emptied);
        }
    }
    if (is_covered) {
        fault_uncover(x->address, bytes);
    }
    open_gaps(x, is_covered);
    fault_publish(x->address, bytes);
}
