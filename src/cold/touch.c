#include "src/cold/touch.h"

#include "src/cold/table.h"
#include "src/cold/thaw.h"
#include "src/os/far.h"
#include "src/os/missing.h"

#include <errno.h>

// What cold/store.h needs, and room for a report.
enum { STACK_BYTES = 48 << 10 };

static _Alignas(FIRN_PAGE) char stack[STACK_BYTES]; // with cold_lock

// The last touch that could not be explained: see is_late.
static FIRN_TLS struct {
    uintptr_t address;
    uint64_t epoch;
} last;

struct touch {
    struct chunk *chunk;
    uintptr_t page;
    bool was_away;
};

// Another thread may have brought the page back between the fault and our look at it. So a touch that nothing
// explains is tried once more, unless the same one was and no page has come back since: that one the program has
// to answer for.
static bool is_late(uintptr_t address) {
    uint64_t now = thaw_epoch();
    if (last.address == address && last.epoch == now) {
        return false;
    }
    last.address = address;
    last.epoch = now;
    return true;
}

static void bring_back(void *context) {
    struct touch *t = context;
    missing_borrow();
    t->was_away = thaw_touched(t->chunk, t->page);
    missing_return();
}

bool touch_claim(uintptr_t address) {
    const int saved = errno;
    struct touch t = {table_find(address), address & ~(uintptr_t)(FIRN_PAGE - 1), false};
    if (t.chunk == NULL || !atomic_load(&t.chunk->is_claimed)) {
        return false;
    }
    lock_acquire(&cold_lock);
    far_call(bring_back, &t, (uintptr_t)stack + sizeof stack);
    bool is_ours = t.was_away || is_late(address);
    lock_release(&cold_lock);
    errno = saved;
    return is_ours;
}
