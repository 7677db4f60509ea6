// P-CANARY, P-WIPE and P-VERIFY, put together.
#include "hardening/slot.h"

#include "hardening/slack.h"
#include "hardening/wipe.h"
#include "src/base/text.h"

// ---- reports ----------------------------------------------------------------------------------

// Found by an innocent call.
FIRN_NORETURN FIRN_COLD static void report_write(uintptr_t address, size_t slot_bytes,
                                                 uintptr_t site) {
    char found[64];
    struct text t = text_on(found, sizeof found);
    size_t n = slot_bytes - FIRN_SLOT_EXTRA;
    size_t at = wipe_first_changed((const void *)address, n);
    if (at == n) {
        at += (size_t)__builtin_ctzll(canary_change(address, slot_bytes)) / 8;
    }
    text_str(&t, "byte ");
    text_dec(&t, at);
    text_str(&t, " of a freed block was written to");
    struct fatal_info info = {
        .api = "malloc",
        .address = address,
        .class_bytes = slot_bytes,
        .size = FATAL_SIZE_UNKNOWN,
        .found = found,
        .caller = site,
    };
    fatal(FATAL_WRITE_AFTER_FREE, &info);
}

// Unset: the page was given back since, or its slot never handed out. A live one should not say so: but
// another thread may be handing it out just now, or may have been when a process was forked that does
// not have that thread. On a meshed page what stands in front of a slot is a partner's unless the slot there
// is live.
static bool is_before_whole(const struct span *s, unsigned slot, uintptr_t before,
                            size_t slot_bytes, bool is_owner) {
    uint64_t word = canary_load(before, slot_bytes);
    return canary_word_change(before, word) == 0 ||
           (span_is_meshed(s) && !span_is_live(s, slot - 1)) ||
           (canary_is_unset(before, word) &&
            (!is_owner || !span_is_live(s, slot - 1) || s->is_torn));
}

static bool check(const struct span *s, unsigned slot, bool is_owner, enum fatal_id *id,
                  const char **found) {
    size_t bytes = span_class(s)->bytes;
    uintptr_t address = span_base(s) + slot * bytes;
    uint64_t word = canary_load(address, bytes);
    if (canary_word_change(address, word) != 0 && !(canary_is_unset(address, word) && s->is_torn)) {
        *id = FATAL_OVERFLOW;
        *found = "canary after the block was overwritten";
        return false;
    }
    if (slot != 0 && !is_before_whole(s, slot, address - bytes, bytes, is_owner)) {
        *id = FATAL_UNDERFLOW;
        *found = "canary before the block was overwritten";
        return false;
    }
    return true;
}

bool slot_is_whole(const struct span *s, unsigned slot, enum fatal_id *id, const char **found) {
    return !FIRN_CANARY || check(s, slot, false, id, found);
}

// A canary is not what it should be: the end, unless it never was there.
FIRN_COLD static void retire_slowly(uintptr_t address, size_t slot_bytes, const char *api,
                                    uintptr_t site) {
    uintptr_t offset = address - FIRN_ROOT.small_base;
    const struct class_info *c =
        &FIRN_ROOT.classes[root_cell_class((unsigned)(offset >> FIRN_ROOT.cell_shift))];
    struct fatal_info info = {
        .api = api,
        .address = address,
        .class_bytes = slot_bytes,
        .size = FATAL_SIZE_UNKNOWN,
        .caller = site,
    };
    enum fatal_id id;
    if (!check(span_at(offset, c), span_slot(c, offset), true, &id, &info.found)) {
        fatal(id, &info);
    }
    slot_wipe(address, slot_bytes);
}

// ---- the slots --------------------------------------------------------------------------------

// Who has no canary of its own yet sees to the slot before, which may never be handed out: else a zero
// written there would change nothing. Where that has one, whole, broken or on loan, it stays.
FIRN_INLINE void *arm(uintptr_t address, size_t slot_bytes, size_t before_bytes, bool is_as_left,
                      uint64_t word, uintptr_t site) {
    uint64_t right = FIRN_CANARY ? canary_of(address) : 0;
    bool is_first = FIRN_CANARY && canary_is_unset(address, word);
    if (FIRN_VERIFY &&
        FIRN_UNLIKELY(!is_as_left || (((word ^ right) & ~CANARY_SIZE_BITS) != 0 && !is_first))) {
        report_write(address, slot_bytes, site);
    }
    if (FIRN_CANARY) {
        uintptr_t before = address - before_bytes;
        if (is_first && canary_load(before, slot_bytes) == 0) {
            canary_store(before, slot_bytes, canary_of(before) ^ CANARY_LOAN);
        }
        // Last: a live slot that has its canary writes nothing in front of it any more (mesh/merge.c).
        canary_store_last(address, slot_bytes, right);
    }
    return (void *)address;
}

FIRN_INLINE bool are_canaries_whole(uintptr_t address, size_t slot_bytes, size_t before_bytes) {
    if (!FIRN_CANARY) {
        return true;
    }
    uint64_t before = canary_change(address - before_bytes, slot_bytes);
    return FIRN_LIKELY(canary_change(address, slot_bytes) == 0) &&
           (FIRN_LIKELY(before == 0) || before == CANARY_LOAN);
}

// The first time since its page was fresh, and the last.
FIRN_COLD static void *issue_slowly(uintptr_t address, size_t slot_bytes, size_t before_bytes,
                                    bool is_virgin, uintptr_t site) {
    uint64_t word = !FIRN_CANARY ? 0
                    : is_virgin  ? canary_load_fresh(address, slot_bytes)
                                 : canary_load(address, slot_bytes);
    bool is_as_left = !FIRN_VERIFY || is_virgin ||
                      wipe_is_zero_narrow((const void *)address, slot_bytes - FIRN_SLOT_EXTRA);
    return arm(address, slot_bytes, before_bytes, is_as_left, word, site);
}

// Nothing to be done but to look whether it is zero.
FIRN_INLINE bool is_in_use(uintptr_t address, size_t slot_bytes, bool is_virgin) {
    return !is_virgin && (!FIRN_CANARY || canary_change(address, slot_bytes) == 0);
}

static void *issue_narrow(uintptr_t address, size_t slot_bytes, size_t before_bytes, bool is_virgin,
                          uintptr_t site) {
    void *p = (void *)address;
    return FIRN_LIKELY(is_in_use(address, slot_bytes, is_virgin)) &&
                   (!FIRN_VERIFY ||
                    FIRN_LIKELY(wipe_is_zero_narrow(p, slot_bytes - FIRN_SLOT_EXTRA)))
               ? p
               : issue_slowly(address, slot_bytes, before_bytes, is_virgin, site);
}

static void retire_narrow(uintptr_t address, size_t slot_bytes, size_t before_bytes,
                          const char *api, uintptr_t site) {
    if (FIRN_UNLIKELY(!are_canaries_whole(address, slot_bytes, before_bytes))) {
        retire_slowly(address, slot_bytes, api, site);
    } else if (FIRN_WIPE) {
        wipe_zero_narrow((void *)address, slot_bytes - FIRN_SLOT_EXTRA);
    }
}

WIPE_WIDE static void *issue_wide(uintptr_t address, size_t slot_bytes, size_t before_bytes,
                                  bool is_virgin, uintptr_t site) {
    void *p = (void *)address;
    return FIRN_LIKELY(is_in_use(address, slot_bytes, is_virgin)) &&
                   (!FIRN_VERIFY || FIRN_LIKELY(wipe_is_zero_wide(p, slot_bytes - FIRN_SLOT_EXTRA)))
               ? p
               : issue_slowly(address, slot_bytes, before_bytes, is_virgin, site);
}

WIPE_WIDE static void retire_wide(uintptr_t address, size_t slot_bytes, size_t before_bytes,
                                  const char *api, uintptr_t site) {
    if (FIRN_UNLIKELY(!are_canaries_whole(address, slot_bytes, before_bytes))) {
        retire_slowly(address, slot_bytes, api, site);
    } else if (FIRN_WIPE) {
        wipe_zero_wide((void *)address, slot_bytes - FIRN_SLOT_EXTRA);
    }
}

WIPE_WIDEST static void *issue_widest(uintptr_t address, size_t slot_bytes, size_t before_bytes,
                                      bool is_virgin, uintptr_t site) {
    void *p = (void *)address;
    return FIRN_LIKELY(is_in_use(address, slot_bytes, is_virgin)) &&
                   (!FIRN_VERIFY ||
                    FIRN_LIKELY(wipe_is_zero_widest(p, slot_bytes - FIRN_SLOT_EXTRA)))
               ? p
               : issue_slowly(address, slot_bytes, before_bytes, is_virgin, site);
}

WIPE_WIDEST static void retire_widest(uintptr_t address, size_t slot_bytes, size_t before_bytes,
                                      const char *api, uintptr_t site) {
    if (FIRN_UNLIKELY(!are_canaries_whole(address, slot_bytes, before_bytes))) {
        retire_slowly(address, slot_bytes, api, site);
    } else if (FIRN_WIPE) {
        wipe_zero_widest((void *)address, slot_bytes - FIRN_SLOT_EXTRA);
    }
}

void slot_start(void) {
    FIRN_ROOT.slot_issue = issue_narrow;
    FIRN_ROOT.slot_retire = retire_narrow;
    if (wipe_can_be_widest()) {
        FIRN_ROOT.slot_issue = issue_widest;
        FIRN_ROOT.slot_retire = retire_widest;
    } else if (wipe_can_be_wide()) {
        FIRN_ROOT.slot_issue = issue_wide;
        FIRN_ROOT.slot_retire = retire_wide;
    }
}

void slot_wipe(uintptr_t address, size_t slot_bytes) {
    slack_forget(address, slot_bytes);
    if (FIRN_WIPE) {
        wipe_zero_narrow((void *)address, slot_bytes - FIRN_SLOT_EXTRA);
    }
}
