// The mmap family. Two rules run through this file. A mapping of somebody else's is never replaced:
// MAP_FIXED is used only over ranges that are ours beyond doubt. And a call that fails half-way must
// not leave a hole in a reservation, where the next mmap of the program could settle.
#include "src/os/map.h"

#include "src/base/align.h"
#include "src/base/fatal.h"
#include "src/os/caps.h"
#include "src/os/guard.h"
#include "src/os/kernel.h"
#include "src/os/random.h"
#include "src/os/sys.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

enum { PLACE_TRIES = 12, WIDE_BITS = 47, READ_WRITE = PROT_READ | PROT_WRITE };

static bool advise(uintptr_t address, size_t bytes, int advice) {
    return sys_may_call() && madvise((void *)address, bytes, advice) == 0;
}

static bool protect(uintptr_t address, size_t bytes, int protection) {
    return sys_may_call() && mprotect((void *)address, bytes, protection) == 0;
}

static bool unmap(uintptr_t address, size_t bytes) {
    return bytes == 0 || (sys_may_call() && munmap((void *)address, bytes) == 0);
}

static void *map(uintptr_t address, size_t bytes, int protection, int flags) {
    return sys_may_call() ? mmap((void *)address, bytes, protection,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0)
                          : MAP_FAILED;
}

// Anonymous private memory at exactly `address`, or nothing. A kernel without MAP_FIXED_NOREPLACE
// takes the address for a hint: a mapping elsewhere is given back at once.
static bool map_at(uintptr_t address, size_t bytes, int protection, int flags) {
    void *p = map(address, bytes, protection, flags);
    if (p == MAP_FAILED) {
        return false;
    }
    if ((uintptr_t)p != address) {
        unmap((uintptr_t)p, bytes);
        errno = EEXIST;
        return false;
    }
    return true;
}

static bool map_if_free(uintptr_t address, size_t bytes, int protection) {
    int flags = caps_has(CAP_NOREPLACE) ? MAP_FIXED_NOREPLACE : 0;
    return map_at(address, bytes, protection, flags);
}

// Replaces what is ours by one fresh mapping. Some kernels unmap before they find out that they
// cannot map: then the hole is filled. A range that was left alone answers EEXIST, which is fine.
static bool remap(uintptr_t address, size_t bytes, int protection) {
    if (map_at(address, bytes, protection, MAP_FIXED)) {
        return true;
    }
    int why = errno;
    bool is_filled = map_if_free(address, bytes, protection);
    errno = why;
    return is_filled;
}

// What every mapping inside a reservation has, so that neighbours merge into one VMA. Failure costs
// VMAs and huge-page surprises, never correctness: a kernel may be built without either.
static void advise_idle(uintptr_t address, size_t bytes) {
    int saved = errno;
    (void)advise(address, bytes, MADV_NOHUGEPAGE);
    (void)advise(address, bytes, MADV_DONTDUMP);
    errno = saved;
}

static void advise_in_use(uintptr_t address, size_t bytes) {
    int saved = errno;
    (void)advise(address, bytes, MADV_NOHUGEPAGE);
    errno = saved;
}

// Where to look first: 32..80 TiB of a 47-bit space lies clear of the kernel's own choices at both
// ends (executables near 85 TiB, libraries and stacks near 128) and leaves 2^24 places even for
// terabytes. A narrow space is scaled: all but its lowest sixteenth and its highest eighth.
static void window_for(unsigned limit_bits, uintptr_t *low, uintptr_t *high) {
    if (KERNEL_TSAN) {
        *low = (uintptr_t)0x7e8000000000;
        *high = (uintptr_t)0x7ee000000000;
    } else if (limit_bits >= WIDE_BITS) {
        *low = (uintptr_t)32 << 40;
        *high = (uintptr_t)80 << 40;
    } else {
        uintptr_t limit = (uintptr_t)1 << limit_bits;
        *low = limit >> 4;
        *high = limit - (limit >> 3);
    }
}

// P-BASE
static uintptr_t random_place(uintptr_t low, uintptr_t high, size_t bytes, size_t align) {
    uint64_t draw;
    uintptr_t first = align_up(low, align);
    if (high < first || high - first < bytes) {
        return 0;
    }
    uint64_t places = (high - first - bytes) / align + 1;
    random_seed_bytes(&draw, sizeof(draw));
    // The bias of the remainder is below 2^-28: there are at most 2^36 places.
    return first + (uintptr_t)(draw % places) * align;
}

// ---- ranges that are only chosen --------------------------------------------------------------
//
// Nothing in the kernel keeps these apart: Firn's own data would come to lie between user data, and
// each would find the other in its way. So they are written down. Without a lock, because callers hold
// locks of different ranks: of two threads that choose at the same time, at least one sees the other's
// choice, since each publishes its own before it looks. A child forked meanwhile inherits a choice
// that is nobody's: lost address space.

enum { CHOICES = 96, CHOICE_TAKEN = 1, CHOICE_DRAWS = 64 };

struct choice {
    _Atomic uintptr_t base; // 0: unused; CHOICE_TAKEN: somebody is about to choose
    _Atomic size_t bytes;   // set before `base`
};
static struct choice choices[CHOICES];

static bool is_clear_of_choices(const struct choice *mine, uintptr_t base, size_t bytes) {
    for (unsigned i = 0; i < CHOICES; i++) {
        // seq_cst: pairs with the store in choose_clear, see above.
        uintptr_t other = atomic_load_explicit(&choices[i].base, memory_order_seq_cst);
        size_t other_bytes = atomic_load_explicit(&choices[i].bytes, memory_order_relaxed);
        if (&choices[i] != mine && other > CHOICE_TAKEN && base < other + other_bytes &&
            other < base + bytes) {
            return false;
        }
    }
    return true;
}

// NULL when there is no place left to write a choice down: it is then only kept apart from others.
static struct choice *take_choice(void) {
    for (unsigned i = 0; i < CHOICES; i++) {
        uintptr_t none = 0;
        if (atomic_compare_exchange_strong_explicit(&choices[i].base, &none, CHOICE_TAKEN,
                                                    memory_order_relaxed, memory_order_relaxed)) {
            return &choices[i];
        }
    }
    return NULL;
}

static void set_choice(struct choice *c, uintptr_t base, size_t bytes) {
    if (c != NULL) {
        atomic_store_explicit(&c->bytes, bytes, memory_order_relaxed);
        atomic_store_explicit(&c->base, base, memory_order_seq_cst);
    }
}

// A random place clear of all choices, published as `c`, unless that is NULL; 0 if none was found.
static uintptr_t choose_clear(struct choice *c, size_t bytes, size_t align, unsigned limit_bits) {
    uintptr_t low, high;
    window_for(limit_bits, &low, &high);
    for (unsigned i = 0; i < CHOICE_DRAWS; i++) {
        uintptr_t base = random_place(low, high, bytes, align);
        if (base == 0) {
            break;
        }
        set_choice(c, base, bytes);
        if (is_clear_of_choices(c, base, bytes)) {
            return base;
        }
    }
    return 0;
}

static bool place_in_window(struct reservation *r, size_t bytes, size_t align,
                            unsigned limit_bits) {
    for (unsigned i = 0; i < PLACE_TRIES; i++) {
        // Clear of choices first: where these take half of what there is, PLACE_TRIES draws alone would
        // all be in vain once in some hundred.
        uintptr_t base = choose_clear(NULL, bytes, align, limit_bits);
        if (base == 0) {
            return false;
        }
        if (map_if_free(base, bytes, PROT_NONE)) {
            r->base = base;
            return true;
        }
    }
    return false;
}

// Wherever the kernel likes: more than needed is mapped, and what sticks out is given back.
static bool place_anywhere(struct reservation *r, size_t bytes, size_t align, unsigned limit_bits) {
    size_t mapped;
    if (KERNEL_TSAN || __builtin_add_overflow(bytes, align - FIRN_PAGE, &mapped)) {
        errno = ENOMEM;
        return false;
    }
    void *p = map(0, mapped, PROT_NONE, 0);
    if (p == MAP_FAILED) {
        return false;
    }
    uintptr_t start = (uintptr_t)p;
    uintptr_t base = align_up(start, align);
    if ((base + bytes) >> limit_bits != 0 || !is_clear_of_choices(NULL, base, bytes)) {
        unmap(start, mapped);
        errno = ENOMEM;
        return false;
    }
    unmap(start, base - start);
    unmap(base + bytes, start + mapped - (base + bytes));
    r->base = base;
    return true;
}

// The ends are tried, so that a place in use is not chosen; what lies between is found out piece by
// piece, as map_commit refuses what is taken.
static bool are_ends_free(uintptr_t base, size_t bytes) {
    if (!map_if_free(base, FIRN_PAGE, PROT_NONE)) {
        return false;
    }
    uintptr_t last = base + bytes - FIRN_PAGE;
    bool is_free = last == base || map_if_free(last, FIRN_PAGE, PROT_NONE);
    unmap(base, FIRN_PAGE);
    if (is_free && last != base) {
        unmap(last, FIRN_PAGE);
    }
    return is_free;
}

static bool place_sparse(struct reservation *r, size_t bytes, size_t align, unsigned limit_bits) {
    struct choice *c = take_choice();
    for (unsigned i = 0; i < PLACE_TRIES; i++) {
        uintptr_t base = choose_clear(c, bytes, align, limit_bits);
        if (base == 0) {
            break;
        }
        if (are_ends_free(base, bytes)) {
            r->base = base;
            return true;
        }
    }
    set_choice(c, 0, 0);
    errno = ENOMEM;
    return false;
}

bool map_reserve(struct reservation *r, size_t bytes, size_t align, unsigned limit_bits,
                 bool sparse) {
    FIRN_ENSURE(bytes > 0 && align_is_aligned(bytes, FIRN_PAGE));
    FIRN_ENSURE(align_is_power(align) && align >= FIRN_PAGE && limit_bits < 64);
    r->bytes = bytes;
    r->is_sparse = sparse;
    if (sparse) {
        return place_sparse(r, bytes, align, limit_bits);
    }
    if (!place_in_window(r, bytes, align, limit_bits) &&
        !place_anywhere(r, bytes, align, limit_bits)) {
        return false;
    }
    advise_idle(r->base, bytes);
    return true;
}

void map_unreserve(const struct reservation *r) {
    int saved = errno;
    for (unsigned i = 0; r->is_sparse && i < CHOICES; i++) {
        if (atomic_load_explicit(&choices[i].base, memory_order_relaxed) == r->base) {
            set_choice(&choices[i], 0, 0);
        }
    }
    if (!r->is_sparse) {
        unmap(r->base, r->bytes);
    }
    errno = saved;
}

static void ensure_inside(const struct reservation *r, uintptr_t address, size_t bytes) {
    FIRN_ENSURE(align_is_aligned(address | bytes, FIRN_PAGE) && bytes > 0);
    FIRN_ENSURE(address >= r->base && address - r->base <= r->bytes);
    FIRN_ENSURE(bytes <= r->bytes - (address - r->base));
}

void map_begin_sparse(struct reservation *r) {
    set_choice(take_choice(), r->base, r->bytes);
    r->is_sparse = true;
}

// Refused only where it would split a mapping and there may be no more of them. What is given up lies
// between what is committed, so that it is a mapping of its own, or the end of one.
void map_give_up(const struct reservation *r, uintptr_t from, uintptr_t until) {
    int saved = errno;
    if (from < until) {
        ensure_inside(r, from, until - from);
        unmap(from, until - from);
    }
    errno = saved;
}

bool map_commit(const struct reservation *r, uintptr_t address, size_t bytes) {
    ensure_inside(r, address, bytes);
    if (r->is_sparse) {
        if (!map_if_free(address, bytes, READ_WRITE)) {
            return false;
        }
        advise_in_use(address, bytes);
        return true;
    }
    if (!protect(address, bytes, READ_WRITE)) {
        return false;
    }
    int saved = errno;
    (void)advise(address, bytes, MADV_DODUMP); // a core dump without the heap helps nobody
    errno = saved;
    return true;
}

// An older kernel drops no locked page (mlockall): it is unlocked for the moment. Afterwards what is
// touched again is locked again, as the program asked.
static bool drop_locked(uintptr_t address, size_t bytes) {
    if (munlock((void *)address, bytes) != 0) {
        return false;
    }
    bool is_dropped = advise(address, bytes, MADV_DONTNEED);
    (void)mlock2((void *)address, bytes, MLOCK_ONFAULT);
    return is_dropped;
}

static bool drop(uintptr_t address, size_t bytes) {
    return advise(address, bytes, MADV_DONTNEED) || advise(address, bytes, MADV_DONTNEED_LOCKED) ||
           (errno == EINVAL && drop_locked(address, bytes));
}

// Where nothing helps (a filter installed later forbids the calls), the promise of zeros is kept by
// hand and the pages stay.
void map_purge(uintptr_t address, size_t bytes) {
    int saved = errno;
    if (bytes > 0 && !drop(address, bytes)) {
        memset((void *)address, 0, bytes);
    }
    errno = saved;
}

// For a range that could not be replaced and is still mapped: commit promises zeros and no guards.
static void clear_in_place(uintptr_t address, size_t bytes) {
    bool is_open = !caps_has(CAP_GUARD_MARKER) || advise(address, bytes, MADV_GUARD_REMOVE);
    is_open = protect(address, bytes, READ_WRITE) && is_open;
    if (!drop(address, bytes) && is_open) {
        memset((void *)address, 0, bytes);
    }
}

// A fresh PROT_NONE mapping instead of mprotect: only a mapping that goes away takes its commit
// charge with it.
void map_decommit(const struct reservation *r, uintptr_t address, size_t bytes) {
    int saved = errno;
    ensure_inside(r, address, bytes);
    (void)guard_forget(address, bytes);
    if (r->is_sparse) {
        // A munmap that is refused (it would split a VMA too many) leaves a range that cannot be
        // committed again: lost address space, which there is enough of.
        if (!unmap(address, bytes)) {
            (void)drop(address, bytes);
        }
    } else if (remap(address, bytes, PROT_NONE)) {
        advise_idle(address, bytes);
    } else {
        clear_in_place(address, bytes);
    }
    errno = saved;
}

// Of one page the call costs more than the fault.
void map_populate(uintptr_t address, size_t bytes) {
    int saved = errno;
    if (bytes > FIRN_PAGE && caps_has(CAP_POPULATE)) {
        (void)advise(address, bytes, MADV_POPULATE_WRITE);
    }
    errno = saved;
}

bool map_populate_zero(uintptr_t address, size_t bytes) {
    int saved = errno;
    bool is_done = advise(address, bytes, MADV_POPULATE_READ);
    errno = saved;
    return is_done;
}

// EINVAL: what is there is not to be read.
bool map_is_missing(uintptr_t address, size_t bytes) {
    int saved = errno;
    bool is_missing = !advise(address, bytes, MADV_POPULATE_READ) && errno == EFAULT;
    errno = saved;
    return is_missing;
}

// Marker guards need no record. Where the kernel refuses one (locked memory), mprotect may do.
bool map_mark_guards(uintptr_t address, size_t bytes) {
    return caps_has(CAP_GUARD_MARKER) && advise(address, bytes, MADV_GUARD_INSTALL);
}

bool map_unmark_guards(uintptr_t address, size_t bytes) {
    return !caps_has(CAP_GUARD_MARKER) || advise(address, bytes, MADV_GUARD_REMOVE);
}

bool map_guard(uintptr_t address, size_t bytes) {
    if (map_mark_guards(address, bytes)) {
        return true;
    }
    if (!guard_note(address)) {
        errno = ENOMEM;
        return false;
    }
    map_purge(address, bytes);
    if (protect(address, bytes, PROT_NONE)) {
        return true;
    }
    int why = errno;
    (void)guard_forget(address, FIRN_PAGE);
    errno = why;
    return false;
}

bool map_unguard(uintptr_t address, size_t bytes) {
    if (!map_unmark_guards(address, bytes)) {
        return false;
    }
    if (guard_is_in(address, bytes)) {
        if (!protect(address, bytes, READ_WRITE)) {
            return false;
        }
        (void)guard_forget(address, bytes);
    }
    return true;
}

// The kernel empties `to` before it looks at `from`: whatever it then finds wrong leaves a hole.
bool map_move(uintptr_t from, uintptr_t to, size_t bytes) {
    if (!caps_has(CAP_MREMAP_KEEP)) {
        errno = ENOSYS;
        return false;
    }
    int flags = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
    void *p = sys_may_call() ? mremap((void *)from, bytes, bytes, flags, (void *)to) : MAP_FAILED;
    if (p != MAP_FAILED) {
        FIRN_ENSURE((uintptr_t)p == to);
        return true;
    }
    int why = errno;
    if (map_if_free(to, bytes, READ_WRITE)) {
        advise_in_use(to, bytes);
    }
    errno = why;
    return false;
}

bool map_renew(const struct reservation *r, uintptr_t address, size_t bytes) {
    ensure_inside(r, address, bytes);
    if (!remap(address, bytes, READ_WRITE)) {
        return false;
    }
    (void)guard_forget(address, bytes);
    advise_in_use(address, bytes);
    return true;
}

// A range of several mappings may be refused half-way: what was done is undone.
bool map_deny_writes(uintptr_t address, size_t bytes) {
    if (protect(address, bytes, PROT_READ)) {
        return true;
    }
    map_allow_writes(address, bytes);
    return false;
}

bool map_deny_all(uintptr_t address, size_t bytes) {
    if (protect(address, bytes, PROT_NONE)) {
        return true;
    }
    map_allow_writes(address, bytes);
    return false;
}

bool map_allow_writes(uintptr_t address, size_t bytes) {
    int saved = errno;
    bool is_done = protect(address, bytes, READ_WRITE);
    errno = saved;
    return is_done;
}

// A VMA too many: the protection is done without, as guards are.
void map_make_readonly(uintptr_t address, size_t bytes) {
    int saved = errno;
    (void)protect(address, bytes, PROT_READ);
    errno = saved;
}

// Gives a boundary up rather than needing one, so that it cannot fail for want of VMAs.
void map_make_writable(uintptr_t address, size_t bytes) {
    int saved = errno;
    FIRN_ENSURE(protect(address, bytes, READ_WRITE));
    errno = saved;
}

bool map_wipe_on_fork(uintptr_t address, size_t bytes) {
    if (!caps_has(CAP_WIPE_ON_FORK)) {
        errno = ENOSYS;
        return false;
    }
    return advise(address, bytes, MADV_WIPEONFORK);
}

bool map_exclude_from_dump(uintptr_t address, size_t bytes) {
    return advise(address, bytes, MADV_DONTDUMP);
}

bool map_find_resident(uintptr_t address, size_t bytes, unsigned char *residence) {
    int saved = errno;
    bool is_known = caps_has(CAP_RESIDENCE) && mincore((void *)address, bytes, residence) == 0;
    errno = saved;
    return is_known;
}

size_t map_guard_vmas(void) {
    return guard_vmas();
}

size_t map_guard_vma_budget(void) {
    return guard_vma_budget();
}
