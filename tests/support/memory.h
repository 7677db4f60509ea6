// Looks at this process's memory the way the kernel does, without faulting.
#ifndef FIRN_TESTS_MEMORY_H
#define FIRN_TESTS_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A sanitizer's shadow takes part of the address space and of every limit.
bool memory_is_sanitized(void);
bool memory_can_read(uintptr_t address);
// Writes back the byte that is there.
bool memory_can_write(uintptr_t address);
bool memory_is_zero(const void *p, size_t n);
// VMAs of the process, and of those, the ones that overlap [address, +bytes).
size_t memory_count_vmas(uintptr_t address, size_t bytes);
// Whether the two-letter flag stands in the VmFlags of the mapping that contains `address`.
bool memory_has_flag(uintptr_t address, const char *flag);
// Kilobytes of the mapping that contains `address` that are in physical memory.
size_t memory_resident_kib(uintptr_t address);
// Bytes of this process's physical memory by PSS, pages of files left out: the kernel may take those
// away, and bring them back, at any time. 0 where it does not tell.
size_t memory_pss_bytes(void);

#endif
