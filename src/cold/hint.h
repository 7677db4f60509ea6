// What the program says of its memory: that it will not need it, that it will, that it is never to be taken
// away. And how it calls the freezing thread.
//
// For threads of the program: they hold no lock here, and wait (hint_thaw_all, and a touch of a page that is
// away) for nobody who waits for them. A range is clipped to the heap's main
// reservation; the rest of it is memory that is never frozen.
#ifndef FIRN_COLD_HINT_H
#define FIRN_COLD_HINT_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The pages that lie wholly in the range: to be taken away with the next round.
void hint_cold(uintptr_t address, size_t bytes);
// All pages of the range, which is in live blocks of the caller: back now, and as if just written.
void hint_hot(uintptr_t address, size_t bytes);
// All pages of the range, likewise: back now (if any may be away), and not away again before they are released. False:
// no memory to note it, for some of them.
bool hint_exclude(uintptr_t address, size_t bytes, bool may_be_away) FIRN_CHECKED;
// For the handler of a touch: whether the page is away, or was; then it is back now, or perhaps not yet. The other: only
// whether it is not away any more and still inaccessible, as in a child it may be.
bool hint_bring(uintptr_t page);
bool hint_open(uintptr_t page);
// A system call is about to touch the range, whatever is in it: all pages of live blocks in it are back now. Any
// thread; signal-safe.
void hint_touch(uintptr_t address, size_t bytes);
// All that is away is back now, and nothing goes while table_holds is what the caller made it. Signal-safe.
void hint_bring_all_back(void);
// No more excluded: the page was given back. Any thread, with locks.
void hint_forget(uintptr_t page);

// Returns when all that was away when it was called has been brought back. Only while there is a freezing
// thread.
void hint_thaw_all(void);

// Memory is short: what is idle is to go sooner. Any thread; takes no lock.
void hint_press(void);

// ---- the freezing thread's side ----

// Sleeps for so long, or until somebody calls.
void hint_sleep(uint64_t ns);
// Whether somebody wished pages away since this was asked last.
bool hint_take_call(void);
// Whether memory is short, as somebody said since this was asked last.
bool hint_take_press(void);
// The number of the last request to bring everything back; and that those up to it are fulfilled.
bool hint_is_thaw_due(uint32_t *number);
void hint_note_thawed(uint32_t number);

#endif
