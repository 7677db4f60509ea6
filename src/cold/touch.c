#include "src/cold/touch.h"

#include "src/cold/table.h"
#include "src/cold/thaw.h"
#include "src/os/far.h"
#include "src/os/missing.h"
#include "src/os/signals.h"

#include <errno.h>

// What cold/store.h needs, and room for a report.
enum { STACK_BYTES = 48 << 10 };

static _Alignas(FIRN_PAGE) char stack[STACK_BYTES]; // with cold_lock

static FIRN_TLS struct signals_touch last_touch;

struct touch {
    struct chunk *chunk;
    uintptr_t page;
    bool was_away;
};

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
    if (t.was_away) {
        last_touch.address = 0;
    }
    bool is_ours = t.was_away || signals_is_late(&last_touch, address, thaw_epoch());
    lock_release(&cold_lock);
    errno = saved;
    return is_ours;
}
