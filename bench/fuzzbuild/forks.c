// What a fork server pays per input: fork, what the child does, its end, wait. Prints nanoseconds per
// fork, the fastest of ROUNDS rounds: what else the machine does only ever adds to a round.
//
//   forks ROUNDS PER-ROUND BLOCKS PAIRS
//
// BLOCKS blocks are live in the parent; the child allocates and frees PAIRS blocks, a tenth of them
// live at a time, and exits as a program does. With PAIRS 0 it ends at once.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void work(int pairs) {
    char *table[64] = {0};
    int live = pairs < 640 ? pairs / 10 + 1 : 64;
    for (int i = 0; i < pairs; i++) {
        free(table[i % live]);
        table[i % live] = malloc((size_t)(16 + i * 37 % 200));
        table[i % live][0] = 1;
    }
    for (int i = 0; i < live; i++) {
        free(table[i]);
    }
    exit(0);
}

int main(int argc, char **argv) {
    int64_t best = INT64_MAX;
    if (argc != 5) {
        return 2;
    }
    int rounds = atoi(argv[1]), forks = atoi(argv[2]), blocks = atoi(argv[3]);
    int pairs = atoi(argv[4]);
    for (int i = 0; i < blocks; i++) {
        char *volatile p = malloc((size_t)(16 + i % 200));
        memset(p, 1, 16);
    }
    for (int round = 0; round < rounds; round++) {
        int64_t start = now();
        for (int i = 0; i < forks; i++) {
            pid_t child = fork();
            if (child == 0) {
                if (pairs > 0) {
                    work(pairs);
                }
                _exit(0);
            }
            if (child < 0 || waitpid(child, NULL, 0) != child) {
                return 1;
            }
        }
        int64_t each = (now() - start) / forks;
        best = each < best ? each : best;
    }
    printf("%lld\n", (long long)best);
    return 0;
}
