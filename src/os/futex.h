// Sleeping until a word changes. Private to the process. Signal-safe; errno is preserved.
#ifndef FIRN_OS_FUTEX_H
#define FIRN_OS_FUTEX_H

#include <stdatomic.h>
#include <stdint.h>

// Returns when woken, when *word is not `seen`, or for no reason.
void futex_wait(_Atomic uint32_t *word, uint32_t seen);
// The same, or after `ns`.
void futex_wait_for(_Atomic uint32_t *word, uint32_t seen, uint64_t ns);
void futex_wake(_Atomic uint32_t *word, int threads);

#endif
