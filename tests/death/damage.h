// Blocks written past their ends, before their starts and after they were freed. Part of misuse.c.
//
// SMALL bytes lie in a slot of 288: 280 may be written, then comes the canary.
#ifndef FIRN_TESTS_DEATH_DAMAGE_H
#define FIRN_TESTS_DEATH_DAMAGE_H

#include "tests/death/misuse.h"

enum { SLOT = 288, ROOM = 280, HUGE_SLOT = 32768, CROWD = 3000 };

// ---- overflow ----

static void overflow_by_a_nul(void) {
    char *p = aim(small_block());
    p[ROOM] = '\0';
    free(p);
}

static void overflow_by_a_bit(void) {
    char *p = aim(small_block());
    p[SLOT - 1] = (char)(p[SLOT - 1] ^ 64);
    free(p);
}

static void overflow_by_a_string(void) {
    char *p = aim(malloc(ROOM));
    scribble(p, 'x', ROOM);
    scribble(p + ROOM, '\0', 1);
    free(p);
}

static void overflow_of_zeros(void) {
    char *p = aim(small_block());
    scribble(p + ROOM, 0, SLOT - ROOM);
    free(p);
}

static void overflow_remote(void) {
    char *p = aim(small_block());
    p[ROOM] = '\0';
    in_thread(free_it, p);
}

static void overflow_calloc(void) {
    char *p = aim(calloc(ROOM / 8, 8));
    p[ROOM] = '\0';
    free(p);
}

static void overflow_aligned(void) {
    char *p = aim(aligned_alloc(64, SMALL));
    p[320 - 8] = '\0';
    free(p);
}

static void overflow_tiny(void) {
    char *p = aim(malloc(8));
    p[8] = '\0';
    free(p);
}

static void overflow_largest(void) {
    char *p = aim(malloc(HUGE_SLOT - 8));
    p[HUGE_SLOT - 8] = '\0';
    free(p);
}

static void overflow_by_realloc(void) {
    char *p = aim(small_block());
    p[ROOM] = '\0';
    char *q = realloc(p, 500);
    (void)q;
}

static void overflow_by_realloc_in_place(void) {
    char *p = aim(small_block());
    p[ROOM] = '\0';
    char *q = realloc(p, SMALL + 1);
    (void)q;
}

static void overflow_by_free_sized(void) {
    char *p = aim(small_block());
    p[ROOM] = '\0';
    free_sized(p, SMALL);
}

static void overflow_by_delete(void) {
    char *p = aim(_Znwm(SMALL));
    p[ROOM] = '\0';
    _ZdlPv(p);
}

static void overflow_in_child(void) {
    char *p = aim(small_block());
    p[ROOM] = '\0';
    const pid_t child = fork();
    if (child == 0) {
        free(p);
        _exit(3);
    }
    int status = 0;
    waitpid(child, &status, 0);
    signal(SIGABRT, SIG_DFL);
    raise(WIFSIGNALED(status) ? WTERMSIG(status) : SIGTERM);
}

// ---- from the other side ----

// Two blocks beside each other.
static void beside(char **left, char **right) {
    static char *have[CROWD];
    for (int i = 0; i < CROWD; i++) {
        have[i] = small_block();
        for (int k = 0; k < i; k++) {
            if (have[i] - have[k] == SLOT || have[k] - have[i] == SLOT) {
                const int is_right = have[i] > have[k];
                *left = is_right ? have[k] : have[i];
                *right = is_right ? have[i] : have[k];
                return;
            }
        }
    }
    _exit(94);
}

static void underflow_by_one(void) {
    char *p, *q;
    beside(&p, &q);
    q[-1] = '\0';
    free(aim(q));
}

static void underflow_remote(void) {
    char *p, *q;
    beside(&p, &q);
    q[-1] = '\0';
    in_thread(free_it, aim(q));
}

static void underflow_beside_a_freed_block(void) {
    char *p, *q;
    beside(&p, &q);
    free(p);
    q[-1] = '\0';
    free(aim(q));
}

static void underflow_by_realloc(void) {
    char *p, *q;
    beside(&p, &q);
    q[-3] = '\0';
    p = realloc(aim(q), 500);
}

static void underflow_of_the_next(void) {
    char *p, *q;
    beside(&p, &q);
    q[-1] = '\0';
    free(aim(p));
}

static void overflow_of_the_one_before(void) {
    char *p, *q;
    beside(&p, &q);
    p[ROOM] = '\0';
    free(aim(q));
}

// ---- writes after free ----

// What was freed waits until others of its class are freed, or, if another thread freed it, until its
// owner needs more.
static void use_again(void) {
    for (int i = 0; i < 100000; i++) {
        char *p = small_block();
        small_block();
        free(p);
    }
}

static void stale_first_byte(void) {
    char *p = aim(small_block());
    free(p);
    p[0] = 'x';
    use_again();
}

static void stale_pointer(void) {
    char *p = aim(small_block());
    free(p);
    *(char *volatile *)(void *)(p + 16) = p + 1;
    use_again();
}

static void stale_last_byte(void) {
    char *p = aim(small_block());
    free(p);
    p[ROOM - 1] = 'x';
    use_again();
}

static void stale_canary(void) {
    char *p = aim(small_block());
    free(p);
    p[ROOM] = '\0';
    for (int i = 0; i < 100000; i++) {
        char *q = small_block();
        if (q != p + SLOT) { // which would notice it, too
            free(q);
        }
    }
}

static void stale_remote(void) {
    char *p = aim(small_block());
    in_thread(free_it, p);
    p[8] = 'x';
    use_again();
}

static void stale_in_child(void) {
    char *p = aim(small_block());
    free(p);
    p[77] = 'x';
    const pid_t child = fork();
    if (child == 0) {
        use_again();
        _exit(3);
    }
    int status = 0;
    waitpid(child, &status, 0);
    signal(SIGABRT, SIG_DFL);
    raise(WIFSIGNALED(status) ? WTERMSIG(status) : SIGTERM);
}

static void stale_tiny(void) {
    char *p = NULL;
    for (int i = 0; i < 100000; i++) {
        char *q = malloc(8);
        free(q);
        if (i == 0) {
            p = aim(q);
            p[7] = 1;
        }
    }
}

static void stale_huge(void) {
    char *p = NULL;
    for (int i = 0; i < 3000; i++) {
        char *q = malloc(HUGE_SLOT - 8);
        free(q);
        if (i == 0) {
            p = aim(q);
            p[20001] = 1;
        }
    }
}

// ---- P-SLACK, P-LARGE-SLACK: past the size asked for, within the slot or page ----

static char *slack_block(void) {
    char *p = aim(small_block());
    p[SMALL] = 1;
    return p;
}

static void slack_by_one(void) {
    free(slack_block());
}

// A string without room for its terminator.
static void slack_by_zero(void) {
    char *p = aim(small_block());
    p[SMALL] = 0;
    free(p);
}

static void slack_by_realloc(void) {
    free(realloc(slack_block(), 300));
}

static void slack_after_shrink(void) {
    char *p = realloc(aim(small_block()), 250 + 8);
    p[250 + 8] = 1;
    free(p);
}

static void slack_remote(void) {
    in_thread(free_it, slack_block());
}

static void slack_large(void) {
    char *p = aim(large_block());
    p[LARGE] = 1;
    free(p);
}

static void slack_large_by_realloc(void) {
    char *p = aim(large_block());
    p[LARGE] = 1;
    free(realloc(p, 200000));
}

// ---- P-SWEEP: what is found by the sweep ----

enum { USABLE = 280 };

static void at_exit_overflow(void) {
    char *p = aim(swept_block());
    p[USABLE] = 2; // even: no canary's
    exit(0);
}

static void at_exit_slack(void) {
    char *p = aim(swept_block());
    p[SMALL] = 1;
    exit(0);
}

// Not the first of its span, and its neighbour before is no live block.
static void at_exit_underflow(void) {
    char *block[64];
    for (int i = 0; i < 64; i++) {
        block[i] = swept_block();
    }
    for (int i = 0; i < 64; i++) {
        for (int k = 0; k < 64; k++) {
            if (block[k] == block[i] - 288) {
                free(block[k]);
                ((char *)aim(block[i]))[-1] = 2; // even: no canary's
                exit(0);
            }
        }
    }
}

static void at_exit_stale(void) {
    char *p = aim(swept_block());
    free(p);
    p[77] = 1;
    exit(0);
}

static void at_exit_link(void) {
    char *p = aim(swept_block());
    in_thread(free_it, p);
    p[3] ^= 1;
    exit(0);
}

// Found by a thread that goes on allocating.
static void sweep_overflow(void) {
    char *p = aim(swept_block());
    p[USABLE] = 2; // even: no canary's
    for (int i = 0; i < 8000; i++) {
        for (int k = 0; k < 8; k++) {
            free(large_block());
        }
        usleep(1000);
    }
}

// P-LARGE-RETIRE. Too large to be kept or closed: its pages are gone, its addresses accessible.
static void stale_very_large(void) {
    enum { VERY_LARGE = 40 << 20 };
    char *p = malloc(VERY_LARGE);
    free(p);
    ((char *)aim(p))[20001] = 1;
    for (int i = 0; i < 8; i++) {
        p = malloc(VERY_LARGE);
    }
}

#endif
