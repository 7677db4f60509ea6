/*
 * large: 64 live blocks of 40 KiB to 4 MiB, one replaced at random; one thread.
 *
 * Sizes are log-uniform, so that every doubling is asked for equally often. The first and the
 * last word of each block are written: two page faults when the memory is fresh, none when the
 * allocator hands out a block it kept. What is paid for is mapping, keeping and giving back.
 */
#include "bench/bench.h"

enum {
    LARGE_LIVE = 64,
    LARGE_LOW = 40 << 10,
    LARGE_DOUBLINGS = 7, /* 40 KiB << 7 is above 4 MiB; the last doubling is cut off there */
    LARGE_HIGH = 4 << 20,
    LARGE_BATCH = 200
};

static void *large_blocks[LARGE_LIVE];

static void *large_alloc(struct bench_rng *rng) {
    size_t low = (size_t)LARGE_LOW << bench_rng_range(rng, 0, LARGE_DOUBLINGS - 1);
    size_t high = low * 2 < LARGE_HIGH ? low * 2 : LARGE_HIGH;
    size_t size = bench_rng_range(rng, low, high) & ~(size_t)7;
    char *block = bench_alloc(size);

    *(volatile uint64_t *)(void *)(block + size - sizeof(uint64_t)) = size;
    return block;
}

static void large_run_batch(struct bench_rng *rng) {
    for (int i = 0; i < LARGE_BATCH; i++) {
        size_t victim = bench_rng_range(rng, 0, LARGE_LIVE - 1);
        free(large_blocks[victim]);
        large_blocks[victim] = large_alloc(rng);
    }
}

int main(void) {
    struct bench_rng rng = {.state = 42};
    uint64_t operations = 0;
    uint64_t budget_ns = bench_budget_ns();

    for (int i = 0; i < LARGE_LIVE; i++) {
        large_blocks[i] = large_alloc(&rng);
    }
    large_run_batch(&rng);
    uint64_t start_ns = bench_cpu_ns();
    uint64_t spent_ns = 0;
    while (spent_ns < budget_ns) {
        large_run_batch(&rng);
        operations += LARGE_BATCH;
        spent_ns = bench_cpu_ns() - start_ns;
    }
    bench_print("large", (double)spent_ns / 1e3 / (double)operations, "us/op");
    return 0;
}
