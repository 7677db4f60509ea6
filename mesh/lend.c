#include "mesh/lend.h"

#include "mesh/frame.h"
#include "mesh/merge.h"
#include "mesh/pages.h"
#include "src/base/fatal.h"
#include "src/meta/arena.h"
#include "src/os/aside.h"
#include "src/os/fault.h"
#include "src/os/handover.h"
#include "src/os/map.h"
#include "src/os/memfile.h"
#include "src/os/thread.h"

#include <string.h>

enum {
    LENT_MOST = 16,        // children that are not done; a fork more waits for the first of them
    LOOK_PAGES = 1024,     // whether they were written to, in one go
    JOIN_PAGES = 16,       // at once: who writes there waits so long
    BLIND_STEP_NS = 50000, // between looks at a child that has no way to tell
    BLIND_STEPS = 40000    // two seconds
};

// With merge_lock. The last one is that of the fork under way.
static struct handover lent[LENT_MOST];
static unsigned lent_count;
static bool is_forking;      // lent[lent_count - 1] is not begun
static bool must_wait;       // not all are copies
static uint32_t done_before; // what done_count said before the fork under way
static unsigned char *desk;  // JOIN_PAGES pages, for a child

bool lend_start(void) {
    if (desk == NULL) {
        desk = arena_alloc((size_t)JOIN_PAGES << FIRN_PAGE_SHIFT, FIRN_PAGE);
    }
    return desk != NULL;
}

static void remove_lent(unsigned i) {
    lent_count--;
    memmove(&lent[i], &lent[i + 1], (lent_count - i) * sizeof lent[0]);
    if (lent_count == 0) {
        frame_set_lent(false);
    }
}

bool lend_is_over(void) {
    for (unsigned i = lent_count; i-- > 0;) {
        if (handover_is_over(&lent[i])) {
            remove_lent(i);
        }
    }
    return lent_count == 0;
}

// ---- without a pipe -----------------------------------------------------------------------------

// The first page of the file is no frame. Where there was no descriptor to be had, children that are done
// count themselves there, for a parent that must wait. It does not hear of a death, or that there never was
// a child: so it waits in vain for a while, then.
static _Atomic uint32_t *done_count(void) {
    return (_Atomic uint32_t *)frame_view(FRAME_NONE);
}

static void note_blind(const struct handover *h) {
    if (!handover_can_tell(h)) {
        done_before = atomic_load(done_count());
    }
}

static void wait_for(struct handover *h) {
    bool can_tell = handover_can_tell(h);
    handover_wait(h);
    for (unsigned i = 0; !can_tell && i < BLIND_STEPS; i++) {
        if (atomic_load(done_count()) != done_before) {
            break;
        }
        thread_sleep(BLIND_STEP_NS);
    }
}

// ---- runs ---------------------------------------------------------------------------------------

// Pages from `address` on, at most `most`, that are of one mapping: frames next to each other, of one
// block, mapped in the same way.
static size_t run_length(uintptr_t address, size_t most) {
    uint32_t first = pages_get(address);
    size_t n = 1;
    while (n < most && frame_place(pages_frame(first)) + n < FRAME_BLOCK) {
        uint32_t next = pages_get(address + (n << FIRN_PAGE_SHIFT));
        if (!pages_is_mapped(next) || pages_is_copy(next) != pages_is_copy(first) ||
            pages_frame(next) != pages_frame(first) + n) {
            break;
        }
        n++;
    }
    return n;
}

// Between the frame and the page. Fillers hold nothing.
static void move_page(uintptr_t address, uintptr_t from, uintptr_t to) {
    uint64_t mask[SEARCH_WORDS];
    if (pages_kind(pages_get(address)) == PAGES_MESHED) {
        merge_content_mask(mask, merge_span_of(address), address);
        merge_copy_granules(mask, from, to);
    }
}

static void fill_from_frames(uintptr_t address, size_t pages) {
    for (size_t i = 0; i < pages; i++, address += FIRN_PAGE) {
        move_page(address, frame_view(pages_frame(pages_get(address))), address);
    }
}

// They have memory of their own. The span's other pages may map frames still.
static void note_parted(uintptr_t address, size_t pages) {
    for (size_t i = 0; i < pages; i++, address += FIRN_PAGE) {
        bool is_filler = pages_kind(pages_get(address)) == PAGES_FILLER;
        merge_note_entry(address, pages_entry(is_filler ? PAGES_PURGED : PAGES_PRIVATE, 0));
        merge_count_parted(!is_filler);
    }
}

// ---- before -------------------------------------------------------------------------------------

void lend_before_fork(void) {
    lock_acquire(&firn_merge_lock);
    if (merge_meshed_pages() == 0) {
        return;
    }
    if (!lend_is_over() && lent_count == LENT_MOST) {
        handover_wait(&lent[0]);
        remove_lent(0);
    }
    is_forking = true;
    handover_prepare(&lent[lent_count++]);
    frame_set_lent(true);
}

static void copy_run(uintptr_t address, size_t pages) {
    bool is_lost = false;
    uint32_t frame = pages_frame(pages_get(address));
    if (!frame_map_copy(frame, address, pages, &is_lost)) {
        must_wait = true;
        if (is_lost) { // for want of memory in the kernel, if ever. The frames keep these users: no lock here
            fill_from_frames(address, pages);
            note_parted(address, pages);
        }
        return;
    }
    for (size_t i = 0; i < pages; i++, address += FIRN_PAGE) {
        merge_note_entry(address, pages_get(address) | PAGES_COPY);
    }
}

static void copy_runs(uintptr_t address, size_t pages) {
    while (pages > 0) {
        size_t n = run_length(address, pages);
        if (!pages_is_copy(pages_get(address))) {
            copy_run(address, n);
        }
        address += n << FIRN_PAGE_SHIFT;
        pages -= n;
    }
}

void lend_copy_all(void) {
    must_wait = is_forking && !memfile_can_map_copies();
    if (is_forking && !must_wait) {
        pages_walk_mapped(copy_runs);
    }
    if (must_wait) {
        note_blind(&lent[lent_count - 1]);
    }
}

// ---- after --------------------------------------------------------------------------------------

void lend_after_fork_in_parent(void) {
    if (is_forking && must_wait) {
        wait_for(&lent[lent_count - 1]);
        remove_lent(lent_count - 1);
    } else if (is_forking) {
        handover_begin(&lent[lent_count - 1]);
    }
    is_forking = false;
    lock_release(&firn_merge_lock);
}

static void part_in_child(uintptr_t address, size_t pages) {
    bool is_copy = pages_is_copy(pages_get(address));
    for (size_t i = 0; i < pages && is_copy; i++) {
        uintptr_t at = address + (i << FIRN_PAGE_SHIFT);
        move_page(at, at, (uintptr_t)desk + (i << FIRN_PAGE_SHIFT));
    }
    FIRN_ENSURE(map_renew(&FIRN_ROOT.data, address, pages << FIRN_PAGE_SHIFT));
    for (size_t i = 0; i < pages; i++) {
        uintptr_t at = address + (i << FIRN_PAGE_SHIFT);
        uintptr_t from = is_copy ? (uintptr_t)desk + (i << FIRN_PAGE_SHIFT)
                                 : frame_view(pages_frame(pages_get(at)));
        move_page(at, from, at);
    }
    for (size_t i = 0; i < pages; i++) {
        uintptr_t at = address + (i << FIRN_PAGE_SHIFT);
        pages_set(at, pages_entry(PAGES_PRIVATE, 0));
        span_set_mesh(merge_span_of(at), 0, SPAN_MESHED);
    }
}

static void part_runs_in_child(uintptr_t address, size_t pages) {
    while (pages > 0) {
        size_t n = run_length(address, pages < JOIN_PAGES ? pages : JOIN_PAGES);
        part_in_child(address, n);
        address += n << FIRN_PAGE_SHIFT;
        pages -= n;
    }
}

bool lend_after_fork_in_child(bool is_expected) {
    bool any = merge_meshed_pages() > 0;
    lock_reset(&firn_merge_lock);
    frame_after_fork_in_child();
    if (desk != NULL) {
        pages_walk_mapped(part_runs_in_child);
        if (is_forking && is_expected && !handover_can_tell(&lent[lent_count - 1])) {
            atomic_fetch_add(done_count(), 1);
        }
        frame_forget();
    }
    for (; lent_count > 0; lent_count--) {
        if (is_forking && is_expected) {
            handover_done(&lent[lent_count - 1]);
        } else {
            handover_forget(&lent[lent_count - 1]);
        }
        is_forking = false;
    }
    merge_after_fork_in_child();
    return any;
}

// ---- joining ------------------------------------------------------------------------------------

static void join_run(uintptr_t address, size_t pages) {
    bool is_lost = false;
    uint32_t frame = pages_frame(pages_get(address));
    if (!fault_stage(address, pages << FIRN_PAGE_SHIFT)) {
        return;
    }
    for (size_t i = 0; i < pages; i++) {
        uintptr_t at = address + (i << FIRN_PAGE_SHIFT);
        move_page(at, at, frame_view(frame + (uint32_t)i));
    }
    if (frame_map(frame, address, pages, &is_lost)) {
        fault_publish(address, pages << FIRN_PAGE_SHIFT);
        for (size_t i = 0; i < pages; i++) {
            uintptr_t at = address + (i << FIRN_PAGE_SHIFT);
            merge_note_entry(at, pages_get(at) & ~(uint32_t)PAGES_COPY);
        }
    } else if (is_lost) {
        fill_from_frames(address, pages);
        fault_publish(address, pages << FIRN_PAGE_SHIFT);
        fault_adopt(address, pages << FIRN_PAGE_SHIFT);
        for (size_t i = 0; i < pages; i++) {
            uint32_t entry = pages_get(address + (i << FIRN_PAGE_SHIFT));
            if (pages_kind(entry) == PAGES_MESHED) {
                frame_release(pages_frame(entry));
            }
        }
        note_parted(address, pages);
    } else {
        fault_release(address, pages << FIRN_PAGE_SHIFT);
    }
}

// Which pages are memory of their own, of as many as are looked at in one go.
static struct {
    uintptr_t base; // 0: none yet
    uint64_t written[LOOK_PAGES / 64];
} look;

void lend_look_anew(void) {
    look.base = 0;
}

// Where the kernel does not say, all of them may be.
static bool is_written(uintptr_t address) {
    const size_t bytes = (size_t)LOOK_PAGES << FIRN_PAGE_SHIFT;
    uintptr_t base = address & ~(uintptr_t)(bytes - 1);
    if (look.base != base) {
        look.base = base;
        if (!memfile_find_written(base, bytes, look.written)) {
            memset(look.written, 0xff, sizeof look.written);
        }
    }
    size_t i = (address - base) >> FIRN_PAGE_SHIFT;
    return (look.written[i / 64] >> (i % 64) & 1) != 0;
}

static bool is_to_join(uintptr_t address) {
    return pages_is_copy(pages_get(address)) && is_written(address);
}

// Neighbours that were not written to stay what they are.
static size_t join_length(uintptr_t address, size_t most) {
    size_t length = run_length(address, most < JOIN_PAGES ? most : JOIN_PAGES);
    size_t n = 1;
    while (n < length && is_written(address + (n << FIRN_PAGE_SHIFT))) {
        n++;
    }
    return n;
}

void lend_join(struct span *s) {
    uintptr_t base = span_base(s);
    uintptr_t end = base + span_class(s)->span_mask + 1;
    uint64_t signals = thread_block_signals();
    for (uintptr_t at = base; at < end;) {
        size_t n = 1;
        if (is_to_join(at)) {
            n = join_length(at, (end - at) >> FIRN_PAGE_SHIFT);
            join_run(at, n);
        }
        at += n << FIRN_PAGE_SHIFT;
    }
    thread_allow_signals(signals);
}

// ---- parting ------------------------------------------------------------------------------------

// What reads as the page's content is, be it the frame's or a copy's.
static bool part_run(uintptr_t address, size_t pages) {
    size_t bytes = pages << FIRN_PAGE_SHIFT;
    uintptr_t aside = aside_make(bytes);
    if (aside == 0) {
        return false;
    }
    if (!fault_stage(address, bytes)) {
        aside_drop(aside, bytes);
        return false;
    }
    for (size_t i = 0; i < bytes; i += FIRN_PAGE) {
        move_page(address + i, address + i, aside + i);
    }
    aside_place(aside, address, bytes);
    fault_publish(address, bytes);
    fault_adopt(address, bytes);
    for (size_t i = 0; i < bytes; i += FIRN_PAGE) {
        uint32_t entry = pages_get(address + i);
        if (pages_kind(entry) == PAGES_MESHED) {
            frame_release(pages_frame(entry));
        }
    }
    note_parted(address, pages);
    return true;
}

bool lend_part(struct span *s) {
    uintptr_t base = span_base(s);
    uintptr_t end = base + span_class(s)->span_mask + 1;
    bool is_done = true;
    for (uintptr_t at = base; at < end && is_done;) {
        size_t n = 1;
        if (pages_is_mapped(pages_get(at))) {
            size_t most = (end - at) >> FIRN_PAGE_SHIFT;
            n = run_length(at, most < JOIN_PAGES ? most : JOIN_PAGES);
            is_done = part_run(at, n);
        }
        at += n << FIRN_PAGE_SHIFT;
    }
    if (is_done) {
        span_set_mesh(s, 0, SPAN_MESHED);
    }
    return is_done;
}
