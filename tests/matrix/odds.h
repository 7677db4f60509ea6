// What one fresh process saw (odds.c), for the one that counts (test_odds.c).
#ifndef FIRN_TESTS_MATRIX_ODDS_H
#define FIRN_TESTS_MATRIX_ODDS_H

#include <stddef.h>
#include <stdint.h>

enum { ODDS_SIZES = 6, ODDS_PAIRS = 16, ODDS_ROUNDS = 8, ODDS_WAIT = 64 };

static const size_t odds_sizes[ODDS_SIZES] = {16, 64, 256, 1024, 4096, 30000};

struct odds_size {
    uint8_t first_neighbours; // the first two blocks
    uint8_t neighbours;       // of ODDS_PAIRS further pairs in a row
    uint8_t first_reused;     // the first block freed was the next one handed out
    uint8_t reused;           // of ODDS_ROUNDS further frees, amid others
    uint8_t came_back;        // a block freed came back within ODDS_WAIT allocations and no free
    uint8_t dirty;            // a block of a fresh process did not read as zeros
};

struct odds_record {
    uint32_t magic;
    struct odds_size sizes[ODDS_SIZES];
    uint8_t fork_first_equal; // a child's first block after fork is its parent's
    uint8_t fork_all_equal;   // its first four are
};
enum { ODDS_MAGIC = 0x0dd50dd5 };

#endif
