// The program afl-fuzz runs: one target, input by input in one process, handed over in shared memory.
//
//   driver TARGET            under afl-fuzz; without it, one input from standard input
//
// Built with afl-clang-fast (GNUmakefile, variant afl), which supplies the __AFL_ names.
#include "fuzz/fuzz.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

// Inputs a process lives through: the heap's state is another one for each of them, and after these
// it is that of a fresh process once more.
enum { INPUTS_PER_PROCESS = 1000 };

#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wcast-qual"
#pragma GCC diagnostic ignored "-Wshorten-64-to-32"
__AFL_FUZZ_INIT();

struct target {
    const char *name;
    int (*run)(const uint8_t *data, size_t size);
};

static const struct target targets[] = {
#define TARGET(name) {#name, firn_fuzz_##name},
    FUZZ_TARGETS(TARGET) TARGET(planted)
#undef TARGET
};

static const struct target *find_target(const char *name) {
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        if (strcmp(name, targets[i].name) == 0) {
            return &targets[i];
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    const struct target *target = argc == 2 ? find_target(argv[1]) : NULL;
    if (target == NULL) {
        fprintf(stderr, "usage: driver TARGET <INPUT\n");
        return 2;
    }
    __AFL_INIT();
    const unsigned char *data = __AFL_FUZZ_TESTCASE_BUF;
    while (__AFL_LOOP(INPUTS_PER_PROCESS)) {
        size_t size = (size_t)__AFL_FUZZ_TESTCASE_LEN;
        (void)target->run(data, size);
    }
    return 0;
}
