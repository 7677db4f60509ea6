// Pages as programs have them, for what packs and stores pages.
#ifndef FIRN_TESTS_PAGES_H
#define FIRN_TESTS_PAGES_H

#include <stddef.h>
#include <stdint.h>

enum pages_kind { PAGES_JSON, PAGES_POINTERS, PAGES_WORDS, PAGES_CODE, PAGES_RANDOM, PAGES_KINDS };

extern const char *const pages_names[PAGES_KINDS];

// Fills 4096 bytes. The same kind and number give the same page.
void pages_fill(void *page, enum pages_kind kind, uint64_t number);

#endif
