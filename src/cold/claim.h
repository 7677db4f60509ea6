// Which chunks are under watch: those whose memory is in use and has stopped changing.
//
// A chunk is watched from the moment in which it is claimed (chunk.is_claimed) and registered with the kernel
// until it is given up. While it is claimed, no page of it is merged, and no mapping in it is moved or
// exchanged (page_state_is_kept). All of this is the freezing thread's.
#ifndef FIRN_COLD_CLAIM_H
#define FIRN_COLD_CLAIM_H

#include "src/cold/table.h"

// Whether the page belongs to something that the program has: a span with slots in use, or a live large
// object. It may be freed meanwhile: see page_state_release.
bool claim_is_in_use(uintptr_t page);

// A number that changes, but for one time in 65,536, with which slots on the page are in use; of large objects, 0.
uint16_t claim_fingerprint(uintptr_t page);

// Calls `look` for each chunk that is, or may be, in use: its base, and where its memory ends.
typedef void claim_look_fn(uintptr_t base, uintptr_t end);
void claim_each(claim_look_fn *look);
// Where the chunk's memory ends: its base when there is none.
uintptr_t claim_end(const struct chunk *c);

// Watches the chunk from now on, whether it changes or not. False: not now.
bool claim_take(struct chunk *c, uintptr_t end) FIRN_CHECKED;
// At each look: whether it is watched now. Begins where nothing changed since the last look; ends where so
// much fresh memory is touched that the watch costs more than it brings, or where nothing is left.
bool claim_keep(struct chunk *c, uintptr_t end) FIRN_CHECKED;

// Calls `take` for each 64 pages of which the program wished some away, by their number in the chunk, which is watched.
typedef void claim_wish_fn(struct chunk *c, unsigned word);
void claim_each_wished(claim_wish_fn *take);

uint64_t claim_count(void); // chunks that are watched

#endif
