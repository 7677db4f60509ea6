#include "src/cold/store.h"

#include "src/base/align.h"
#include "src/base/config.h"
#include "src/base/fatal.h"
#include "src/cold/desk.h"
#include "src/cold/pack.h"
#include "src/cold/seal.h"
#include "src/cold/shelf.h"
#include "src/os/caps.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

enum { SHELVES = COLD_STORE_SHELVES, MOST_SHIFT = 18, LEAST_SHIFT = 8, SPARSE_SHIFT = 12 };

static struct {
    _Atomic bool is_started;
    struct shelf shelves[SHELVES];
    enum seal_mode seal;
    uint64_t most_bytes; // 0: no cap
    // Statistics, and what the cap is compared with: relaxed.
    _Atomic uint64_t bytes, uniform, puts, gets, drops, poor, full;
    _Atomic uint64_t unsealed; // numbers blobs where there is no seal
} store = {
    .shelves = {SHELF_UNMADE, SHELF_UNMADE, SHELF_UNMADE, SHELF_UNMADE, SHELF_UNMADE, SHELF_UNMADE,
                SHELF_UNMADE, SHELF_UNMADE},
    .seal = FIRN_SEAL,
};

static void add(_Atomic uint64_t *f, uint64_t n) {
    atomic_fetch_add_explicit(f, n, memory_order_relaxed);
}

static uint64_t figure(_Atomic uint64_t *f) {
    return atomic_load_explicit(f, memory_order_relaxed);
}

// P-COLD-SEAL
static FIRN_NORETURN FIRN_COLD void die(enum fatal_id id, uintptr_t page, const char *found) {
    struct fatal_info info = {.api = "thaw",
                              .address = page,
                              .class_bytes = FATAL_CLASS_NONE,
                              .size = FATAL_SIZE_UNKNOWN,
                              .found = found};
    fatal(id, &info);
}

// ---- names: what a struct cold_blob says ------------------------------------------------------
//
// kind (2 bits) | check (32) | shelf (3) | record (27): a blob; `check` is the end of its nonce, so that
// a name outlives its blob by accident only.
// kind (2 bits) | digest (48) | 0 (6) | byte (8): a page of one byte.

enum { NAME_BLOB = 1, NAME_UNIFORM = 2 };
enum { KIND_SHIFT = 62, CHECK_SHIFT = 30, DIGEST_SHIFT = 14 };
_Static_assert(SHELVES == 1 << (CHECK_SHIFT - SHELF_RECORD_BITS),
               "a shelf's number has three bits");

struct name {
    unsigned kind;
    uint32_t check;
    struct shelf *shelf;
    uint32_t record;
};

static struct cold_blob name_of(unsigned shelf, uint32_t record, uint64_t nonce) {
    uint64_t place = (uint64_t)shelf << SHELF_RECORD_BITS | record;
    uint64_t check = nonce & UINT32_MAX;
    return (struct cold_blob){(uint64_t)NAME_BLOB << KIND_SHIFT | check << CHECK_SHIFT | place};
}

static struct name read_name(struct cold_blob blob) {
    struct name n;
    n.kind = (unsigned)(blob.word >> KIND_SHIFT);
    n.check = (uint32_t)(blob.word >> CHECK_SHIFT);
    n.shelf = &store.shelves[blob.word >> SHELF_RECORD_BITS & (SHELVES - 1)];
    n.record = (uint32_t)blob.word & ((1u << SHELF_RECORD_BITS) - 1);
    return n;
}

static struct cold_blob uniform_name(uintptr_t page, uint32_t generation, uint8_t byte) {
    uint64_t digest = seal_digest(page, generation, byte);
    return (struct cold_blob){(uint64_t)NAME_UNIFORM << KIND_SHIFT | digest << DIGEST_SHIFT | byte};
}

// Pages near each other share a shelf, so that a small heap fills one or two.
static unsigned shelf_for(uintptr_t page) {
    enum { CHUNK_SHIFT = 21 };
    return (unsigned)(page >> CHUNK_SHIFT) % SHELVES;
}

// ---- what stands in a blob's head: codec, and how many bytes of padding ------------------------

enum { PAD_BITS = 3 };
_Static_assert(SHELF_GRANULE == 1 << PAD_BITS, "less than a granule of padding");

static size_t tag_bytes(void) {
    return store.seal == SEAL_OFF ? 0 : SEAL_TAG;
}

_Static_assert((int)PACK_MOST + PACK_SLACK <= FIRN_PAGE + SEAL_TAG,
               "pack_open may look behind a blob");

// Nonce, bytes, tag: as they stand in struct seal_blob.
static size_t stored_bytes(const struct seal_blob *b) {
    return sizeof b->bound.nonce + b->bound.bytes + tag_bytes();
}

static uint16_t kind_of(const struct seal_blob *b) {
    size_t n = stored_bytes(b);
    size_t pad = align_up(n, SHELF_GRANULE) - n;
    return (uint16_t)((size_t)b->bound.codec << PAD_BITS | pad);
}

static bool are_zeros(const uint8_t *bytes, size_t n) {
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++) {
        any |= bytes[i];
    }
    return any == 0;
}

// False when the head contradicts itself, or what follows the blob.
static bool load(struct seal_blob *b, const struct shelf_head *h) {
    size_t n = (size_t)h->granules * SHELF_GRANULE - sizeof *h;
    size_t least = sizeof b->bound.nonce + tag_bytes() + SHELF_GRANULE;
    if (n < least || n > least + PACK_MOST) {
        return false;
    }
    size_t pad = h->kind & (SHELF_GRANULE - 1);
    n -= pad;
    b->bound.bytes = (uint16_t)(n - sizeof b->bound.nonce - tag_bytes());
    b->bound.codec = (uint8_t)(h->kind >> PAD_BITS);
    memcpy(&b->bound.nonce, h + 1, n);
    return h->kind >> PAD_BITS < PACK_CODECS && are_zeros((const uint8_t *)(h + 1) + n, pad);
}

static void bind(struct seal_blob *b, uintptr_t page, uint32_t generation) {
    b->bound.address = page;
    b->bound.generation = generation;
    b->bound.mode = (uint8_t)store.seal;
}

// ---- start ------------------------------------------------------------------------------------

void cold_store_choose(unsigned seal, uint64_t most_bytes) {
    if (seal > (unsigned)store.seal && seal <= SEAL_AEAD) {
        store.seal = (enum seal_mode)seal;
    }
    store.most_bytes = most_bytes;
}

static bool reserve(struct reservation *range, unsigned shift, bool sparse) {
    unsigned limit_bits = caps_has(CAP_WIDE_ADDRESS) ? 47 : 39;
    size_t bytes = align_up(shelf_bytes(1u << shift), FIRN_PAGE) * SHELVES;
    return map_reserve(range, bytes, FIRN_PAGE, limit_bits, sparse);
}

static bool make_shelves(void) {
    struct reservation range;
    bool is_reserved = false;
    unsigned shift = MOST_SHIFT + 1;
    while (caps_has(CAP_RESERVE) && !is_reserved && shift > LEAST_SHIFT) {
        is_reserved = reserve(&range, --shift, false);
    }
    for (shift = is_reserved ? shift : SPARSE_SHIFT + 1; !is_reserved && shift > LEAST_SHIFT;) {
        is_reserved = reserve(&range, --shift, true);
    }
    if (!is_reserved) {
        return false;
    }
    size_t each = range.bytes / SHELVES;
    for (unsigned i = 0; i < SHELVES; i++) {
        struct reservation own = {range.base + i * each, each, range.is_sparse};
        shelf_make(&store.shelves[i], &own, 1u << shift, store.seal == SEAL_OFF);
    }
    return true;
}

bool cold_store_start(void) {
    static bool has_desks, has_key;
    int saved = errno;
    if (atomic_load_explicit(&store.is_started, memory_order_acquire)) {
        return true;
    }
    has_desks = has_desks || desk_start();
    has_key = has_key || store.seal == SEAL_OFF || (has_desks && seal_start());
    bool is_done = has_desks && has_key && make_shelves();
    // Release: who sees it sees the rest.
    atomic_store_explicit(&store.is_started, is_done, memory_order_release);
    errno = saved;
    return is_done;
}

struct shelf *cold_store_shelf(unsigned number) {
    return &store.shelves[number];
}

// ---- put --------------------------------------------------------------------------------------

static bool draw_nonce(uint64_t *nonce) {
    if (store.seal != SEAL_OFF) {
        return seal_draw(nonce);
    }
    *nonce = atomic_fetch_add_explicit(&store.unsealed, 1, memory_order_relaxed);
    return true;
}

static bool is_over_cap(size_t more) {
    return store.most_bytes != 0 && figure(&store.bytes) + more > store.most_bytes;
}

static enum cold_put shelve(uintptr_t page, const struct seal_blob *b, struct cold_blob *out) {
    unsigned number = shelf_for(page);
    struct shelf *shelf = &store.shelves[number];
    uint32_t record;
    size_t n = stored_bytes(b);
    if (is_over_cap(n)) {
        return COLD_FULL;
    }
    lock_acquire(&shelf->lock);
    enum shelf_result result = shelf_put(shelf, kind_of(b), &b->bound.nonce, n, &record);
    lock_release(&shelf->lock);
    if (result == SHELF_DAMAGED) {
        die(FATAL_COLD_STORE, page, "blobs that do not follow one another");
    }
    if (result == SHELF_FULL) {
        return COLD_FULL;
    }
    *out = name_of(number, record, b->bound.nonce);
    add(&store.bytes, n);
    return COLD_STORED;
}

static enum cold_put pack_and_seal(uintptr_t page_address, uint32_t generation, const void *page,
                                   struct desk *desk, struct cold_blob *out) {
    struct seal_blob *b = &desk->blob;
    struct packed packed = pack_page(desk->context, PACK_FAST, page, b->bytes);
    b->bound.bytes = packed.bytes;
    b->bound.codec = packed.codec;
    bind(b, page_address, generation);
    if (packed.bytes == 0) {
        return COLD_POOR;
    }
    if (!draw_nonce(&b->bound.nonce)) {
        return COLD_FULL;
    }
    if (store.seal != SEAL_OFF) {
        seal_close(b);
    }
    return shelve(page_address, b, out);
}

bool cold_store_is_zero(const void *page) {
    uint8_t byte;
    return pack_is_uniform(page, &byte) && byte == 0;
}

enum cold_put cold_store_put(uintptr_t page_address, uint32_t generation, const void *page,
                             struct cold_blob *out) {
    uint8_t byte;
    int saved = errno;
    enum cold_put result = COLD_STORED;
    out->word = 0;
    if (!pack_is_uniform(page, &byte)) {
        struct desk *desk = desk_take(DESK_PACKING);
        result = pack_and_seal(page_address, generation, page, desk, out);
        desk_leave(DESK_PACKING, desk);
    } else {
        *out = uniform_name(page_address, generation, byte);
        add(&store.uniform, 1);
    }
    add(result == COLD_STORED ? &store.puts : result == COLD_POOR ? &store.poor : &store.full, 1);
    errno = saved;
    return result;
}

// ---- get and drop -----------------------------------------------------------------------------

// What the store says of the name, copied out, so that nobody can change it between the seal's check and
// its use, and no lock is held for longer than a copy.
static bool fetch(const struct name *n, struct seal_blob *b) {
    bool is_whole = false;
    lock_acquire(&n->shelf->lock);
    const struct shelf_head *h = shelf_find(n->shelf, n->record);
    if (h != NULL) {
        is_whole = load(b, h);
    }
    lock_release(&n->shelf->lock);
    return is_whole && (uint32_t)b->bound.nonce == n->check;
}

static void open_blob(const struct name *n, uintptr_t page, uint32_t generation, void *out) {
    struct desk *desk = desk_take(DESK_OPENING);
    struct seal_blob *b = &desk->blob;
    if (!fetch(n, b)) {
        die(FATAL_COLD_STORE, page, "another blob, or none, at its place in the store");
    }
    bind(b, page, generation);
    // P-COLD-SEAL: nothing is done with the bytes before this.
    if (store.seal != SEAL_OFF && !seal_open(b)) {
        die(FATAL_COLD_SEAL, page, "bytes, address or generation that were not sealed together");
    }
    if (!pack_open(desk->context, b->bound.codec, b->bytes, b->bound.bytes, out)) {
        die(FATAL_COLD_STORE, page, "bytes that are no packed page");
    }
    desk_leave(DESK_OPENING, desk);
}

void cold_store_get(uintptr_t page_address, uint32_t generation, struct cold_blob blob,
                    void *page_out) {
    struct name n = read_name(blob);
    uint8_t byte = (uint8_t)blob.word;
    if (!atomic_load_explicit(&store.is_started, memory_order_acquire)) {
        die(FATAL_COLD_STORE, page_address, "no store");
    }
    if (n.kind == NAME_BLOB) {
        open_blob(&n, page_address, generation, page_out);
    } else if (blob.word == uniform_name(page_address, generation, byte).word) {
        memset(page_out, byte, FIRN_PAGE);
    } else {
        die(FATAL_COLD_STORE, page_address, "a name that no blob has");
    }
    add(&store.gets, 1);
}

void cold_store_drop(struct cold_blob blob) {
    struct name n = read_name(blob);
    struct shelf_scrap scrap;
    int saved = errno;
    add(&store.drops, 1);
    if (n.kind == NAME_UNIFORM) {
        atomic_fetch_sub_explicit(&store.uniform, 1, memory_order_relaxed);
        return;
    }
    if (n.kind != NAME_BLOB) {
        die(FATAL_COLD_STORE, 0, "a name that no blob has");
    }
    lock_acquire(&n.shelf->lock);
    const struct shelf_head *h = shelf_find(n.shelf, n.record);
    size_t bytes = 0;
    enum shelf_result result = SHELF_DAMAGED;
    if (h != NULL && h->granules > 1 && memcmp(h + 1, &n.check, sizeof n.check) == 0) {
        bytes = (size_t)h->granules * SHELF_GRANULE - sizeof *h - (h->kind & (SHELF_GRANULE - 1));
        result = shelf_drop(n.shelf, n.record, &scrap);
    }
    lock_release(&n.shelf->lock);
    if (result != SHELF_DONE) {
        die(FATAL_COLD_STORE, 0, "another blob, or none, at its place in the store");
    }
    atomic_fetch_sub_explicit(&store.bytes, bytes, memory_order_relaxed);
    shelf_give_back(n.shelf, &scrap);
    errno = saved;
}

bool cold_store_tidy(void) {
    int saved = errno;
    bool any = false;
    for (unsigned i = 0; i < SHELVES && !any; i++) {
        struct shelf *shelf = &store.shelves[i];
        struct shelf_scrap scrap = {SHELF_NONE, 0};
        enum shelf_result result = SHELF_DONE;
        if (!atomic_load_explicit(&store.is_started, memory_order_acquire)) {
            break;
        }
        lock_acquire(&shelf->lock);
        if (shelf_is_untidy(shelf)) {
            result = shelf_tidy(shelf, &scrap);
            any = result == SHELF_DONE;
        }
        lock_release(&shelf->lock);
        if (result == SHELF_DAMAGED) {
            die(FATAL_COLD_STORE, 0, "blobs that do not follow one another");
        }
        shelf_give_back(shelf, &scrap);
    }
    errno = saved;
    return any;
}

// ---- fork and figures -------------------------------------------------------------------------

// Equal ranks by rising address. What a tidying has taken out is lost to the child: 64 KiB.
void cold_store_before_fork(void) {
    for (unsigned i = 0; i < SHELVES; i++) {
        lock_acquire(&store.shelves[i].lock);
    }
    seal_before_fork();
}

void cold_store_after_fork(bool in_child) {
    seal_after_fork(in_child);
    if (in_child) {
        desk_after_fork_in_child();
    }
    for (unsigned i = SHELVES; i-- > 0;) {
        if (in_child) {
            lock_reset(&store.shelves[i].lock);
        } else {
            lock_release(&store.shelves[i].lock);
        }
    }
}

void cold_store_abandon(void) {
    if (!atomic_load_explicit(&store.is_started, memory_order_acquire)) {
        return;
    }
    seal_after_fork(true);
    desk_after_fork_in_child();
    for (unsigned i = 0; i < SHELVES; i++) {
        struct shelf *s = &store.shelves[i];
        struct reservation own = s->range;
        uint32_t blocks = s->most_blocks;
        shelf_unmake(s);
        shelf_make(s, &own, blocks, store.seal == SEAL_OFF);
    }
    _Atomic uint64_t *const figures[] = {&store.bytes, &store.uniform, &store.puts, &store.gets,
                                         &store.drops, &store.poor,    &store.full};
    for (unsigned i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        atomic_store_explicit(figures[i], 0, memory_order_relaxed);
    }
}

void cold_store_figures(struct cold_store_figures *out) {
    static const char *const seals[] = {"off", "mac", "aead"};
    memset(out, 0, sizeof *out);
    out->seal = seals[store.seal];
    if (!atomic_load_explicit(&store.is_started, memory_order_acquire)) {
        return;
    }
    for (unsigned i = 0; i < SHELVES; i++) {
        // The program's handlers may run: no lock. A figure may be a moment old.
        const struct shelf *s = &store.shelves[i];
        out->pages += __atomic_load_n(&s->count, __ATOMIC_RELAXED);
        out->resident_bytes += __atomic_load_n(&s->resident_bytes, __ATOMIC_RELAXED);
        out->index_bytes += __atomic_load_n(&s->index_bytes, __ATOMIC_RELAXED);
    }
    out->uniform_pages = figure(&store.uniform);
    out->pages += out->uniform_pages;
    out->stored_bytes = figure(&store.bytes);
    out->puts = figure(&store.puts);
    out->gets = figure(&store.gets);
    out->drops = figure(&store.drops);
    out->poor = figure(&store.poor);
    out->full = figure(&store.full);
    out->is_key_hidden = seal_is_hidden();
}
