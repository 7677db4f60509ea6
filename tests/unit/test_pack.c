// Packing: what was packed comes back, small; anything else is refused, and nothing beyond is touched.
// No allocation is made, and little of the stack is used.
// firn-test: sanitize=address wrap=malloc,calloc,realloc
#include "src/cold/pack.h"

#include "tests/support/allocations.h"
#include "tests/support/memory.h"
#include "tests/support/pages.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

static void *packer, *opener;
static unsigned char *edge; // PACK_MOST bytes end where a page nobody may read begins

static void *map_bytes(size_t n) {
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    return p;
}

static int start(void **state) {
    (void)state;
    packer = map_bytes(pack_compressor_bytes());
    opener = map_bytes(pack_decompressor_bytes());
    unsigned char *two = map_bytes(2 * FIRN_PAGE);
    assert_int_equal(mprotect(two + FIRN_PAGE, FIRN_PAGE, PROT_NONE), 0);
    edge = two + FIRN_PAGE;
    allocations_are_counted = true;
    pack_make_compressor(packer);
    pack_make_decompressor(opener);
    allocations_are_counted = false;
    assert_int_equal(allocations_seen, 0);
    return 0;
}

static struct packed pack(enum pack_effort effort, const void *page, unsigned char *out) {
    allocations_are_counted = true;
    struct packed packed = pack_page(packer, effort, page, out);
    allocations_are_counted = false;
    assert_int_equal(allocations_seen, 0);
    return packed;
}

// From a place where a byte beyond the slack would fault.
static bool reopen(unsigned codec, const unsigned char *bytes, size_t n, unsigned char *page) {
    unsigned char *edge_bytes = edge - n - PACK_SLACK;
    memcpy(edge_bytes, bytes, n);
    page[FIRN_PAGE] = 0x77;
    allocations_are_counted = true;
    bool is_good = pack_open(opener, codec, edge_bytes, n, page);
    allocations_are_counted = false;
    assert_int_equal(allocations_seen, 0);
    assert_int_equal(page[FIRN_PAGE], 0x77);
    return is_good;
}

// What each kind may take at most, as bytes of 4096: a margin beyond what was measured.
static const unsigned most[PAGES_RANDOM] = {800, 2100, 2100, 3000};

static void comes_back_and_is_small(void **state) {
    (void)state;
    unsigned char page[FIRN_PAGE], out[PACK_MOST], again[FIRN_PAGE + 1];
    for (unsigned effort = PACK_FAST; effort <= PACK_DEEP; effort++) {
        for (unsigned kind = 0; kind < PAGES_RANDOM; kind++) {
            unsigned long total = 0;
            for (unsigned i = 0; i < 50; i++) {
                pages_fill(page, kind, i);
                struct packed packed = pack(effort, page, out);
                assert_in_range(packed.bytes, 1, PACK_MOST);
                assert_true(packed.codec < PACK_CODECS);
                assert_true(reopen(packed.codec, out, packed.bytes, again));
                assert_memory_equal(page, again, FIRN_PAGE);
                total += packed.bytes;
            }
            assert_in_range(total / 50, 1, most[kind]);
        }
    }
}

static void random_bytes_are_given_up(void **state) {
    (void)state;
    unsigned char page[FIRN_PAGE], out[PACK_MOST];
    for (unsigned i = 0; i < 50; i++) {
        pages_fill(page, PAGES_RANDOM, i);
        assert_int_equal(pack(i % 2, page, out).bytes, 0);
    }
}

static void uniform_pages(void **state) {
    (void)state;
    unsigned char page[FIRN_PAGE];
    uint8_t byte;
    for (unsigned v = 0; v < 256; v += 5) {
        memset(page, (int)v, sizeof page);
        assert_true(pack_is_uniform(page, &byte) && byte == v);
        for (unsigned at = 0; at < FIRN_PAGE; at += at < 16 || at > FIRN_PAGE - 17 ? 1 : 511) {
            page[at] ^= 1;
            assert_false(pack_is_uniform(page, &byte));
            page[at] ^= 1;
        }
    }
}

static void other_bytes_are_refused_or_a_page(void **state) {
    (void)state;
    unsigned char page[FIRN_PAGE], out[PACK_MOST], again[FIRN_PAGE + 1];
    pages_fill(page, PAGES_JSON, 1);
    struct packed packed = pack(PACK_FAST, page, out);
    for (size_t n = 0; n < packed.bytes; n++) { // cut short
        assert_false(reopen(packed.codec, out, n, again));
    }
    for (unsigned codec = 0; codec < 20; codec++) { // bits flipped: no crash, whatever comes out
        for (unsigned bit = 0; bit < 8u * packed.bytes; bit += 3) {
            out[bit / 8] ^= (unsigned char)(1u << bit % 8);
            (void)reopen(codec, out, packed.bytes, again);
            out[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
    }
    assert_false(reopen(PACK_CODECS, out, packed.bytes, again));
    assert_true(reopen(packed.codec, out, packed.bytes, again)); // a refusal leaves no trace
    assert_memory_equal(page, again, FIRN_PAGE);
}

// ---- the stack --------------------------------------------------------------------------------

enum { STACK = 256 << 10, PACK_STACK = 8 << 10 };
static unsigned char on_page[FIRN_PAGE], on_out[PACK_MOST], on_again[FIRN_PAGE];
static struct packed on_packed;

static void *work(void *is_packing) {
    if (is_packing != NULL) {
        on_packed = pack_page(packer, PACK_FAST, on_page, on_out);
    } else {
        assert_true(pack_open(opener, on_packed.codec, on_out, on_packed.bytes, on_again));
    }
    return NULL;
}

static void *do_nothing(void *unused) {
    return unused;
}

static size_t stack_used(void *(*body)(void *), void *argument) {
    pthread_attr_t attributes;
    pthread_t thread;
    unsigned char *stack = map_bytes(STACK);
    memset(stack, 0x5c, STACK);
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack, STACK);
    assert_int_equal(pthread_create(&thread, &attributes, body, argument), 0);
    pthread_join(thread, NULL);
    size_t untouched = 0;
    while (stack[untouched] == 0x5c) {
        untouched++;
    }
    munmap(stack, STACK);
    return STACK - untouched;
}

static void the_stack_suffices(void **state) {
    (void)state;
    if (memory_is_sanitized()) {
        skip();
    }
    size_t idle = stack_used(do_nothing, NULL), packing = 0, opening = 0;
    for (unsigned kind = 0; kind < PAGES_RANDOM; kind++) {
        pages_fill(on_page, kind, 1);
        size_t n = stack_used(work, on_page) - idle;
        packing = n > packing ? n : packing;
        n = stack_used(work, NULL) - idle;
        opening = n > opening ? n : opening;
    }
    printf("# stack: packing %zu, opening %zu bytes\n", packing, opening);
    assert_in_range(packing, 0, PACK_STACK);
    assert_in_range(opening, 0, PACK_STACK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_and_is_small),
        cmocka_unit_test(random_bytes_are_given_up),
        cmocka_unit_test(uniform_pages),
        cmocka_unit_test(other_bytes_are_refused_or_a_page),
        cmocka_unit_test(the_stack_suffices),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
