// A case of the misuse matrix: a mistake, and the right program beside it. Each program of this
// folder holds a table of them:
//
//   PROGRAM list               prints "NAME FEATURE" for each case
//   PROGRAM NAME wrong|right   runs it
//
// A case ends in one of four ways: Firn or the kernel stops it; MATRIX_END, it ran to its end;
// MATRIX_HARMLESS, what the mistake read was not there; anything else, the case itself is broken.
#ifndef FIRN_TESTS_MATRIX_MATRIX_H
#define FIRN_TESTS_MATRIX_MATRIX_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MATRIX_END = 0, MATRIX_HARMLESS = 40, MATRIX_BROKEN = 41 };

struct matrix_case {
    const char *name;
    const char *feature; // without which it is not stopped (features in test_matrix.c)
    size_t size;         // of the block
    size_t count;        // bytes beyond it, or another size; 0: none
    int (*run)(const struct matrix_case *c, int is_wrong); // returns one of the above
};

// Nothing is optimised away: what goes through here may be anything afterwards.
static inline void *opaque(void *p) {
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

// One call site, and so one partition, for all blocks of a program: what one place frees, another gets.
__attribute__((noinline, unused)) static char *block(size_t n) {
    char *p = (char *)opaque(malloc(n));
    if (p == NULL) {
        _exit(MATRIX_BROKEN);
    }
    return p;
}

static inline void *matrix_free(void *p) {
    free(p);
    return NULL;
}

static inline void in_thread(void *(*run)(void *), void *argument) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, argument) != 0) {
        _exit(MATRIX_BROKEN);
    }
    pthread_join(thread, NULL);
}

// A block among others, as in a program that has run for a while.
enum { CROWD = 24 };
static inline char *crowded_block(size_t n, char **crowd) {
    for (int i = 0; i < CROWD; i++) {
        crowd[i] = block(n);
    }
    return crowd[CROWD / 2];
}

// Allocates and frees blocks of `n` bytes until every slot has been used again.
static inline void churn(size_t n) {
    enum { KEPT = 64 };
    void *kept[KEPT] = {NULL};
    size_t rounds = (size_t)256 << 20;
    rounds = rounds / (n + 64) < 200000 ? rounds / (n + 64) : 200000;
    for (size_t i = 0; i < rounds; i++) {
        free(kept[i % KEPT]);
        kept[i % KEPT] = block(n);
    }
    for (int i = 0; i < KEPT; i++) {
        free(kept[i]);
    }
}

static inline int matrix_main(int argc, char **argv, const struct matrix_case *cases, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (argc == 2 && strcmp(argv[1], "list") == 0) {
            printf("%s %s\n", cases[i].name, cases[i].feature);
        } else if (argc == 3 && strcmp(argv[1], cases[i].name) == 0) {
            return cases[i].run(&cases[i], strcmp(argv[2], "wrong") == 0);
        }
    }
    return argc == 2 ? 0 : MATRIX_BROKEN;
}

#define MATRIX_MAIN(cases)                                                                         \
    int main(int argc, char **argv) {                                                              \
        return matrix_main(argc, argv, cases, sizeof(cases) / sizeof((cases)[0]));                 \
    }

#endif
