// Frees by threads that do not own the span.
//
//   freeing thread R                           owner O, draining its queue
//   1 tag into the slot                        a pending = 0
//   2 set the slot's bit in `remote`           b exchange `remote` words with 0, check, take over
//   3 exchange pending with the mark; if it was
//     something else:
//   4 queue the span with its owner
//
// Whatever the order of {2, 3} and {a, b}: either b sees the bit, or 3 sees no mark and queues the
// span again. (2 and 3, a and b are sequentially consistent.) O may exit meanwhile: it first makes
// its spans ownerless, then closes its queue. R, refused by a closed queue, reads the owner anew.
#ifndef FIRN_CACHE_REMOTE_H
#define FIRN_CACHE_REMOTE_H

#include "src/cache/cache.h"

// A queue that takes no more: its cache has no thread.
extern struct span firn_closed_queue;
#define CACHE_CLOSED (&firn_closed_queue)

// Brings a span with `pending` set to whoever owns it now.
void remote_deliver(struct span *s);
// Takes over everything queued for `c`, whose thread this is. With its owner's lock, as the next.
void remote_drain(struct cache *c);
// Takes over what was freed in a span of `c` by threads that stayed behind when this process forked,
// before they could queue it.
void remote_settle(struct cache *c, struct span *s);
// Stops `c` from being queued for, and passes on what was queued.
void remote_close(struct cache *c);

#endif
