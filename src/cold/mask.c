#include "src/cold/mask.h"

#include "hardening/canary.h"
#include "hardening/slack.h"

// P-SLACK. What is left over in the slot is known from its canary, masked or not: of the two words one says so.
// Only what lies on the same page.
static void mask_slack(uintptr_t address, unsigned char *page, size_t place, uint64_t word,
                       uint64_t canary) {
    uint64_t code = (word & ~CANARY_SIZE_BITS) == 0 ? word : word ^ canary;
    if ((code & ~CANARY_SIZE_BITS) == 0) {
        size_t left = slack_left(code);
        size_t from = left < place ? place - left : 0;
        slack_flip(address + from, address + place, page + from);
    }
}

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
        uint64_t *word = &words[(place - in_span) / sizeof *words];
        uint64_t canary = canary_of(address - in_span + slot * info->bytes);
        if (FIRN_SLACK) {
            size_t before = place - in_span < info->bytes ? place - in_span : info->bytes;
            mask_slack(address + (place - in_span) - before,
                       (unsigned char *)page + (place - in_span) - before, before, *word, canary);
        }
        *word ^= canary;
    }
}
