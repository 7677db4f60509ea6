// What tests of the cold tier share: a heap whose idle pages go after a fraction of a second.
#ifndef FIRN_TESTS_COLD_CASE_H
#define FIRN_TESTS_COLD_CASE_H

#include "src/cold/cold.h"

#include <stdbool.h>

enum { COLD_CASE_AFTER_MS = 200, COLD_CASE_WAIT_MS = 40000 };

// cmocka's set-up of a group: starts the heap, and the cold tier without a seal.
int cold_case_start(void **state);

void cold_case_sleep(unsigned ms);
struct cold_stats cold_case_stats(void);

// Waits until it is done. False: nothing can be frozen here, or it takes too long.
bool cold_case_wait(bool (*is_done)(void));
// The same; skips the test where nothing can be frozen, and fails it where it takes too long.
void cold_case_freeze(bool (*is_done)(void));

#endif
