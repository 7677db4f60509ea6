// The mmap family. The only file that maps, protects or discards memory.
//
// A *reservation* is a range of addresses Firn owns. Normally it is mapped PROT_NONE at start.
// Where address space is rationed (RLIMIT_AS, or the kernel refuses) the range is only chosen, not
// mapped (`sparse`): commits then map pieces with MAP_FIXED_NOREPLACE, so that what is unused
// costs nothing, and a piece that somebody else took is refused, never overwritten.
//
// All addresses and sizes are multiples of FIRN_PAGE unless said otherwise. Functions returning
// bool are true on success and leave errno as the kernel set it on failure. Any errno that can only
// mean a bug of ours (EINVAL on our own range, say) is fatal there and then.
#ifndef FIRN_OS_MAP_H
#define FIRN_OS_MAP_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct reservation {
    uintptr_t base;
    size_t bytes;
    bool is_sparse;
};

// Picks and (unless sparse) maps `bytes` at a random address aligned to `align` (a power of two),
// PROT_NONE, not dumped, without huge pages. Tries the high-entropy window 32..80 TiB first, then
// wherever the kernel puts it. `limit_bits` caps addresses at 2^limit_bits (47 normally).
// False when nothing can be had; the caller retries with less or with `sparse`. No reservation overlaps
// a sparse one.
bool map_reserve(struct reservation *r, size_t bytes, size_t align, unsigned limit_bits,
                 bool sparse) FIRN_CHECKED;

// Gives up a reservation nothing of which was committed. Preserves errno.
void map_unreserve(const struct reservation *r);

// Makes a mapped reservation a sparse one, and gives up [from, until) of it (nothing, when empty), for
// which nothing must have been committed. All that is not committed has to be given up: a piece that
// stays is in the way for good. Preserve errno.
void map_begin_sparse(struct reservation *r);
void map_give_up(const struct reservation *r, uintptr_t from, uintptr_t until);

// Makes [address, +bytes) readable and writable, zero-filled. False on ENOMEM (also overcommit,
// RLIMIT_DATA, VMA limit) or, in a sparse reservation, when the range is taken (EEXIST).
// Idempotent for ranges already committed when the reservation is not sparse.
bool map_commit(const struct reservation *r, uintptr_t address, size_t bytes) FIRN_CHECKED;

// Gives memory and commit charge back; the range must be committed again before use.
void map_decommit(const struct reservation *r, uintptr_t address, size_t bytes);

// Drops the physical pages; the range stays accessible and reads as zeros. Preserves errno.
void map_purge(uintptr_t address, size_t bytes);

// The pages are about to be written to: has the kernel put memory there, by one call where it can. What was not to be
// had, for whatever reason, comes with the first touch, or that fails as it would have. Content is unchanged.
// Preserves errno.
void map_populate(uintptr_t address, size_t bytes);

// As if each page were read, which leaves the page of zeros where nothing was; no memory is taken. False: not
// everywhere, as something is not accessible, or the kernel cannot (before Linux 5.14). Preserves errno.
bool map_populate_zero(uintptr_t address, size_t bytes);
// The same, where a page may be missing that a userfaultfd keeps from system calls. True if one is.
bool map_is_missing(uintptr_t address, size_t bytes);

// Makes pages inaccessible without a VMA split where the kernel can (guard markers), else by
// mprotect within the VMA budget. False when neither is possible: the caller does without.
// Guarded pages lose their content.
bool map_guard(uintptr_t address, size_t bytes) FIRN_CHECKED;
// By guard markers or not at all; what is guarded already may lie in the range.
bool map_mark_guards(uintptr_t address, size_t bytes) FIRN_CHECKED;
// Nothing is there then.
bool map_unmark_guards(uintptr_t address, size_t bytes) FIRN_CHECKED;
// Undoes map_guard over a range that may contain guards; pages read as zeros afterwards if they
// were guarded. False on ENOMEM (mprotect path).
bool map_unguard(uintptr_t address, size_t bytes) FIRN_CHECKED;

// Moves the pages of [from, +bytes) to [to, +bytes) without copying (mremap DONTUNMAP); both ranges
// are committed. Afterwards `from` reads as zeros. False when the kernel cannot: caller copies.
bool map_move(uintptr_t from, uintptr_t to, size_t bytes) FIRN_CHECKED;
// Restores one plain mapping over a range that map_move produced, so that VMAs merge again.
// Content is lost. False on ENOMEM: the range is then still accessible, content undefined.
bool map_renew(const struct reservation *r, uintptr_t address, size_t bytes) FIRN_CHECKED;

void map_make_readonly(uintptr_t address, size_t bytes);
void map_make_writable(uintptr_t address, size_t bytes);
// The same for callers that rely on it: false when it was refused. Giving the right back needs no
// memory, so that it is refused only for what is not mapped.
bool map_deny_writes(uintptr_t address, size_t bytes) FIRN_CHECKED;
bool map_allow_writes(uintptr_t address, size_t bytes);
// Nobody can access the range; its content stays, and map_allow_writes opens it again. False: it is as it was.
bool map_deny_all(uintptr_t address, size_t bytes) FIRN_CHECKED;
// Zero-filled in every forked child (MADV_WIPEONFORK). False when the kernel lacks it.
bool map_wipe_on_fork(uintptr_t address, size_t bytes) FIRN_CHECKED;
bool map_exclude_from_dump(uintptr_t address, size_t bytes);

// Sets bit 0 of residence[i] if the range's i-th page is in memory; 0: never touched, given back, or in
// swap. False when the kernel does not say. Preserves errno.
bool map_find_resident(uintptr_t address, size_t bytes, unsigned char *residence) FIRN_CHECKED;

// VMAs spent on mprotect guards now, and the budget (a quarter of the live vm.max_map_count).
size_t map_guard_vmas(void);
size_t map_guard_vma_budget(void);

#endif
