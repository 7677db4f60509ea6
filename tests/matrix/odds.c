// One fresh process: allocates, looks at what it got, writes a record to standard output.
// Arguments: for each size, the distance of two slots that touch.
#include "tests/matrix/odds.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int are_neighbours(const char *a, const char *b, size_t stride) {
    return (a > b ? (size_t)(a - b) : (size_t)(b - a)) == stride;
}

static int is_zero(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (p[i] != 0) {
            return 0;
        }
    }
    return 1;
}

// True when a block that is freed now is the next one handed out.
static int is_reused(char **block, size_t n) {
    const char *const freed = *block;
    free(*block);
    *block = malloc(n);
    return *block == freed;
}

static void look_at_size(size_t n, size_t stride, struct odds_size *out) {
    char *p[ODDS_PAIRS + 1], *blocks[ODDS_PAIRS + 1];
    char *a = malloc(n);
    char *b = malloc(n);
    char *const first = a, *const second = b;
    out->dirty = (uint8_t)(!is_zero(a, n) || !is_zero(b, n));
    out->first_reused = (uint8_t)is_reused(&b, n);
    for (int i = 0; i <= ODDS_PAIRS; i++) {
        p[i] = malloc(n);
    }
    memcpy(blocks, p, sizeof(blocks));
    for (int i = 0; i < ODDS_ROUNDS; i++) {
        free(p[i]);
        out->reused += (uint8_t)is_reused(&p[i + ODDS_ROUNDS], n);
        p[i] = malloc(n);
    }
    const char *const freed = p[0];
    free(p[0]);
    for (int i = 0; i < ODDS_WAIT; i++) {
        out->came_back |= malloc(n) == freed;
    }
    out->first_neighbours = (uint8_t)are_neighbours(first, second, stride);
    for (int i = 1; i <= ODDS_PAIRS; i++) {
        out->neighbours += (uint8_t)are_neighbours(blocks[i - 1], blocks[i], stride);
    }
}

// Both sides of a fork start with the same slots at hand.
static void look_at_fork(struct odds_record *out) {
    char *mine[4], *theirs[4];
    int ends[2], equal = 0;
    free(malloc(64));
    if (pipe(ends) != 0) {
        _exit(1);
    }
    const pid_t child = fork();
    for (int i = 0; i < 4; i++) {
        mine[i] = malloc(64);
    }
    if (child == 0) {
        _exit(write(ends[1], mine, sizeof(mine)) == (ssize_t)sizeof(mine) ? 0 : 1);
    }
    if (read(ends[0], theirs, sizeof(theirs)) != (ssize_t)sizeof(theirs)) {
        _exit(1);
    }
    waitpid(child, NULL, 0);
    for (int i = 0; i < 4; i++) {
        equal += mine[i] == theirs[i];
    }
    out->fork_first_equal = mine[0] == theirs[0];
    out->fork_all_equal = equal == 4;
}

int main(int argc, char **argv) {
    struct odds_record record;
    memset(&record, 0, sizeof(record));
    record.magic = ODDS_MAGIC;
    if (argc != 1 + ODDS_SIZES) {
        return 1;
    }
    for (int i = 0; i < ODDS_SIZES; i++) {
        look_at_size(odds_sizes[i], strtoul(argv[1 + i], NULL, 10), &record.sizes[i]);
    }
    look_at_fork(&record);
    return write(STDOUT_FILENO, &record, sizeof(record)) == (ssize_t)sizeof(record) ? 0 : 1;
}
