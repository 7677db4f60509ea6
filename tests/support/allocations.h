// Calls of libc's allocator, counted where a test says. For tests with wrap=malloc,calloc,realloc.
#ifndef FIRN_TESTS_ALLOCATIONS_H
#define FIRN_TESTS_ALLOCATIONS_H

#include <stdbool.h>

extern bool allocations_are_counted;
extern unsigned allocations_seen;

#endif
