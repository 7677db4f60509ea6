// What is not there reads as zeros, unless the kernel moved it to swap: then it has to go, too. Few
// stretches of absent pages are given back one by one; of many, all pages are, those that are there
// included.
#include "src/span/retire.h"

#include "src/meta/page_state.h"
#include "src/os/map.h"

#include <string.h>

enum {
    RETIRE_PAGES = 512, // asked about in one call
    RETIRE_STRETCHES = 8,
    RETIRE_BLIND = 64 // more than these are given back where nobody says which are there
};

// Pages from `at` on that are alike.
static size_t stretch(const unsigned char *residence, size_t at, size_t pages) {
    size_t end = at + 1;
    while (end < pages && ((residence[end] ^ residence[at]) & 1) == 0) {
        end++;
    }
    return end - at;
}

static unsigned count_absent(const unsigned char *residence, size_t pages) {
    unsigned n = 0;
    for (size_t at = 0; at < pages; at += stretch(residence, at, pages)) {
        n += (residence[at] & 1) == 0;
    }
    return n;
}

static void zero(uintptr_t at, size_t bytes) {
    memset((void *)at, 0, bytes); // NOLINT(performance-no-int-to-ptr)
}

static bool wipe_chunk(uintptr_t from, size_t pages) {
    unsigned char residence[RETIRE_PAGES];
    if (!map_find_resident(from, pages * FIRN_PAGE, residence)) {
        if (pages > RETIRE_BLIND) {
            page_state_purge(from, pages * FIRN_PAGE);
            return false;
        }
        zero(from, pages * FIRN_PAGE);
        return true;
    }
    unsigned absent = count_absent(residence, pages);
    if (absent > RETIRE_STRETCHES) {
        page_state_purge(from, pages * FIRN_PAGE);
        return false;
    }
    for (size_t at = 0, n; at < pages; at += n) {
        n = stretch(residence, at, pages);
        if ((residence[at] & 1) != 0) {
            zero(from + at * FIRN_PAGE, n * FIRN_PAGE);
        } else {
            page_state_purge(from + at * FIRN_PAGE, n * FIRN_PAGE);
        }
    }
    return absent == 0;
}

static size_t chunk_pages(uintptr_t from, uintptr_t to) {
    size_t pages = (to - from) / FIRN_PAGE;
    return pages < RETIRE_PAGES ? pages : RETIRE_PAGES;
}

bool retire_wipe(uintptr_t from, uintptr_t to, bool is_resident) {
    if (is_resident) {
        zero(from, to - from);
        return true;
    }
    bool are_all_resident = true;
    for (size_t n; from < to; from += n * FIRN_PAGE) {
        n = chunk_pages(from, to);
        are_all_resident &= wipe_chunk(from, n);
    }
    return are_all_resident;
}

typedef uint64_t lanes __attribute__((vector_size(64), may_alias));

// Each byte is loaded once, and there is one branch for 512 of them; only what is found is looked for byte by
// byte. (memcmp of a block with itself, some bytes further on, loads everything twice: half the speed.)
static size_t find_in(uintptr_t from, size_t bytes) {
    const unsigned char *p = (const unsigned char *)from; // NOLINT(performance-no-int-to-ptr)
    size_t at = 0;
    for (; at < bytes; at += 8 * sizeof(lanes)) {
        const lanes *l = (const lanes *)(const void *)(p + at);
        lanes any = ((l[0] | l[1]) | (l[2] | l[3])) | ((l[4] | l[5]) | (l[6] | l[7]));
        if (((any[0] | any[1]) | (any[2] | any[3]) | (any[4] | any[5]) | (any[6] | any[7])) != 0) {
            break;
        }
    }
    while (at < bytes && p[at] == 0) {
        at++;
    }
    return at;
}

size_t retire_find_change(uintptr_t from, size_t bytes, bool is_resident) {
    unsigned char residence[RETIRE_PAGES];
    if (is_resident) {
        return find_in(from, bytes);
    }
    uintptr_t to = from + bytes;
    size_t pages;
    for (uintptr_t chunk = from; chunk < to; chunk += pages * FIRN_PAGE) {
        pages = chunk_pages(chunk, to);
        if (!map_find_resident(chunk, pages * FIRN_PAGE, residence)) {
            memset(residence, 1, pages);
        }
        for (size_t at = 0, n; at < pages; at += n) {
            n = stretch(residence, at, pages);
            uintptr_t here = chunk + at * FIRN_PAGE;
            size_t found = (residence[at] & 1) != 0 ? find_in(here, n * FIRN_PAGE) : n * FIRN_PAGE;
            if (found < n * FIRN_PAGE) {
                return here + found - from;
            }
        }
    }
    return bytes;
}
