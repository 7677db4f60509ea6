// The thread that touches a page with a marker (cold/mark.h) brings it back itself.
#ifndef FIRN_COLD_TOUCH_H
#define FIRN_COLD_TOUCH_H

#include <stdbool.h>
#include <stdint.h>

// In the context of a SIGSEGV, with every signal blocked but those of faults: whether the touch was of a page that
// was away, or may have been, and is to be tried again. Where pages of this process can be away. The work is
// done on a stack of Firn's; a thread that holds any lock of a lower rank may come here. Preserves errno.
bool touch_claim(uintptr_t address);

#endif
