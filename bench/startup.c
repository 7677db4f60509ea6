/*
 * startup: the PSS of a program that does what `true` does, at its end.
 *
 * coreutils' `true` sets the locale and leaves; it is gone before anyone can read its memory.
 * This one sets the locale, makes one small allocation, and reads its own smaps_rollup with
 * plain system calls before anything is printed. Pages of libc that other processes map count
 * by their share, so only differences between allocators in one interleaved run mean anything.
 */
#include "bench/bench.h"

#include <locale.h>

int main(void) {
    (void)setlocale(LC_ALL, "");
    free(bench_alloc(64));
    long pss_kib = bench_pss_kib();
    if (pss_kib == 0) {
        bench_die("cannot read Pss from /proc/self/smaps_rollup");
    }
    bench_print("startup_true", (double)pss_kib, "KiB");
    return 0;
}
