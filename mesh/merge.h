// The merge of a stretch of pages: their live content moves into frames, and their addresses map those. What
// is said of a page holds for each of them.
//
// Locks, in this order. `merge_lock` is the mesher's: held for one page or one span at a time, and by
// fork. The span's lock is its owner's (slab/owner.h) or, without an owner, its class's: under it
// nobody takes slots of the span into use, nobody puts them back, and nobody parts the span.
//
// What a page holds ("occupied") is what is not free: live slots, slots in hand, slots in quarantine,
// slots that another thread freed and nobody has taken back. So malloc and free on their fast paths,
// which only move slots between live and in hand, change nothing that a merge depends on, and need no
// lock. With canaries there is one exception: a slot that is handed out for the first time since its page was
// fresh may be given the canary in front of it, too (hardening/slot.c). So the granule in front of a
// slot in hand counts; and where a live slot has no canary yet, its page is left alone, which is looked at
// again when nobody can write any more. What stands in front of a live slot otherwise may become a
// partner's: a free looks at it only where the slot there is live, too.
//
//   mesher M, span A onto frame F             a thread T that uses A
//   1 lock A's span; occupied(A) and          reads and writes its slots as it likes
//     used(F) have no granule in common
//   2 stage the page (os/fault), with those   from here a write waits; reads go on
//     of a few more stretches nearby
//   3 copy A's occupied granules into F       T's earlier writes are in the copy: staging ends them.
//                                             F's other users write their own granules meanwhile:
//                                             not one of them is copied to
//   4 map F in A's place, in one step         a read sees the old page, or F: the same bytes. Where A is taken
//     (exchange.h)                            away before (fault_empty), a read waits, too
//   5 publish                                 a waiting write goes on, into F
//   6 unlock; used(F) has had occupied(A) since it was planned
//
// Interleavings looked at:
//   - T frees a slot of A between any two steps, A not T's own: the tag it writes waits or goes into
//     F, where the slot's granules are A's alone. Its bit in `remote` changes nothing here: the slot
//     stays occupied until somebody takes it back under A's lock. Two threads that free one slot at
//     once are a double free: the second one's tag may land in a partner's slot, and the process ends
//     at the next central_take_remote.
//   - T frees its own slot: it writes the slot (wipe, canary), which waits; then it puts it in hand.
//   - A's last slot is put back: it is then empty, and central parts it (merge_part) before anybody can
//     take from it. It cannot be put back between 1 and 6: that needs the lock.
//   - A thread exits: it gives its spans to central under its owner's lock, so before 1 or after 6.
//   - Step 4 fails: release; A is as it was, F has bytes at granules nobody uses.
//   - fork: by merge_lock, before 1 or after 6.
//   - a signal handler that runs on M between 2 and 5 and writes to A would wait for M: M blocks
//     signals.
#ifndef FIRN_MESH_MERGE_H
#define FIRN_MESH_MERGE_H

#include "mesh/search.h"
#include "src/os/lock.h"
#include "src/os/purge.h"
#include "src/span/span.h"

#include <stddef.h>
#include <stdint.h>

enum {
    MERGE_DENSE = 160, // granules of a page: with more, it is not worth a mapping of its own
    // The same while the program is at work: what else is used of the page may be free before long, or used
    // again, and frames that were filled by two pages do not fill up again when these empty. Room for one
    // slot of 1,280 bytes, and what stands in front of others.
    MERGE_DENSE_NOW = 84
};

extern struct lock firn_merge_lock;

// Looks how many mappings the process has, at most once a second: the program's, and those that were merged pages
// once, which after a fork never become one with their neighbours again. One thread at a time; before merge_start.
void merge_count_others(void);
// Once, before the first merge; with merge_lock. False: this kernel, or these limits, do not allow it.
bool merge_start(void) FIRN_CHECKED;
// Nothing is merged from here on; what is, stays.
void merge_end(void);
// Whether it is possible at all, after the first merge_start.
bool merge_is_possible(void);

// A span and the lock that was taken for it.
struct merge_hold {
    struct span *span;
    uint32_t owner; // 0: the class's lock
};

// Locks the span that contains `address`, if it is in use. With merge_lock.
bool merge_acquire(struct span *s, struct merge_hold *h) FIRN_CHECKED;
// Goes on to another span, if that is in use and its lock is the one that is held.
bool merge_move_on(struct merge_hold *h, struct span *s) FIRN_CHECKED;
void merge_release(struct merge_hold *h);

// The occupied granules of the span's page that begins at `address`, and those in front of slots in hand,
// where a canary may be written. With the span's lock.
void merge_page_mask(uint64_t mask[SEARCH_WORDS], const struct span *s, uintptr_t address);
// The occupied ones alone: all that a page that maps a frame may be copied by. In front of a slot that came into
// somebody's hand since lies what is a partner's; nothing is written there, as such a slot has its canary.
void merge_content_mask(uint64_t mask[SEARCH_WORDS], const struct span *s, uintptr_t address);
// A live slot without a canary is just being handed out, and the canary in front of it may be written
// next. In such a moment what lies in front of the page's slots, and of the next page's first, is not
// known: false. To be asked after the mask was made. With the span's lock.
bool merge_is_settled(const struct span *s, uintptr_t address) FIRN_CHECKED;

// Copies the granules of a page.
void merge_copy_granules(const uint64_t mask[SEARCH_WORDS], uintptr_t from, uintptr_t to);
// What the page is from now on; keeps count. With the span's lock, or when nobody else can have it.
void merge_note_entry(uintptr_t address, uint32_t entry);
// The span that contains the address, which lies in the small regions.
struct span *merge_span_of(uintptr_t address);

enum merge_result {
    MERGE_DONE,
    MERGE_CHANGED, // the page is no longer what the search saw, or does not fit
    MERGE_REFUSED, // it could not be staged or mapped
    MERGE_BUDGET   // no VMA left
};

// Neighbouring pages of one span that go to neighbouring frames of one block, as planned (plan.h).
struct merge_run {
    uintptr_t address;
    uint32_t frame; // of the first
    unsigned pages; // at most PLAN_STRETCH
    const struct search_page *planned;
    unsigned done; // of its first pages are merged
    enum merge_result result;
};

enum {
    // What is staged together at most, which a thread that touches it may have to wait for. Below 34 pages the
    // kernel makes processors forget one by one.
    MERGE_RUNS = 32,
    MERGE_RUNS_PAGES = 64
};

// Merges the first `done` pages of each run, all or none of those that still are as planned. The plan's
// holds of these are theirs now; the others' are still the caller's. The runs, at most MERGE_RUNS, are in the
// order of their addresses, in one span or in spans next to each other, and between them no page maps a frame.
// Returns how many of them were dealt with, at least one: the next one's span has another lock. With merge_lock
// and signals blocked. `is_forced`: even if slots of the span were taken into use since the last look. What is
// merged then is likely to stay as it is: it is mapped privately, where it can be told afterwards which pages were
// written to all the same, and a fork finds nothing to do (lend.h).
unsigned merge_runs(struct merge_run runs[], unsigned count, bool is_forced);

// Lists the span's pages without an occupied slot, for their memory to be given back before the span's lock
// is released. Returns how many pages, of as many ranges at most as half the span's pages. With the span's
// lock.
unsigned merge_purge_empty(struct span *s, struct purge_list *l);

struct merge_figures {
    size_t pages;      // that map a frame now
    size_t pages_most; // at any time
    size_t vmas;       // what that costs, in mappings
    size_t vma_budget;
    size_t purged; // pages without a live slot given back, in all
    size_t merged; // pages merged, in all
    size_t refused;
    size_t over_budget;
    uint64_t longest_ns; // the longest time pages were staged
    uint64_t p99_ns;     // what 99 of 100 did not exceed
};
void merge_figures(struct merge_figures *out);

// Percent of the mappings that may be spent that are.
unsigned merge_spent(void);

// See mesh_set_budget.
void merge_set_budget(size_t vmas);

// Pages that map a frame now; and of them (fillers included) those that do so by a copy (lend.h).
size_t merge_meshed_pages(void);
size_t merge_copied_pages(void);
// So many pages more map one, or do not after all; so many fewer do.
void merge_count_meshed(size_t pages);
void merge_count_unmeshed(size_t pages);
void merge_count_parted(size_t pages);
// Some pages of the span map no frame any more: perhaps none does.
void merge_note_unmeshed(struct span *s);
// In a forked child, which has parted all its pages: none is meshed.
void merge_after_fork_in_child(void);

#endif
