// What checking costs a copy: nanoseconds per memcpy, the fastest of ten rounds.
//
//   copies BYTES stack|heap|large
//
// stack: both sides are on the stack, and pass after two comparisons. heap: 64 blocks in turn, all with room
// for BYTES. large: both sides inside one block of 16 MiB.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BLOCKS = 64, COPIES = 1 << 18, ROUNDS = 10, LARGE = 16 << 20, MOST = 4096 };

static char *from[BLOCKS], *to[BLOCKS];
static char room[2][MOST];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    const size_t bytes = argc == 3 ? (size_t)atoi(argv[1]) : 0;
    double best = 1e9;
    if (bytes == 0 || bytes > MOST) {
        return 2;
    }
    char here[2][MOST];
    memset(here, 1, sizeof(here));
    char *large = calloc(1, LARGE);
    for (size_t i = 0; i < BLOCKS; i++) {
        const int is_heap = argv[2][0] == 'h', is_large = argv[2][0] == 'l';
        from[i] = is_heap ? malloc(bytes) : is_large ? large + i * 131072 : here[0];
        to[i] = is_heap ? malloc(bytes) : is_large ? large + i * 131072 + 65536 : here[1];
        memset(from[i], 1, bytes);
        memset(to[i], 1, bytes);
    }
    for (int round = 0; round < ROUNDS; round++) {
        const double start = now();
        for (unsigned i = 0; i < COPIES; i++) {
            memcpy(to[i % BLOCKS], from[i % BLOCKS], bytes);
        }
        const double each = (now() - start) / COPIES;
        best = each < best ? each : best;
    }
    room[0][0] = here[1][0]; // the copies are used
    printf("%.2f\n", best);
    return room[0][0] == 1 ? 0 : 1;
}
