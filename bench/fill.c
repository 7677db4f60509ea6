/*
 * fill: allocates 256 MiB of objects of 16 to 512 bytes, writes every byte, frees nothing, and
 * reports the process's PSS over the bytes requested.
 *
 * Internal waste (rounding up), metadata and half-filled spans all show; nothing is subtracted,
 * the program's own pages (about half a percent) included. The objects are linked through
 * their first word so that no pointer array adds to the figure.
 */
#include "bench/bench.h"

enum { FILL_LOW = 16, FILL_HIGH = 512 };

static const size_t FILL_TOTAL_BYTES = (size_t)256 << 20;

int main(void) {
    struct bench_rng rng = {.state = 42};
    size_t requested_bytes = 0;
    void **head = NULL;

    while (requested_bytes < FILL_TOTAL_BYTES) {
        size_t size = bench_rng_range(&rng, FILL_LOW, FILL_HIGH);
        void **object = bench_alloc(size);
        memset(object, 0x5a, size);
        *object = head;
        head = object;
        requested_bytes += size;
    }
    /* The list must be seen as used, or the stores above may be dropped. */
    __asm__ volatile("" : : "r"(head) : "memory");
    long pss_kib = bench_pss_kib();
    if (pss_kib == 0) {
        bench_die("cannot read Pss from /proc/self/smaps_rollup");
    }
    bench_print("fill", (double)pss_kib * 1024.0 / (double)requested_bytes, "x");
    return 0;
}
