#include "src/heap/storm.h"

#include "src/base/config.h"
#include "src/base/fatal.h"
#include "src/heap/life.h"
#include "src/os/fault.h"
#include "src/os/random.h"
#include "src/os/sys.h"
#include "src/os/thread.h"
#include "src/span/region.h"

#include <string.h>

enum { AT_ONCE = 16, HOLD_ROUNDS = 2000 };

// A page of a span with live slots, whose class may be staged; 0 if this try found none.
static uintptr_t random_page(struct random_stream *random) {
    unsigned cell = random_below(random, CELLS);
    uintptr_t base = root_cell_base(cell);
    uintptr_t limit = atomic_load_explicit(&firn_cell_limits[cell], memory_order_acquire);
    if (root_cell_class(cell) >= SIZE_CLASSES || limit <= base ||
        !fault_can_hold(FIRN_ROOT.classes[root_cell_class(cell)].bytes)) {
        return 0;
    }
    uint32_t pages = (uint32_t)((limit - base) >> FIRN_PAGE_SHIFT);
    uintptr_t page = base + ((uintptr_t)random_below(random, pages) << FIRN_PAGE_SHIFT);
    const struct class_info *c = &FIRN_ROOT.classes[root_cell_class(cell)];
    return span_count_live(span_at(page - FIRN_ROOT.small_base, c)) > 0 ? page : 0;
}

// Without signals: a handler of the program that ran here would run beside the program.
static void storm(void) {
    struct random_stream random;
    memset(&random, 0, sizeof random);
    for (;;) {
        uintptr_t pages[AT_ONCE] = {0};
        unsigned n = 0;
        for (unsigned i = 0; i < 64 * AT_ONCE && n < AT_ONCE; i++) {
            uintptr_t page = random_page(&random);
            bool is_new = page != 0;
            for (unsigned k = 0; k < n; k++) {
                is_new = is_new && pages[k] != page;
            }
            if (is_new && fault_stage(page, FIRN_PAGE)) {
                pages[n++] = page;
            }
        }
        for (unsigned i = 0; i < HOLD_ROUNDS; i++) {
            (void)atomic_load_explicit(&firn_cell_limits[i % CELLS], memory_order_seq_cst);
        }
        while (n > 0) {
            fault_release(pages[--n], FIRN_PAGE);
        }
    }
}

void storm_start_if_asked(void) {
    const char *asked = FIRN_TEST_HOOKS ? sys_environment("FIRN_TEST_ARM") : NULL;
    if (asked == NULL || *asked == '\0') {
        return;
    }
    life_start();
    FIRN_ENSURE(fault_start(FIRN_ROOT.small_base, FIRN_ROOT.small_bytes));
    if (strcmp(asked, "storm") == 0) {
        FIRN_ENSURE(thread_start(storm));
    }
}
