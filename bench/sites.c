/*
 * sites: as `churn` with one thread, but the allocations come from 32 call sites at random.
 *
 * An allocator that partitions by call site spreads this over many spans and caches; one call
 * site, as in the other workloads, flatters it. For allocators without partitions the figure
 * is that of `churn1` plus an indirect call.
 */
#include "bench/bench.h"

enum {
    SITES_LIVE = 10000,
    SITES_LOW = 16,
    SITES_HIGH = 256,
    SITES_COUNT = 32,
    SITES_BATCH = 2000,
    SITES_WARM_BATCHES = 20
};

/*
 * The site's number inside the assembly keeps the functions different: gcc folds identical
 * functions into one (-fipa-icf), and with them the return addresses this workload is about.
 */
#define SITE(number)                                                                               \
    __attribute__((noinline)) static void *site_##number(size_t size) {                            \
        __asm__ volatile("# site %0" : : "i"(number));                                             \
        return bench_alloc(size);                                                                  \
    }
#define SITES_OF_EIGHT(a, b, c, d, e, f, g, h)                                                     \
    SITE(a) SITE(b) SITE(c) SITE(d) SITE(e) SITE(f) SITE(g) SITE(h)

SITES_OF_EIGHT(0, 1, 2, 3, 4, 5, 6, 7)
SITES_OF_EIGHT(8, 9, 10, 11, 12, 13, 14, 15)
SITES_OF_EIGHT(16, 17, 18, 19, 20, 21, 22, 23)
SITES_OF_EIGHT(24, 25, 26, 27, 28, 29, 30, 31)

static void *(*const sites[SITES_COUNT])(size_t) = {
    site_0,  site_1,  site_2,  site_3,  site_4,  site_5,  site_6,  site_7,
    site_8,  site_9,  site_10, site_11, site_12, site_13, site_14, site_15,
    site_16, site_17, site_18, site_19, site_20, site_21, site_22, site_23,
    site_24, site_25, site_26, site_27, site_28, site_29, site_30, site_31,
};

static void *sites_live[SITES_LIVE];

static void *sites_alloc(struct bench_rng *rng) {
    size_t site = bench_rng_range(rng, 0, SITES_COUNT - 1);

    return sites[site](bench_rng_range(rng, SITES_LOW, SITES_HIGH));
}

static void sites_run_batch(struct bench_rng *rng) {
    for (int i = 0; i < SITES_BATCH; i++) {
        size_t victim = bench_rng_range(rng, 0, SITES_LIVE - 1);
        free(sites_live[victim]);
        sites_live[victim] = sites_alloc(rng);
    }
}

int main(void) {
    struct bench_rng rng = {.state = 42};
    uint64_t operations = 0;
    uint64_t budget_ns = bench_budget_ns();

    for (int i = 0; i < SITES_LIVE; i++) {
        sites_live[i] = sites_alloc(&rng);
    }
    for (int i = 0; i < SITES_WARM_BATCHES; i++) {
        sites_run_batch(&rng);
    }
    uint64_t start_ns = bench_cpu_ns();
    uint64_t spent_ns = 0;
    while (spent_ns < budget_ns) {
        sites_run_batch(&rng);
        operations += SITES_BATCH;
        spent_ns = bench_cpu_ns() - start_ns;
    }
    bench_print("sites", (double)spent_ns / (double)operations, "ns/op");
    return 0;
}
