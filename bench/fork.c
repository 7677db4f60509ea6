/*
 * fork: a process with 1 GiB of live objects of 16 to 512 bytes forks; the child exits at once.
 *
 * Three lines, medians over the forks of one run: `fork_blocked`, how long the parent was inside
 * fork(), `fork`, from the call until the child was reaped, and `fork_cpu`, CPU time of the
 * parent inside fork() and of the child, which holds on a busy machine. They include what the
 * allocator does around a fork (its handlers, unsharing) and what its layout costs the kernel
 * (page tables, mappings). Objects are written in their first word and every 4 KiB is thereby
 * resident, as in a program that is in use.
 */
#include "bench/bench.h"

#include <sys/resource.h>
#include <sys/wait.h>

enum { FORK_LOW = 16, FORK_HIGH = 512, FORK_RUNS = 15 };

static const size_t FORK_HEAP_BYTES = (size_t)1 << 30;

enum fork_figure { FORK_BLOCKED, FORK_TOTAL, FORK_CPU, FORK_FIGURES };

static const char *const fork_names[FORK_FIGURES] = {"fork_blocked", "fork", "fork_cpu"};
static double fork_ms[FORK_FIGURES][FORK_RUNS];

static int fork_compare(const void *left, const void *right) {
    double a = *(const double *)left;
    double b = *(const double *)right;

    return (a > b) - (a < b);
}

static double fork_usage_ms(const struct rusage *usage) {
    return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1e3 +
           (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1e3;
}

static void fork_run_once(int run) {
    uint64_t start_cpu_ns = bench_cpu_ns();
    uint64_t start_ns = bench_wall_ns();
    pid_t child = fork();

    if (child == 0) {
        _exit(0);
    }
    uint64_t returned_ns = bench_wall_ns();
    uint64_t cpu_ns = bench_cpu_ns() - start_cpu_ns;
    struct rusage usage = {0};
    int status = 1;
    if (child < 0 || wait4(child, &status, 0, &usage) != child || status != 0) {
        bench_die("fork or its child failed");
    }
    fork_ms[FORK_BLOCKED][run] = (double)(returned_ns - start_ns) / 1e6;
    fork_ms[FORK_TOTAL][run] = (double)(bench_wall_ns() - start_ns) / 1e6;
    fork_ms[FORK_CPU][run] = (double)cpu_ns / 1e6 + fork_usage_ms(&usage);
}

int main(void) {
    struct bench_rng rng = {.state = 42};
    size_t filled_bytes = 0;
    void **head = NULL;

    while (filled_bytes < FORK_HEAP_BYTES) {
        size_t size = bench_rng_range(&rng, FORK_LOW, FORK_HIGH);
        void **object = bench_alloc(size);
        *object = head;
        head = object;
        filled_bytes += size;
    }
    /* The list must be seen as used, or the stores above may be dropped. */
    __asm__ volatile("" : : "r"(head) : "memory");
    for (int run = 0; run < FORK_RUNS; run++) {
        fork_run_once(run);
    }
    for (int figure = 0; figure < FORK_FIGURES; figure++) {
        qsort(fork_ms[figure], FORK_RUNS, sizeof(double), fork_compare);
        bench_print(fork_names[figure], fork_ms[figure][FORK_RUNS / 2], "ms");
    }
    return 0;
}
