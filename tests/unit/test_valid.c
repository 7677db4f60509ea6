// The validator finds each kind of damage, and names the relation that no longer holds. Every case
// breaks one thing in a heap of its own.
#include "src/slab/valid.h"

#include "src/cache/inspect.h"
#include "src/heap/heap.h"
#include "tests/support/small_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { SIZE = 64, BLOCKS = 600 };

static const uintptr_t site = 0x409000;
static void *block[BLOCKS];
static struct span *owned;   // has live, free and held slots
static struct span *central; // ownerless, partly used
static struct span *dirty;
static unsigned wide_cell; // has spans that were never used

static unsigned live_slot(const struct span *s) {
    unsigned slot = 0;
    while (!span_is_live(s, slot)) {
        slot++;
    }
    return slot;
}

static unsigned free_slot(const struct span *s) {
    unsigned slot = 0;
    while ((s->free[slot / 64] & span_bit(slot)) == 0) {
        slot++;
    }
    return slot;
}

// The blocks of a thread that exited, of this one, and a span that became empty.
static void set_up(void) {
    struct cache *mine = small_attach(), *gone = small_attach();
    NEED(mine != NULL && gone != NULL);
    void *last = heap_alloc(SIZE, site), *alone = heap_alloc(4 * SIZE, site);
    NEED(last != NULL && alone != NULL);
    cache_detach(gone);
    small_act_as(mine);
    heap_free(alone, site); // by another thread: to central
    dirty = small_span(alone);
    central = small_span(last);
    NEED(span_state(dirty) == SPAN_DIRTY);
    NEED(span_state(central) == SPAN_ACTIVE && atomic_load(&central->owner) == NULL);
    for (unsigned i = 0; i < BLOCKS; i++) {
        block[i] = heap_alloc(2 * SIZE, site);
        NEED(block[i] != NULL);
    }
    owned = small_span(block[0]);
    NEED(heap_alloc(16, site) != NULL);
    wide_cell = small_cell(16, site);
    for (unsigned i = 0; i < BLOCKS; i += 2) {
        heap_free(block[i], site);
    }
    cache_flush_all(mine);
    block[0] = heap_alloc(2 * SIZE, site);
    owned = small_span(block[0]);
    NEED(atomic_load(&owned->owner) == mine);
}

static struct bin *bin_of(const struct span *s) {
    return firn_cache->bins[s->cell];
}

static void nothing(void) {
}

static void live_and_free(void) {
    unsigned slot = live_slot(central);
    central->free[slot / 64] |= span_bit(slot);
}

static void neither_live_nor_free(void) {
    span_clear_live(central, live_slot(central));
}

static void a_slot_too_many(void) {
    central->free[3] = ~(uint64_t)0; // unless it has them all
    span_set_live(central, 255);
}

static void wrong_count(void) {
    central->free_count++;
}

static void virgin_but_not_free(void) {
    unsigned slot = live_slot(central);
    central->virgin[slot / 64] |= span_bit(slot);
}

static void freed_remotely_but_not_live(void) {
    unsigned slot = free_slot(central);
    atomic_fetch_or(&central->remote[slot / 64], span_bit(slot));
}

static void off_its_list(void) {
    list_remove(&central->links);
}

static void empty_on_a_used_list(void) {
    unsigned slot = live_slot(central);
    span_clear_live(central, slot);
    span_put_free(central, slot, false);
}

static void wrong_bucket(void) {
    central->bucket ^= 1;
}

static void dirty_but_said_clean(void) {
    atomic_store(&dirty->state, SPAN_CLEAN);
}

static void live_in_a_dirty_span(void) {
    span_set_live(dirty, 3);
    dirty->free[0] &= ~span_bit(3);
    dirty->virgin[0] &= ~span_bit(3);
    dirty->free_count--;
}

static void a_dirty_span_too_few(void) {
    firn_central[root_cell_class(dirty->cell)].dirty_spans--;
}

static void wrong_cell(void) {
    central->cell ^= 1u << FIRN_PARTITION_BITS;
}

static void owner_without_number(void) {
    atomic_store(&central->owner_word, 77);
}

static void stolen_from_its_owner(void) {
    atomic_store(&owned->owner, NULL);
    atomic_store(&owned->owner_word, 0);
}

static void link_cut(void) {
    central->links.next = &central->links;
}

static void held_and_live(void) {
    // The vector's next slot, handed out without being taken.
    struct bin *b = bin_of(owned);
    uint64_t entry = cache_peek(firn_cache, firn_cache->cells[owned->cell].top);
    NEED(entry != 0 && b->entries[0] != 0);
    span_set_live(small_span((void *)(entry & ENTRY_ADDRESS)), (unsigned)(entry >> 56));
}

static void held_twice(void) {
    struct bin *b = bin_of(owned);
    NEED(cache_count_entries(b) >= 2);
    b->entries[1] = b->entries[0];
}

static void wrong_entry(void) {
    bin_of(owned)->entries[0] += 16;
}

static void entry_of_nowhere(void) {
    bin_of(owned)->entries[0] = 0x10;
}

static void no_end_mark(void) {
    bin_of(owned)->entries[span_class(owned)->capacity] = 0;
}

static void no_start_mark(void) {
    bin_of(owned)->entries[-1] = 0x4141;
}

static void off_the_owners_list(void) {
    list_remove(&owned->links);
}

static void on_the_wrong_owners_list(void) {
    struct bin *b = bin_of(owned);
    list_remove(&owned->links);
    list_push_front(&b->lists[(owned->bucket + 1) % SPAN_BUCKETS], &owned->links);
}

static void queued_but_not_pending(void) {
    atomic_store(&firn_cache->pending, owned);
}

static void queued_in_a_circle(void) {
    (void)!span_mark_pending(owned);
    atomic_store(&owned->pending_next, owned);
    atomic_store(&firn_cache->pending, owned);
}

static void unused_but_written(void) {
    unsigned cell = wide_cell;
    for (uintptr_t i = 0; i < firn_regions[cell].committed; i++) {
        struct span *s = span_by_index(cell, i);
        if (span_state(s) == SPAN_UNUSED) {
            s->virgin[1] = 1;
            return;
        }
    }
}

static void used_but_in_the_window(void) {
    unsigned cell = wide_cell;
    for (uintptr_t i = 0; i < firn_regions[cell].committed; i++) {
        struct span *s = span_by_index(cell, i);
        if (span_state(s) == SPAN_UNUSED) {
            span_set_up(s, cell, 1);
            span_set_owner(s, firn_cache, firn_cache->number);
            for (unsigned w = 0; w < SPAN_WORDS; w++) { // all live: nothing wrong with the slots
                atomic_store(&s->live[w], s->free[w]);
                s->free[w] = s->virgin[w] = 0;
            }
            s->free_count = 0;
            return;
        }
    }
}

static void more_committed(void) {
    firn_central[root_cell_class(central->cell)].committed_bytes++;
}

struct damage {
    const char *name;
    void (*inflict)(void);
    const char *relation; // part of it
    int least_level;
};

static const struct damage damages[] = {
    {"live_and_free", live_and_free, "(live & is_free) == 0", 0},
    {"neither_live_nor_free", neither_live_nor_free, "== slots_there", 0},
    {"a_slot_too_many", a_slot_too_many, "live", 0},
    {"wrong_count", wrong_count, "s->free_count == counted", 0},
    {"virgin_but_not_free", virgin_but_not_free, "s->virgin[w] & ~is_free", 0},
    {"freed_remotely_but_not_live", freed_remotely_but_not_live, "remote & ~live", 1},
    {"off_its_list", off_its_list, "found == expected", 0},
    {"empty_on_a_used_list", empty_on_a_used_list, "!is_empty", 0},
    {"wrong_bucket", wrong_bucket, "bucket == ", 0},
    {"dirty_but_said_clean", dirty_but_said_clean, "found", 0},
    {"live_in_a_dirty_span", live_in_a_dirty_span, "is_empty", 0},
    {"a_dirty_span_too_few", a_dirty_span_too_few, "c->dirty_spans == dirty", 0},
    {"wrong_cell", wrong_cell, "s->cell == walk->cell", 0},
    {"owner_without_number", owner_without_number, "number == 0", 0},
    {"stolen_from_its_owner", stolen_from_its_owner, "", 0},
    {"link_cut", link_cut, "at->prev->next == at && at->next->prev == at", 0},
    {"held_and_live", held_and_live, "(live & in_hand) == 0", 0},
    {"held_twice", held_twice, "", 0},
    {"wrong_entry", wrong_entry, "", 0},
    {"entry_of_nowhere", entry_of_nowhere, "", 0},
    {"no_end_mark", no_end_mark, "b->entries[capacity] == VECTOR_END", 0},
    {"no_start_mark", no_start_mark, "b->entries[-1] == 0", 0},
    {"off_the_owners_list", off_the_owners_list, "are_owned_spans_listed", 0},
    {"on_the_wrong_owners_list", on_the_wrong_owners_list, "s->bucket == i", 0},
    {"queued_but_not_pending", queued_but_not_pending, "== firn_span_mark", 0},
    {"queued_in_a_circle", queued_in_a_circle, "hare != s", 0},
    {"unused_but_written", unused_but_written, "is_zero_if_unused", 0},
    {"used_but_in_the_window", used_but_in_the_window, "", 0},
    {"more_committed", more_committed, "committed", 0},
};

static void inflict(void *context) {
    const struct damage *d = context;
    struct valid_fault fault = {NULL, NULL};
    set_up();
    NEED(inspect_all(NULL, &fault) && fault.relation == NULL);
    NEED(inspect_all(firn_cache, &fault));
    d->inflict();
    bool is_valid = inspect_all(NULL, &fault);
    if (d->relation == NULL) {
        NEED(is_valid);
        return;
    }
    NEED(!is_valid && fault.relation != NULL);
    if (strstr(fault.relation, d->relation) == NULL) {
        small_failed(fault.relation, d->name, 0);
    }
    inspect_ensure(NULL);
}

static void every_kind_of_damage_is_named(void **state) {
    (void)state;
    for (unsigned i = 0; i < sizeof damages / sizeof *damages; i++) {
        struct damage d = damages[i];
        if (FIRN_LEVEL >= d.least_level &&
            !small_run_aborts(inflict, &d, "firn: internal-error: ")) {
            fail_msg("%s", d.name);
        }
    }
}

static void what_is_whole_is_valid(void **state) {
    (void)state;
    struct damage none = {"nothing", nothing, NULL, 0};
    assert_true(small_run(inflict, &none));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_whole_is_valid),
        cmocka_unit_test(every_kind_of_damage_is_named),
    };
    return cmocka_run_group_tests(tests, small_start, NULL);
}
