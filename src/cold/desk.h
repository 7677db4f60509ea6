// Memory in which one page is packed or opened: a context of the codec and room for a blob. All of it is
// there from the start, since a thread that thaws a page may stand anywhere, on a small stack.
//
// Nobody keeps a desk for longer than one page takes, and nobody waits for anything while he has one: so
// whoever finds none free waits for microseconds. Callers have the program's signals blocked, as for the
// whole of the store (cold/store.h). A forked child finds all desks free, whichever call forked.
#ifndef FIRN_COLD_DESK_H
#define FIRN_COLD_DESK_H

#include "src/base/compiler.h"
#include "src/cold/seal.h"

#include <stdbool.h>

enum desk_kind { DESK_OPENING, DESK_PACKING, DESK_KINDS };
enum { DESK_OPENING_MOST = 32, DESK_PACKING_MOST = 8 }; // of each kind, at most 64

struct desk {
    struct seal_blob blob;
    _Alignas(FIRN_CACHE_LINE) unsigned char context[]; // of cold/pack.h
};

// Once, before the calls below. False when there is no memory. Preserves errno.
bool desk_start(void) FIRN_CHECKED;
// Never NULL. Signal-safe.
struct desk *desk_take(enum desk_kind kind);
// Overwrites the blob: it was the program's data.
void desk_leave(enum desk_kind kind, struct desk *desk);
void desk_after_fork_in_child(void);

#endif
