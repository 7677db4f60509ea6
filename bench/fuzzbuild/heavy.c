// An allocation-heavy target: a table of live blocks, each step frees one at random and allocates
// another of random size, writing its first and last byte. What a parser that builds and rewrites a
// tree does to its heap, without the parsing.
//
//   heavy STEPS LIVE LEAST MOST
#include <stdint.h>
#include <stdlib.h>

static uint32_t state = 2463534242u;

static uint32_t draw(void) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        return 2;
    }
    uint32_t steps = (uint32_t)atoi(argv[1]), live = (uint32_t)atoi(argv[2]);
    uint32_t least = (uint32_t)atoi(argv[3]), most = (uint32_t)atoi(argv[4]);
    char **blocks = calloc(live, sizeof(*blocks));
    for (uint32_t i = 0; blocks != NULL && i < steps; i++) {
        uint32_t at = draw() % live;
        size_t size = least + draw() % (most - least + 1);
        free(blocks[at]);
        char *p = malloc(size);
        if (p == NULL) {
            return 1;
        }
        p[0] = 1;
        p[size - 1] = 2;
        blocks[at] = p;
    }
    return 0;
}
