// The blob decoder: any bytes at all are a page or a refusal, and what the packer makes is always a page.
//
// Input: what to do (1 byte), codec (1 byte), then bytes. Even: they are given to the decoder, in memory where
// a byte beyond PACK_SLACK faults, cut short at each end and with bits changed; what it says must not
// depend on what stands behind them, or on what was decoded before. Odd: they are a page, or the first part of one.
#include "src/cold/pack.h"
#include "fuzz/fuzz.h"

#include <string.h>
#include <sys/mman.h>

enum { MARK = 0x77, MOST = PACK_MOST };

static void *packer, *opener;
static uint8_t *edge; // a page that nobody may read begins here

static void *map_bytes(size_t n) {
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    FUZZ_ENSURE(p != MAP_FAILED);
    return p;
}

static void start(void) {
    if (edge == NULL) {
        uint8_t *pages = map_bytes((size_t)3 * FIRN_PAGE);
        FUZZ_ENSURE(mprotect(pages + 2 * FIRN_PAGE, FIRN_PAGE, PROT_NONE) == 0);
        packer = map_bytes(pack_compressor_bytes());
        opener = map_bytes(pack_decompressor_bytes());
        pack_make_compressor(packer);
        pack_make_decompressor(opener);
        edge = pages + 2 * FIRN_PAGE;
    }
}

struct opened {
    bool is_page;
    uint8_t page[FIRN_PAGE + 8];
};

static void open_bytes(const uint8_t *bytes, size_t n, unsigned codec, uint8_t behind,
                       struct opened *out) {
    uint8_t *at = edge - PACK_SLACK - n;
    memcpy(at, bytes, n);
    memset(at + n, behind, PACK_SLACK);
    memset(out->page, MARK, sizeof out->page);
    out->is_page = pack_open(opener, codec, at, n, out->page);
    FUZZ_ENSURE(memcmp(at, bytes, n) == 0);
    for (unsigned i = FIRN_PAGE; i < sizeof out->page; i++) {
        FUZZ_ENSURE(out->page[i] == MARK);
    }
}

// A page that is known, and back: the decoder kept nothing of what it was given before.
static void check_it_still_works(void) {
    static const char text[] = "the quick brown fox jumps over the lazy dog ";
    static uint8_t page[FIRN_PAGE], packed[MOST];
    static struct opened again;
    for (unsigned i = 0; i < FIRN_PAGE; i++) {
        page[i] = (uint8_t)text[(i + i / 100) % (sizeof text - 1)];
    }
    struct packed p = pack_page(packer, PACK_FAST, page, packed);
    FUZZ_ENSURE(p.bytes > 0);
    open_bytes(packed, p.bytes, p.codec, 0, &again);
    FUZZ_ENSURE(again.is_page && memcmp(again.page, page, FIRN_PAGE) == 0);
}

static void decode(const uint8_t *bytes, size_t n, unsigned codec) {
    static struct opened first, second;
    open_bytes(bytes, n, codec, 0, &first);
    open_bytes(bytes, n, codec, 0xff, &second);
    FUZZ_ENSURE(first.is_page == second.is_page);
    FUZZ_ENSURE(!first.is_page || memcmp(first.page, second.page, FIRN_PAGE) == 0);
    FUZZ_ENSURE(!first.is_page || codec < PACK_CODECS);
    for (size_t less = 1; less < 8 && less <= n; less++) {
        open_bytes(bytes, n - less, codec, 0, &second);
        open_bytes(bytes + less, n - less, codec, 0, &second);
    }
    check_it_still_works();
}

static void round_trip(const uint8_t *bytes, size_t n) {
    static uint8_t page[FIRN_PAGE], packed[MOST];
    static struct opened again;
    uint8_t byte;
    memset(page, n > 0 ? bytes[0] : 0, sizeof page);
    memcpy(page, bytes, n < FIRN_PAGE ? n : FIRN_PAGE);
    bool is_uniform = true;
    for (unsigned i = 1; i < FIRN_PAGE; i++) {
        is_uniform &= page[i] == page[0];
    }
    FUZZ_ENSURE(pack_is_uniform(page, &byte) == is_uniform && (!is_uniform || byte == page[0]));
    for (unsigned effort = PACK_FAST; effort <= PACK_DEEP; effort++) {
        struct packed p = pack_page(packer, (enum pack_effort)effort, page, packed);
        FUZZ_ENSURE(p.bytes <= MOST && p.codec < PACK_CODECS);
        if (p.bytes > 0) {
            open_bytes(packed, p.bytes, p.codec, 0x28, &again); // a magic number's first byte
            FUZZ_ENSURE(again.is_page && memcmp(again.page, page, FIRN_PAGE) == 0);
        }
    }
}

int firn_fuzz_pack(const uint8_t *data, size_t size) {
    struct input in = {data, size};
    start();
    unsigned what = input_u8(&in);
    unsigned codec = input_u8(&in) % 3;
    if (what % 2 != 0) {
        round_trip(in.at, in.left);
    } else {
        decode(in.at, in.left < MOST ? in.left : MOST, codec);
    }
    return 0;
}
