// What handed.c and handed_paths.c are made of. Each case has blocks of its own, which are filled first, all of them;
// then they become cold, if that is asked for; then each case makes its call with them and says what came of it.
//
//   PROGRAM          a line for each case, to be the same with and without Firn
//   PROGRAM cold     likewise, with pages that are away; and all go again afterwards, as nothing is left pinned, but for
//                    those that are to be kept. Status 2: they do not; 4: there is no cold tier
#ifndef FIRN_TESTS_HANDED_H
#define FIRN_TESTS_HANDED_H

#include "firn/firn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ARGUMENTS = 8, CASES_MOST = 256, BLOCKS_MOST = 1024, BLOCK_BYTES = 16384, SPLIT = 4096 };

struct handed {
    const char *name;
    // First with is_setup; the result is said, and errno where that is -1.
    long (*run)(void **a, int is_setup);
    void *arguments[ARGUMENTS];
};

static struct handed cases[CASES_MOST];
static int cases_count;
static char *blocks[BLOCKS_MOST];
static int blocks_count;

static char *kept[8]; // of the blocks, from which they are taken
static int kept_count;

#pragma weak firn_hint_cold
#pragma weak firn_stats

static void handed_add(const char *name, long (*run)(void **a, int is_setup)) {
    if (cases_count < CASES_MOST) {
        cases[cases_count++] = (struct handed){.name = name, .run = run};
    }
}

// NAME: fills a[] by `setup`; the call, and what else there is to check, give a number.
#define CASE(name, setup, ...)                                                                     \
    static long run_##name(void **a, int is_setup) {                                               \
        (void)a;                                                                                   \
        if (is_setup) {                                                                            \
            setup;                                                                                 \
            return 0;                                                                              \
        }                                                                                          \
        errno = 0;                                                                                 \
        return (long)(__VA_ARGS__);                                                                \
    }                                                                                              \
    __attribute__((constructor)) static void add_##name(void) {                                    \
        handed_add(#name, run_##name);                                                             \
    }

// In a block of its own, half of it on either side of the end of its first page.
static inline void *put(const void *data, size_t bytes) {
    char *block = aligned_alloc(4096, BLOCK_BYTES);
    if (block == NULL || blocks_count == BLOCKS_MOST || bytes > 4000) {
        exit(3);
    }
    blocks[blocks_count++] = block;
    memset(block, 'b', BLOCK_BYTES);
    char *at = block + SPLIT - (bytes / 2 + 7) / 8 * 8;
    memcpy(at, data, bytes);
    return at;
}

static inline void *put_room(size_t bytes) {
    static const char zeros[4000];
    return put(zeros, bytes);
}

static inline char *put_text(const char *text) {
    return put(text, strlen(text) + 1);
}

// NULL-terminated, of strings that are put, too.
static inline char **put_vector(const char *const *strings) {
    char *copies[8] = {NULL};
    size_t n = 0;
    for (; strings[n] != NULL && n < 7; n++) {
        copies[n] = put_text(strings[n]);
    }
    return put(copies, (n + 1) * sizeof *copies);
}

static inline void say(const char *text) {
    size_t done = 0, n = strlen(text);
    while (done < n) {
        ssize_t wrote = syscall(SYS_write, 1, text + done, n - done);
        if (wrote <= 0) {
            exit(3);
        }
        done += (size_t)wrote;
    }
}

// The kernel cannot read what is away, past the exported calls, of which syscall is one. It fetches nothing.
static inline int is_away(const char *page) {
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"((long)SYS_access), "D"(page), "S"((long)F_OK)
                     : "rcx", "r11", "memory");
    return result == -EFAULT;
}

static inline int count_here(void) {
    int here = 0;
    for (int i = 0; i < blocks_count; i++) {
        here += !is_away(blocks[i]) + !is_away(blocks[i] + SPLIT);
    }
    return here;
}

// From now on the block that `p` is in is never to go.
static inline int must_be_kept(const void *p) {
    for (int i = 0; i < blocks_count && kept_count < 8; i++) {
        if ((const char *)p - blocks[i] >= 0 && (const char *)p - blocks[i] < BLOCK_BYTES) {
            kept[kept_count++] = blocks[i];
            blocks[i] = blocks[--blocks_count];
        }
    }
    return 0;
}

static inline void give_up(int status, const char *why, int number) {
    static char text[200];
    snprintf(text, sizeof text, "%s (%d)\n", why, number);
    say(text);
    _exit(status);
}

static inline void need_cold_tier(void) {
    struct firn_stats s = {.struct_bytes = sizeof s};
    const struct timespec t = {0, 50000000};
    for (int i = 0; i < 100; i++) {
        free(malloc(100000)); // an upkeep starts it
        if (firn_stats(&s) == 0 && strcmp(s.cold_engine, "none") != 0) {
            return;
        }
        nanosleep(&t, NULL);
    }
    give_up(4, s.cold_reason != NULL ? s.cold_reason : "not started", 0);
}

// Pages: guarded samples (one block in a thousand at level 3) never go.
enum { SAMPLED_MOST = 6 };

// Nothing else of the heap is touched meanwhile.
static inline void make_cold(void) {
    int here = SAMPLED_MOST + 1;
    for (int i = 0; i < 400 && here > SAMPLED_MOST; i++) {
        for (int k = 0; k < blocks_count; k++) {
            firn_hint_cold(blocks[k], BLOCK_BYTES);
        }
        for (int k = 0; k < kept_count; k++) {
            firn_hint_cold(kept[k], BLOCK_BYTES);
        }
        const struct timespec t = {0, 50000000};
        nanosleep(&t, NULL);
        here = count_here();
    }
    if (here > SAMPLED_MOST) {
        give_up(2, "pages are still here", here);
    }
    for (int k = 0; k < kept_count; k++) {
        if (is_away(kept[k]) || is_away(kept[k] + SPLIT)) {
            give_up(2, "a page that is to be kept is away", k);
        }
    }
}

static inline int handed_main(int argc, char **argv) {
    static char line[200];
    for (int i = 0; i < cases_count; i++) {
        cases[i].run(cases[i].arguments, 1);
    }
    int is_cold = argc > 1 && strcmp(argv[1], "cold") == 0;
    if (is_cold) {
        need_cold_tier();
        make_cold();
    }
    for (int i = 0; i < cases_count; i++) {
        long result = cases[i].run(cases[i].arguments, 0);
        int error = errno;
        snprintf(line, sizeof line, "%s %ld%s%s\n", cases[i].name, result, result == -1 ? " " : "",
                 result == -1 ? strerror(error) : "");
        say(line);
    }
    if (is_cold) {
        make_cold();
    }
    return 0;
}

#endif
