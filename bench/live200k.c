/*
 * live200k: 200,000 live objects of 16 to 256 bytes, one replaced at random; one thread.
 *
 * As `churn` with one thread, but 27 MB of objects: nothing is in the second-level cache, and
 * the allocator's own data has to be fetched as well. Placement and the number of cache lines
 * touched per operation decide here, not instructions.
 */
#include "bench/bench.h"

enum {
    LIVE_COUNT = 200000,
    LIVE_LOW = 16,
    LIVE_HIGH = 256,
    LIVE_BATCH = 2000,
    LIVE_WARM_BATCHES = 200 /* two replacements per object: the fill order is forgotten */
};

static void *live_objects[LIVE_COUNT];

static void live_run_batch(struct bench_rng *rng) {
    for (int i = 0; i < LIVE_BATCH; i++) {
        size_t victim = bench_rng_range(rng, 0, LIVE_COUNT - 1);
        size_t size = bench_rng_range(rng, LIVE_LOW, LIVE_HIGH);
        free(live_objects[victim]);
        live_objects[victim] = bench_alloc(size);
    }
}

int main(void) {
    struct bench_rng rng = {.state = 42};
    uint64_t operations = 0;
    uint64_t budget_ns = bench_budget_ns();

    for (int i = 0; i < LIVE_COUNT; i++) {
        live_objects[i] = bench_alloc(bench_rng_range(&rng, LIVE_LOW, LIVE_HIGH));
    }
    for (int i = 0; i < LIVE_WARM_BATCHES; i++) {
        live_run_batch(&rng);
    }
    uint64_t start_ns = bench_cpu_ns();
    uint64_t spent_ns = 0;
    while (spent_ns < budget_ns) {
        live_run_batch(&rng);
        operations += LIVE_BATCH;
        spent_ns = bench_cpu_ns() - start_ns;
    }
    bench_print("live200k", (double)spent_ns / (double)operations, "ns/op");
    return 0;
}
