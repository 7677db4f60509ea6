// P-SWEEP.
// What may be said of a slot depends on who can change it meanwhile. A canary never holds anything but
// the right word or 0 (canary.h). What is left over in a slot is looked at twice, as slack.h says. Free
// slots and tags only change under the lock of the span's class or owner. Slots in hand are the
// business of their thread: those of this one are looked at when it is in no malloc or free.
#include "src/heap/sweep.h"

#include "hardening/link.h"
#include "hardening/slack.h"
#include "hardening/wipe.h"
#include "src/base/config.h"
#include "src/base/fatal.h"
#include "src/base/text.h"
#include "src/cache/cache.h"
#include "src/os/clock.h"
#include "src/os/map.h"
#include "src/os/sys.h"
#include "src/os/thread.h"
#include "src/slab/central.h"
#include "src/slab/owner.h"

#include <string.h>

enum {
    SWEEP_SPANS = 64, // in one step
    SWEEP_PAGES = 32, // of the longest span
    SWEEP_LOOKS = 3   // at what may be changing
};
#define SWEEP_STEP_NS UINT64_C(300000)

struct sweep {
    const char *api;
    uint64_t until_ns;
    size_t spans;   // to be looked at, at most
    bool is_last;   // the process ends
    bool has_hands; // slots in hand of this thread may be looked at
};

// The span being looked at.
struct look {
    const struct sweep *sweep;
    const struct span *span;
    uintptr_t base;
    size_t slot_bytes;
    bool is_locked;
    bool is_mine;
    unsigned char residence[SWEEP_PAGES];
};

FIRN_NORETURN FIRN_COLD static void report(const struct look *l, enum fatal_id id,
                                           uintptr_t address, const char *found) {
    struct fatal_info info = {
        .api = l->sweep->api,
        .address = address,
        .class_bytes = l->slot_bytes,
        .size = FATAL_SIZE_UNKNOWN,
        .found = found,
    };
    fatal(id, &info);
}

FIRN_NORETURN FIRN_COLD static void report_write(const struct look *l, uintptr_t address,
                                                 size_t at) {
    char found[64];
    struct text t = text_on(found, sizeof found);
    text_str(&t, "byte ");
    text_dec(&t, at);
    text_str(&t, " of a freed block was written to");
    report(l, FATAL_WRITE_AFTER_FREE, address, found);
}

static bool is_resident(const struct look *l, uintptr_t from, size_t bytes) {
    size_t first = (from - l->base) / FIRN_PAGE;
    size_t last = (from + bytes - 1 - l->base) / FIRN_PAGE;
    for (size_t i = first; i <= last; i++) {
        if ((l->residence[i] & 1) == 0) {
            return false;
        }
    }
    return true;
}

static bool is_live(const struct span *s, unsigned slot) {
    return span_is_live(s, slot) && !span_is_remote(s, slot);
}

// P-CANARY. Of a slot that is not live it says that somebody wrote there, or before the block after it.
static void look_at_canary(const struct look *l, unsigned slot, uintptr_t address) {
    const struct span *s = l->span;
    size_t bytes = l->slot_bytes;
    bool is_block = is_live(s, slot);
    uint64_t word = canary_load(address, bytes);
    if ((!is_block && span_is_meshed(s)) || canary_is_unset(address, word) ||
        canary_word_change(address, word) == 0) {
        return;
    }
    if (is_block) {
        report(l, FATAL_OVERFLOW, address, "canary after the block was overwritten");
    }
    if (slot + 1 < span_class(s)->slots && is_live(s, slot + 1)) {
        report(l, FATAL_UNDERFLOW, address + bytes, "canary before the block was overwritten");
    }
    report_write(l, address, slack_most(bytes));
}

// P-SLACK. Its thread may be freeing or resizing it: then its canary soon says so.
static void look_at_slack(const struct look *l, unsigned slot, uintptr_t address) {
    size_t size = slack_size(address, l->slot_bytes);
    for (unsigned i = 0; i < SWEEP_LOOKS; i++) {
        bool is_whole = slack_is_whole(address, l->slot_bytes);
        // acquire: what the canary says now it said when the bytes above were read.
        atomic_thread_fence(memory_order_acquire);
        if (is_whole || !is_live(l->span, slot) || slack_size(address, l->slot_bytes) != size) {
            return;
        }
        sys_yield();
    }
    report(l, FATAL_OVERFLOW, address, SLACK_FOUND);
}

// P-VERIFY, page by page.
static void look_at_zeros(const struct look *l, uintptr_t address) {
    uintptr_t end = address + slack_most(l->slot_bytes);
    for (uintptr_t at = address; at < end;) {
        uintptr_t next = (at | (FIRN_PAGE - 1)) + 1;
        next = next < end ? next : end;
        if (is_resident(l, at, next - at)) {
            // NOLINTNEXTLINE(performance-no-int-to-ptr)
            size_t changed = wipe_first_changed((const void *)at, next - at);
            if (changed < next - at) {
                report_write(l, address, at - address + changed);
            }
        }
        at = next;
    }
}

// P-LINK
static void look_at_tag(const struct look *l, unsigned slot, uintptr_t address) {
    if (link_decode(link_load(address), address, l->span->secret) != (int)(slot & 0xff)) {
        report(l, FATAL_CORRUPT_LINK, address, "tag of a freed block was overwritten");
    }
}

static void look_at_slot(const struct look *l, unsigned slot) {
    const struct span *s = l->span;
    uintptr_t address = l->base + slot * l->slot_bytes;
    if (FIRN_CANARY && is_resident(l, address + l->slot_bytes - CANARY_BYTES, CANARY_BYTES)) {
        look_at_canary(l, slot, address);
    }
    if (is_live(s, slot)) {
        if (FIRN_SLACK && is_resident(l, address, l->slot_bytes)) {
            look_at_slack(l, slot, address);
        }
    } else if (!l->is_locked || span_is_meshed(s)) {
        return;
    } else if (span_is_live(s, slot)) { // and another thread freed it
        if (FIRN_SAFE_LINK && is_resident(l, address, sizeof(uint64_t))) {
            look_at_tag(l, slot, address);
        }
    } else if (FIRN_VERIFY) {
        uint64_t bit = span_bit(slot);
        bool is_free = (s->free[slot >> 6] & bit) != 0;
        bool is_virgin = (s->virgin[slot >> 6] & bit) != 0;
        if (is_free ? !is_virgin : l->is_mine && l->sweep->has_hands) {
            look_at_zeros(l, address);
        }
    }
}

// The lock under which a span's free slots stay as they are; NULL if that of another thread.
static struct lock *lock_of(const struct span *s, const struct cache *owner) {
    return owner == NULL         ? &firn_central[root_cell_class(s->cell)].lock
           : owner == firn_cache ? owner_lock_of(owner->number)
                                 : NULL;
}

static void look_at_span(const struct sweep *sweep, const struct span *s) {
    unsigned state = span_state(s);
    if ((state != SPAN_ACTIVE && state != SPAN_DIRTY) || s->is_torn) {
        return;
    }
    const struct class_info *c = span_class(s);
    const struct cache *owner = atomic_load_explicit(&s->owner, memory_order_relaxed);
    struct lock *lock = lock_of(s, owner);
    struct look l = {.sweep = sweep, .span = s, .base = span_base(s), .slot_bytes = c->bytes};
    l.is_locked = lock != NULL && lock_try(lock);
    bool is_same = span_state(s) == state &&
                   atomic_load_explicit(&s->owner, memory_order_relaxed) == owner &&
                   (owner != NULL ||
                    !atomic_load_explicit(&firn_central[root_cell_class(s->cell)].must_rebuild,
                                          memory_order_relaxed));
    size_t span_bytes = (size_t)c->span_mask + 1;
    l.is_mine = owner != NULL && owner == firn_cache;
    // In a sandbox nobody says what is resident: all is looked at then, which at exit does no harm.
    bool is_known = map_find_resident(l.base, span_bytes, l.residence);
    if (!is_known) {
        memset(l.residence, 1, sizeof l.residence);
    }
    if (is_same && (is_known || sweep->is_last)) {
        for (unsigned slot = 0; slot < c->slots; slot++) {
            look_at_slot(&l, slot);
        }
    }
    if (l.is_locked) {
        lock_release(lock);
    }
}

static bool is_over(const struct sweep *sweep) {
    return sweep->spans == 0 || clock_ns() >= sweep->until_ns;
}

// The spans of a cell from `index` on. Returns the first not looked at; SIZE_MAX when all were.
static size_t look_at_cell(struct sweep *sweep, unsigned cell, size_t index) {
    uintptr_t limit = atomic_load_explicit(&firn_cell_limits[cell], memory_order_acquire);
    uintptr_t bytes = limit == 0 ? 0 : limit - root_cell_base(cell);
    size_t spans = bytes >> FIRN_ROOT.classes[root_cell_class(cell)].span_shift;
    for (; index < spans && !is_over(sweep); index++) {
        look_at_span(sweep, span_by_index(cell, index));
        sweep->spans--;
    }
    return index < spans ? index : SIZE_MAX;
}

void sweep_at_exit(uint32_t ms) {
    if (ms == 0 || FIRN_CANARY + FIRN_VERIFY + FIRN_SAFE_LINK == 0 || lock_is_any_held()) {
        return;
    }
    // A handler that calls exit may have interrupted a free, whose slot is not wiped yet: in one, some
    // signal is blocked. (Not where it was installed with SA_NODEFER and nothing else in its mask.)
    uint64_t blocked = thread_block_signals();
    struct sweep sweep = {"exit", clock_ns() + ms * UINT64_C(1000000), SIZE_MAX, true,
                          blocked == 0};
    unsigned cells = root_cell(SIZE_CLASSES, 0);
    for (unsigned cell = 0; cell < cells; cell++) {
        (void)look_at_cell(&sweep, cell, 0);
    }
    thread_allow_signals(blocked);
}

void sweep_some(void) {
    static _Atomic uint64_t place; // cell, and index in it; relaxed: nothing else goes with it
    uint64_t at = atomic_load_explicit(&place, memory_order_relaxed);
    struct sweep sweep = {"sweep", clock_ns() + SWEEP_STEP_NS, SWEEP_SPANS, false, false};
    unsigned cells = root_cell(SIZE_CLASSES, 0);
    unsigned cell = (unsigned)(at >> 32) % cells;
    size_t index = (uint32_t)at;
    for (unsigned i = 0; i < cells && sweep.spans > 0; i++) {
        index = look_at_cell(&sweep, cell, index);
        if (index != SIZE_MAX) {
            break;
        }
        cell = (cell + 1) % cells;
        index = 0;
    }
    atomic_store_explicit(&place, (uint64_t)cell << 32 | index, memory_order_relaxed);
}
