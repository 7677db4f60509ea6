// What the parts of misuse.c share: the functions to misuse, blocks, and the announcement of the
// pointer that is about to be misused.
#ifndef FIRN_TESTS_DEATH_MISUSE_H
#define FIRN_TESTS_DEATH_MISUSE_H

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

// The exported names that this libc's headers lack. Weak: the program is linked without Firn.
void free_sized(void *p, size_t size) __attribute__((weak));
void free_aligned_sized(void *p, size_t align, size_t size) __attribute__((weak));
void cfree(void *p) __attribute__((weak));
void *_Znwm(size_t size) __attribute__((weak));
void *_ZnwmSt11align_val_t(size_t size, size_t align) __attribute__((weak));
void _ZdlPv(void *p) __attribute__((weak));
void _ZdaPv(void *p) __attribute__((weak));
void _ZdlPvm(void *p, size_t size) __attribute__((weak));
void _ZdaPvm(void *p, size_t size) __attribute__((weak));
void _ZdlPvRKSt9nothrow_t(void *p, const void *tag) __attribute__((weak));
void _ZdlPvSt11align_val_t(void *p, size_t align) __attribute__((weak));
void _ZdlPvmSt11align_val_t(void *p, size_t size, size_t align) __attribute__((weak));

enum { SMALL = 260, MEDIUM = 1100, LARGE = 100000 };

static char global_block[64] __attribute__((aligned(64)));

// Announces the pointer; the last announcement counts.
static void *aim(void *p) {
    char text[32];
    const int n = snprintf(text, sizeof(text), "0x%lx\n", (unsigned long)(uintptr_t)p);
    if (write(STDOUT_FILENO, text, (size_t)n) != n) {
        _exit(96);
    }
    return p;
}

// All from one place in the program: blocks of different ones share no slots.
static __attribute__((noinline)) void *small_block(void) {
    char *p = malloc(SMALL);
    memset(p, 's', SMALL);
    return p;
}

// No guarded sample, which has no canary for the sweep to look at. Those begin or end where their page does.
static void *swept_block(void) {
    char *p;
    do {
        p = small_block();
    } while ((uintptr_t)p % 4096 - 64 >= 4096 - 64 - SMALL - 64);
    return p;
}

// Stores, not memset: at level 3 memset asks first whether these bytes may be written.
static void scribble(char *p, char byte, size_t n) {
    for (volatile char *at = p; at < p + n; at++) {
        *at = byte;
    }
}

static void *large_block(void) {
    char *p = malloc(LARGE);
    memset(p, 'l', LARGE);
    return p;
}

static void *free_it(void *p) {
    free(p);
    return NULL;
}

static void in_thread(void *(*run)(void *), void *arg) {
    pthread_t t;
    if (pthread_create(&t, NULL, run, arg) != 0) {
        _exit(95);
    }
    pthread_join(t, NULL);
}

static void *make_block(void *out) {
    void *p = small_block();
    memcpy(out, &p, sizeof(p));
    return NULL;
}

#endif
