#include "tests/support/cold_case.h"

#include "src/heap/life.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

int cold_case_start(void **state) {
    (void)state;
    life_start();
    cold_choose(true, COLD_CASE_AFTER_MS, 0, 0);
    cold_upkeep();
    return 0;
}

void cold_case_sleep(unsigned ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
}

struct cold_stats cold_case_stats(void) {
    struct cold_stats s;
    cold_stats(&s);
    return s;
}

bool cold_case_wait(bool (*is_done)(void)) {
    for (unsigned ms = 0; !is_done(); ms += 20) {
        if (cold_case_stats().reason != NULL || ms > COLD_CASE_WAIT_MS) {
            return false;
        }
        cold_case_sleep(20);
    }
    return true;
}

void cold_case_freeze(bool (*is_done)(void)) {
    if (!cold_case_wait(is_done)) {
        const char *reason = cold_case_stats().reason;
        print_message("cold: %s\n", reason != NULL ? reason : "slow");
        assert_non_null(reason);
        skip();
    }
}
