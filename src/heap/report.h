// What a report tells about the block: where it lies, the state of its slot, its neighbours. Needs
// no lock and changes nothing: the heap is damaged, and other threads may still be running.
#ifndef FIRN_HEAP_REPORT_H
#define FIRN_HEAP_REPORT_H

#include "src/base/fatal.h"

// A fatal_detail_fn.
size_t report_describe(enum fatal_id id, const struct fatal_info *info, char *text,
                       size_t text_bytes);

#endif
