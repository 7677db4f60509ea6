// P-CANARY, P-WIPE and P-VERIFY, put together.
#include "hardening/slot.h"

#include "hardening/slack.h"
#include "hardening/wipe.h"
#include "src/base/text.h"
#include "src/slab/owner.h"

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

// Zero: the page was given back since, or its slot never handed out. A live one should not say so: but
// another thread may be handing it out just now, or may have been when a process was forked that does
// not have that thread. On a meshed page what stands in front of a slot is a partner's unless the slot there
// is live.
static bool is_before_whole(const struct span *s, unsigned slot, uintptr_t before,
                            size_t slot_bytes, bool is_owner) {
    uint64_t word = canary_load(before, slot_bytes);
    return canary_word_change(before, word) == 0 ||
           (span_is_meshed(s) && !span_is_live(s, slot - 1)) ||
           (word == 0 && (!is_owner || !span_is_live(s, slot - 1) || s->is_torn));
}

static bool check(const struct span *s, unsigned slot, bool is_owner, enum fatal_id *id,
                  const char **found) {
    size_t bytes = span_class(s)->bytes;
    uintptr_t address = span_base(s) + slot * bytes;
    if (canary_change(address, bytes) != 0 && !(canary_load(address, bytes) == 0 && s->is_torn)) {
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

// The slot's own canary is 0 when it is handed out for the first time since its page was fresh. Then the
// slot before may never have been, and gets its canary now: else a zero written there would change
// nothing, and not be noticed. Where it has one, whole or broken, that stays.
FIRN_INLINE void *arm(uintptr_t address, size_t slot_bytes, size_t before_bytes, bool is_as_left,
                      uintptr_t site) {
    uint64_t right = FIRN_CANARY ? canary_of(address) : 0;
    uint64_t word = FIRN_CANARY ? canary_load(address, slot_bytes) : 0;
    if (FIRN_VERIFY &&
        FIRN_UNLIKELY(!is_as_left || (((word ^ right) & ~CANARY_SIZE_BITS) != 0 && word != 0))) {
        report_write(address, slot_bytes, site);
    }
    if (FIRN_CANARY) {
        if (FIRN_UNLIKELY(word == 0) && canary_load(address - before_bytes, slot_bytes) == 0) {
            canary_store(address - before_bytes, slot_bytes, canary_of(address - before_bytes));
        }
        // Last: a live slot that has its canary writes nothing in front of it any more (mesh/merge.c).
        canary_store_last(address, slot_bytes, right);
    }
    return (void *)address;
}

FIRN_INLINE bool are_canaries_whole(uintptr_t address, size_t slot_bytes, size_t before_bytes) {
    return !FIRN_CANARY || (FIRN_LIKELY(canary_change(address, slot_bytes) == 0) &&
                            FIRN_LIKELY(canary_change(address - before_bytes, slot_bytes) == 0));
}

static const struct span *span_of(uintptr_t address) {
    uintptr_t offset = address - FIRN_ROOT.small_base;
    return span_at(offset,
                   &FIRN_ROOT.classes[root_cell_class((unsigned)(offset >> FIRN_ROOT.cell_shift))]);
}

// Of a slot that has its canary from the slot after it, and is handed out for the first time: the slot before may
// have none, and a zero written there would not be noticed. `arm` may not give it one: the mesher takes a live
// slot that has its own to write nothing in front of it. So with the owner's lock, lest the page is being
// merged; in front of a slot of a merged one may be a partner's.
FIRN_COLD static void arm_before(uintptr_t before, size_t slot_bytes) {
    const struct span *s = span_of(before);
    uint32_t owner = span_owner_number(s);
    owner_lock(owner);
    if (!span_is_meshed(s) && canary_load(before, slot_bytes) == 0) {
        canary_store(before, slot_bytes, canary_of(before));
    }
    owner_unlock(owner);
}

// The first time since its page was fresh, and the last.
FIRN_COLD static void *issue_slowly(uintptr_t address, size_t slot_bytes, size_t before_bytes,
                                    bool is_virgin, uintptr_t site) {
    bool is_as_left = !FIRN_VERIFY || is_virgin ||
                      wipe_is_zero_narrow((const void *)address, slot_bytes - FIRN_SLOT_EXTRA);
    if (FIRN_CANARY && is_virgin && before_bytes != 0 && canary_load(address, slot_bytes) != 0 &&
        canary_load(address - before_bytes, slot_bytes) == 0) {
        arm_before(address - before_bytes, slot_bytes);
    }
    return arm(address, slot_bytes, before_bytes, is_as_left, site);
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
