// What this kernel and these limits allow, probed once at start, never guessed from a version.
#ifndef FIRN_OS_CAPS_H
#define FIRN_OS_CAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cap {
    CAP_GUARD_MARKER = 1u << 0, // MADV_GUARD_INSTALL
    CAP_WIPE_ON_FORK = 1u << 1, // MADV_WIPEONFORK
    CAP_MREMAP_KEEP = 1u << 2,  // MREMAP_DONTUNMAP
    CAP_NOREPLACE = 1u << 3,    // MAP_FIXED_NOREPLACE
    CAP_RESERVE = 1u << 4,      // terabytes of PROT_NONE are free of charge (no RLIMIT_AS)
    CAP_WIDE_ADDRESS = 1u << 5, // 47 bits of user addresses; without it, 39 are assumed
    CAP_GETRANDOM = 1u << 6,    // getrandom(2); else /dev/urandom
    // Tried when first needed (os/fault.h, os/secret.h), not at start: set unless masked.
    CAP_FAULT_EVENT = 1u << 7,
    CAP_FAULT_SIGNAL = 1u << 8,
    CAP_SECRET = 1u << 9,      // memfd_secret (os/secret.h)
    CAP_RESIDENCE = 1u << 10,  // mincore
    CAP_PURGE_LIST = 1u << 11, // process_madvise of the process itself (os/purge.h)
    CAP_BORROW = 1u << 12,     // pidfd_getfd (os/keep.h)
    CAP_POPULATE = 1u << 13,   // MADV_POPULATE_WRITE, Linux 5.14; tried at start
    CAP_FOLLOW = 1u << 14,     // sched_setaffinity (os/veil.h): not with a filter that comes later
    // Not used once a filter of system calls is in place: systemd's @system-service ends a process for
    // all but process_madvise and madvise, sshd's sandbox for an unusual advice.
    CAPS_RARE = CAP_SECRET | CAP_RESIDENCE | CAP_PURGE_LIST | CAP_BORROW | CAP_POPULATE,
    CAP_ALL = (1u << 15) - 1
};

struct limits {
    uint64_t address_space_bytes; // RLIMIT_AS, UINT64_MAX if unlimited
    uint64_t data_bytes;          // RLIMIT_DATA
    bool is_strict_overcommit;    // vm.overcommit_memory == 2
    size_t max_map_count;         // vm.max_map_count, 65530 if unreadable
};

// Probes. `mask` clears capabilities (tests make every lesser path run on any kernel): ~0u normally.
// Called once, single-threaded, before anything is mapped. Never fails; what cannot be read is
// assumed absent or at its default.
void caps_probe(uint32_t mask);
bool caps_has(enum cap c);
// From now on the process does without. With every lock under which it is asked for, or nearly: who
// has just asked may still act on the old answer.
void caps_forget(enum cap c);
uint32_t caps_bits(void);
const struct limits *caps_limits(void);

#endif
