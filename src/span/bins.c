// Best fit by bins, with a random choice among equals: a program that frees and allocates one size
// cannot tell which of its old addresses it gets back.
#include "src/span/bins.h"

#include "src/base/fatal.h"
#include "src/span/run.h"

enum {
    BINS_SUB_BITS = 3,
    BINS_SCAN = 16,  // entries looked at in one bin: the price of a request stays bounded
    BINS_CHOICES = 8 // fitting runs drawn from; a power of two is not needed
};

// Pages 1..7 have a bin each; above, eight bins for each power of two.
static unsigned bins_index(size_t bytes) {
    size_t pages = bytes >> FIRN_PAGE_SHIFT;
    if (pages < (1u << BINS_SUB_BITS)) {
        return (unsigned)pages;
    }
    unsigned log = 63u - (unsigned)__builtin_clzll(pages);
    unsigned sub = (unsigned)(pages >> (log - BINS_SUB_BITS)) & ((1u << BINS_SUB_BITS) - 1);
    unsigned index = ((log - BINS_SUB_BITS + 1) << BINS_SUB_BITS) + sub;
    return index < BINS_COUNT ? index : BINS_COUNT - 1;
}

void bins_insert(struct bins *bins, struct run *run) {
    unsigned index = bins_index(run_body_bytes(run));
    struct run *head = bins->heads[index];
    run->bin = (uint16_t)index;
    run->prev = NULL;
    run->next = head;
    if (head != NULL) {
        head->prev = run;
    }
    bins->heads[index] = run;
    bins->used[index / 64] |= UINT64_C(1) << (index % 64);
    bins->runs++;
    bins->bytes += run_body_bytes(run);
}

void bins_remove(struct bins *bins, struct run *run) {
    unsigned index = run->bin;
    if (run->prev != NULL) {
        FIRN_ENSURE(run->prev->next == run);
        run->prev->next = run->next;
    } else {
        FIRN_ENSURE(bins->heads[index] == run);
        bins->heads[index] = run->next;
        if (run->next == NULL) {
            bins->used[index / 64] &= ~(UINT64_C(1) << (index % 64));
        }
    }
    if (run->next != NULL) {
        FIRN_ENSURE(run->next->prev == run);
        run->next->prev = run->prev;
    }
    run->prev = run->next = NULL;
    bins->runs--;
    bins->bytes -= run_body_bytes(run);
}

// The first bin at or after `index` that is not empty; BINS_COUNT if there is none.
static unsigned bins_next_used(const struct bins *bins, unsigned index) {
    unsigned word = index / 64;
    uint64_t bits = word < BINS_COUNT / 64 ? bins->used[word] & (~UINT64_C(0) << (index % 64)) : 0;
    while (bits == 0) {
        if (++word >= BINS_COUNT / 64) {
            return BINS_COUNT;
        }
        bits = bins->used[word];
    }
    return word * 64 + (unsigned)__builtin_ctzll(bits);
}

static bool bins_run_fits(const struct run *run, size_t bytes, size_t align) {
    uintptr_t object = (run->body + align - 1) & ~(align - 1);
    return object < run->end && run->end - object >= bytes;
}

struct run *bins_fit(const struct bins *bins, size_t bytes, size_t align, size_t most,
                     struct random_stream *random) {
    unsigned last = bins_index(most);
    unsigned index = bins_next_used(bins, bins_index(bytes));
    while (index <= last && index < BINS_COUNT) {
        struct run *fitting[BINS_CHOICES];
        unsigned found = 0;
        struct run *run = bins->heads[index];
        for (unsigned i = 0; i < BINS_SCAN && run != NULL && found < BINS_CHOICES; i++) {
            if (run_body_bytes(run) <= most && bins_run_fits(run, bytes, align)) {
                fitting[found++] = run;
            }
            run = run->next;
        }
        if (found > 0) {
            // 256 is a multiple of most counts; for the others the bias is below 3 %.
            return fitting[found == 1 ? 0 : random_u8(random) % found];
        }
        index = bins_next_used(bins, index + 1);
    }
    return NULL;
}
