#include "tests/support/allocations.h"

#include <stddef.h>

bool allocations_are_counted;
unsigned allocations_seen;

#define COUNTED(name, parameters, arguments)                                                       \
    void *__real_##name parameters;                                                                \
    void *__wrap_##name parameters;                                                                \
    void *__wrap_##name parameters {                                                               \
        allocations_seen += allocations_are_counted ? 1 : 0;                                       \
        return __real_##name arguments;                                                            \
    }
COUNTED(malloc, (size_t n), (n))
COUNTED(calloc, (size_t n, size_t m), (n, m))
COUNTED(realloc, (void *p, size_t n), (p, n))
