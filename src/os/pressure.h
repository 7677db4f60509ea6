// Whether the machine is short of memory, as the kernel measures it (PSI).
#ifndef FIRN_OS_PRESSURE_H
#define FIRN_OS_PRESSURE_H

#include <stdbool.h>

// Whether tasks waited for memory for at least PRESSURE_PERCENT of the last ten seconds. False where the
// kernel does not say. One open, read and close. Preserves errno.
enum { PRESSURE_PERCENT = 5 };
bool pressure_is_high(void);

#endif
