/*
 * pair: malloc and free of 64 bytes, one thread, nothing else live.
 *
 * The best case of every allocator: the freed slot is in the first-level cache when the next
 * request comes. It shows the length of the fast path and nothing about memory behaviour.
 */
#include "bench/bench.h"

enum { PAIR_BYTES = 64, PAIR_BATCH = 50000 };

static void pair_run_batch(void) {
    for (int i = 0; i < PAIR_BATCH; i++) {
        free(bench_alloc(PAIR_BYTES));
    }
}

int main(void) {
    uint64_t pairs = 0;
    uint64_t budget_ns = bench_budget_ns();

    pair_run_batch();
    uint64_t start_ns = bench_cpu_ns();
    uint64_t spent_ns = 0;
    while (spent_ns < budget_ns) {
        pair_run_batch();
        pairs += PAIR_BATCH;
        spent_ns = bench_cpu_ns() - start_ns;
    }
    bench_print("pair", (double)spent_ns / (double)pairs, "ns/op");
    return 0;
}
