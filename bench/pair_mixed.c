/*
 * pair_mixed: malloc and free of a random size from 16 to 256 bytes, one thread.
 *
 * As `pair`, but the size class changes with every request, so that neither the branch
 * predictor nor a "last class" shortcut can follow. Sizes are drawn before the clock starts.
 */
#include "bench/bench.h"

enum {
    MIXED_LOW = 16,
    MIXED_HIGH = 256,
    MIXED_SIZES = 8192, /* 16 KiB of sizes: stays in the first-level cache with the allocator */
    MIXED_ROUNDS = 8
};

static uint16_t mixed_sizes[MIXED_SIZES];

static void mixed_run_batch(void) {
    for (int round = 0; round < MIXED_ROUNDS; round++) {
        for (int i = 0; i < MIXED_SIZES; i++) {
            free(bench_alloc(mixed_sizes[i]));
        }
    }
}

int main(void) {
    struct bench_rng rng = {.state = 42};
    uint64_t pairs = 0;
    uint64_t budget_ns = bench_budget_ns();

    for (int i = 0; i < MIXED_SIZES; i++) {
        mixed_sizes[i] = (uint16_t)bench_rng_range(&rng, MIXED_LOW, MIXED_HIGH);
    }
    mixed_run_batch();
    uint64_t start_ns = bench_cpu_ns();
    uint64_t spent_ns = 0;
    while (spent_ns < budget_ns) {
        mixed_run_batch();
        pairs += (uint64_t)MIXED_ROUNDS * MIXED_SIZES;
        spent_ns = bench_cpu_ns() - start_ns;
    }
    bench_print("pair_mixed", (double)spent_ns / (double)pairs, "ns/op");
    return 0;
}
