// Objects from the reuse cache. Callers hold LOCK_LARGE.
#ifndef FIRN_SPAN_RECYCLE_H
#define FIRN_SPAN_RECYCLE_H

#include "src/span/reuse.h"
#include "src/span/space.h"

// A RUN_LIVE for the request out of the cache, with whatever content it had; NULL if nothing there
// will do. What is left over stays in the cache.
struct run *recycle_take(struct reuse *reuse, struct space *space,
                         const struct carve_request *request);

#endif
