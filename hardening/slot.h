// The two places where hardening sees a small slot: as it is handed out, and as it comes back.
// cache and heap call these and nothing else of hardening/. With every feature off they are empty.
#ifndef FIRN_HARDENING_SLOT_H
#define FIRN_HARDENING_SLOT_H

#include "src/base/compiler.h"
#include "src/base/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Bytes added to each request before a class is chosen (room for a canary).
#define FIRN_SLOT_EXTRA 0u

// `p` leaves the cache for the program. `slot_bytes`: its class. `secret`: its span's.
FIRN_INLINE void slot_on_alloc(void *p, size_t slot_bytes, uint64_t secret) {
    (void)p;
    (void)slot_bytes;
    (void)secret;
}

// `p` comes back from the program, checked and marked not live. True: put it into circulation now.
// False: hardening keeps it (quarantine) and puts it into circulation itself, later.
FIRN_INLINE bool slot_on_free(void *p, size_t slot_bytes, uint64_t secret) {
    (void)p;
    (void)slot_bytes;
    (void)secret;
    return true;
}

#endif
