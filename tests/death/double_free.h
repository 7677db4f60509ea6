// The part of misuse.c in which something is freed twice.
#ifndef FIRN_TESTS_DEATH_DOUBLE_FREE_H
#define FIRN_TESTS_DEATH_DOUBLE_FREE_H

#include "tests/death/misuse.h"

static void double_free_immediate(void) {
    void *p = aim(small_block());
    free(p);
    free(p);
}

static void double_free_after_others(void) {
    void *other[20];
    void *p = aim(small_block());
    for (int i = 0; i < 20; i++) {
        other[i] = small_block();
    }
    free(p);
    for (int i = 0; i < 20; i++) {
        free(other[i]);
    }
    free(p);
}

static void double_free_tiny(void) {
    void *p = aim(malloc(1));
    free(p);
    free(p);
}

static void double_free_remote_after_local(void) {
    void *p = aim(small_block());
    free(p);
    in_thread(free_it, p);
}

static void double_free_local_after_remote(void) {
    void *p = aim(small_block());
    in_thread(free_it, p);
    free(p);
}

static void double_free_two_remotes(void) {
    void *p = aim(small_block());
    in_thread(free_it, p);
    in_thread(free_it, p);
}

static void *free_twice(void *p) {
    free(p);
    free(p);
    return NULL;
}

static void double_free_one_remote(void) {
    in_thread(free_twice, aim(small_block()));
}

static void double_free_of_dead_threads_block(void) {
    void *p = NULL;
    in_thread(make_block, &p);
    aim(p);
    free(p);
    free(p);
}

static void double_free_in_child(void) {
    void *p = aim(small_block());
    free(p);
    const pid_t child = fork();
    if (child == 0) {
        free(p);
        _exit(3);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
    }
}

static void double_free_after_trim(void) {
    void *other[200];
    for (int i = 0; i < 200; i++) {
        other[i] = small_block();
    }
    void *p = aim(other[100]);
    for (int i = 0; i < 200; i++) {
        free(other[i]);
    }
    malloc_trim(0);
    free(p);
}

static void double_free_after_realloc_moved(void) {
    void *p = aim(small_block());
    void *q = realloc(p, LARGE);
    if (q != p) {
        free(p);
    }
}

static void double_free_after_realloc_zero(void) {
    void *p = aim(small_block());
    if (realloc(p, 0) == NULL) {
        free(p);
    }
}

static void double_free_by_realloc(void) {
    void *p = aim(small_block());
    free(p);
    p = realloc(p, 300);
}

static void double_free_by_realloc_zero(void) {
    void *p = aim(small_block());
    free(p);
    p = realloc(p, 0);
}

static void double_free_by_reallocarray(void) {
    void *p = aim(small_block());
    free(p);
    p = reallocarray(p, 30, 10);
}

static void double_free_by_usable_size(void) {
    void *p = aim(small_block());
    free(p);
    malloc_usable_size(p);
}

static void double_free_by_cfree(void) {
    void *p = aim(small_block());
    free(p);
    cfree(p);
}

static void double_free_by_free_sized(void) {
    void *p = aim(small_block());
    free_sized(p, SMALL);
    free_sized(p, SMALL);
}

static void double_free_by_delete(void) {
    void *p = aim(_Znwm(SMALL));
    _ZdlPv(p);
    _ZdlPv(p);
}

static void double_free_by_delete_array(void) {
    void *p = aim(_Znwm(SMALL));
    _ZdaPv(p);
    _ZdaPv(p);
}

static void double_free_by_sized_delete(void) {
    void *p = aim(_Znwm(SMALL));
    _ZdlPvm(p, SMALL);
    _ZdlPvm(p, SMALL);
}

static void double_free_by_nothrow_delete(void) {
    void *p = aim(_Znwm(SMALL));
    _ZdlPv(p);
    _ZdlPvRKSt9nothrow_t(p, "");
}

static void double_free_by_aligned_delete(void) {
    void *p = aim(_ZnwmSt11align_val_t(SMALL, 64));
    _ZdlPvSt11align_val_t(p, 64);
    _ZdlPvSt11align_val_t(p, 64);
}

static void double_free_calloc(void) {
    void *p = aim(calloc(10, 26));
    free(p);
    free(p);
}

static void double_free_large(void) {
    void *p = aim(large_block());
    free(p);
    free(p);
}

static void double_free_large_after_others(void) {
    void *p = aim(large_block());
    void *q = large_block();
    void *r = malloc(3 * LARGE);
    free(p);
    free(q);
    free(r);
    free(p);
}

static void double_free_large_after_trim(void) {
    void *p = aim(large_block());
    free(p);
    malloc_trim(0);
    free(p);
}

static void double_free_large_remote(void) {
    void *p = aim(large_block());
    in_thread(free_it, p);
    free(p);
}

static void double_free_large_by_realloc(void) {
    void *p = aim(large_block());
    free(p);
    p = realloc(p, 5 * LARGE);
}

// A block in the middle cannot grow where it is.
static void double_free_large_after_realloc_moved(void) {
    enum { COUNT = 64 };
    char *block[COUNT];
    for (int i = 0; i < COUNT; i++) {
        block[i] = large_block();
    }
    for (int i = 0; i < COUNT; i++) {
        char *old = block[i];
        block[i] = realloc(old, 10 * LARGE);
        if (block[i] != old) {
            free(aim(old));
        }
    }
}

static void double_free_aligned_large(void) {
    void *p = aim(aligned_alloc(65536, LARGE));
    free(p);
    free(p);
}

// A program cannot keep its end away, or cannot hear of it.
static void ignore_signal(int number) {
    (void)number;
}

static void double_free_with_handler(void) {
    signal(SIGABRT, ignore_signal);
    double_free_immediate();
}

static void double_free_with_signal_ignored(void) {
    signal(SIGABRT, SIG_IGN);
    double_free_immediate();
}

static void double_free_with_signal_blocked(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    double_free_immediate();
}

static void double_free_despite_check_action(void) {
    mallopt(M_CHECK_ACTION, 0);
    double_free_immediate();
}

static void double_free_at_exit(void) {
    atexit(double_free_immediate);
    exit(0);
}

#endif
