// A page for keys: memfd_secret where there is one (Linux 5.14, where it is switched on), which the
// kernel's own map of memory, core dumps, debuggers and swap do not show; else a page that is left out
// of core dumps and, as far as the limit allows, of swap.
#ifndef FIRN_OS_SECRET_H
#define FIRN_OS_SECRET_H

#include <stdbool.h>
#include <stddef.h>

// Zeros, FIRN_PAGE bytes, readable and writable; NULL when there is no memory. `is_hidden`: it is one of
// memfd_secret. Such a page is shared with forked children, so that what is in it is not changed once
// there may be one: secret_seal_page. Preserves errno.
void *secret_page(bool *is_hidden);
// Read-only from now on.
void secret_seal_page(void *page);
// Overwrites what the compiler would otherwise leave.
void secret_wipe(void *p, size_t n);

#endif
