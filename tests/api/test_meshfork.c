// Memory that is merged, forked, changed on both sides, and merged again, by a thread that goes on allocating and
// freeing: every block keeps its bytes, in the parent and in each child, and no canary is anybody else's.
#include "tests/api/api.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#pragma weak firn_compact
size_t firn_compact(void);

enum { BLOCKS = 24000, ROUNDS = 6, LEAST = 20, MOST = 400 };

struct block {
    unsigned char *p;
    unsigned short bytes;
    unsigned char seed;
};
static struct block blocks[BLOCKS];
static uint64_t state = 88172645463325252u;

static unsigned pick(unsigned n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)((state >> 20) % n);
}

static void fill(struct block *b) {
    b->seed = (unsigned char)pick(256);
    for (unsigned i = 0; i < b->bytes; i++) {
        b->p[i] = (unsigned char)(b->seed + i);
    }
}

static void take(struct block *b) {
    b->bytes = (unsigned short)(LEAST + pick(MOST - LEAST));
    b->p = malloc(b->bytes);
    if (b->p == NULL) {
        _exit(2);
    }
    fill(b);
}

static void give(struct block *b) {
    free(b->p);
    b->p = NULL;
}

static unsigned count_wrong(void) {
    unsigned wrong = 0;
    for (unsigned k = 0; k < BLOCKS; k++) {
        const struct block *b = &blocks[k];
        for (unsigned i = 0; b->p != NULL && i < b->bytes; i++) {
            if (b->p[i] != (unsigned char)(b->seed + i)) {
                wrong++;
                break;
            }
        }
    }
    return wrong;
}

// So many blocks in a hundred are freed, and so many in a hundred of the places left are taken.
static void change(unsigned frees, unsigned takes) {
    for (unsigned k = 0; k < BLOCKS; k++) {
        if (blocks[k].p != NULL && pick(100) < frees) {
            give(&blocks[k]);
        } else if (blocks[k].p == NULL && pick(100) < takes) {
            take(&blocks[k]);
        }
    }
}

static void rewrite(void) {
    for (unsigned k = 0; k < BLOCKS; k++) {
        if (blocks[k].p != NULL && pick(2) == 0) {
            fill(&blocks[k]);
        }
    }
}

static void in_child(void) {
    unsigned wrong = count_wrong();
    for (unsigned i = 0; i < 4; i++) {
        rewrite();
        change(20, 5);
        wrong += count_wrong();
    }
    _exit(wrong == 0 ? 0 : 1);
}

static void test_merged_forked_and_merged_again(void **nothing) {
    (void)nothing;
    if (firn_compact == NULL) {
        skip();
    }
    change(0, 100);
    for (unsigned round = 0; round < ROUNDS; round++) {
        int status = -1;
        change(88, 0);
        (void)firn_compact();
        assert_int_equal(count_wrong(), 0);
        change(30, 1); // slots of merged pages pass through this thread's hands
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            in_child();
        }
        rewrite();
        change(5, 2);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        (void)firn_compact();
        assert_int_equal(count_wrong(), 0);
        change(0, 80);
        assert_int_equal(count_wrong(), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merged_forked_and_merged_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
