#include "src/cold/mask.h"

#include "hardening/canary.h"

void mask_page(uintptr_t address, void *page) {
    uintptr_t offset = address - FIRN_ROOT.small_base;
    if (!FIRN_CANARY || offset >= FIRN_ROOT.small_bytes) {
        return;
    }
    unsigned cell = (unsigned)(offset >> FIRN_ROOT.cell_shift);
    const struct class_info *info = &FIRN_ROOT.classes[root_cell_class(cell)];
    size_t in_span = address & info->span_mask;
    uint64_t *words = page;
    // The first slot that ends on the page. Slots are multiples of 8: no canary lies on two pages.
    for (size_t slot = in_span / info->bytes; slot < info->slots; slot++) {
        size_t place = (slot + 1) * info->bytes - CANARY_BYTES;
        if (place >= in_span + FIRN_PAGE) {
            break;
        }
        words[(place - in_span) / sizeof *words] ^=
            canary_of(address - in_span + slot * info->bytes);
    }
}
