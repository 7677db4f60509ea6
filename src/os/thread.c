#include "src/os/thread.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BIT(number) ((uint64_t)1 << ((number)-1))
// What libc keeps for itself (32, 33: no program sees them): setuid waits until every thread has answered
// one of them.
#define LIBCS ((uint64_t)3 << 31)
#define FAULTS (BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGFPE) | BIT(SIGILL) | BIT(SIGTRAP) | BIT(SIGSYS))

// The kernel's own mask, of 64 bits: libc's functions keep two signals for themselves, whose handlers
// touch nothing of ours, but may be interposed.
static uint64_t set_mask(uint64_t mask) {
    const int saved = errno;
    uint64_t before = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &before, sizeof(mask));
    errno = saved;
    return before;
}

uint64_t thread_block_signals(void) {
    return set_mask(~(FAULTS | LIBCS));
}

void thread_allow_signals(uint64_t before) {
    (void)set_mask(before);
}

static void *run(void *body) {
    void (*function)(void);
    *(void **)&function = body;
    function();
    return NULL;
}

static atomic_bool is_forbidden;

void thread_forbid(void) {
    atomic_store_explicit(&is_forbidden, true, memory_order_relaxed);
}

bool thread_start(void (*body)(void)) {
    if (atomic_load_explicit(&is_forbidden, memory_order_relaxed)) {
        return false;
    }
    const int saved = errno;
    pthread_attr_t attributes;
    pthread_t id;
    bool is_started = false;
    if (pthread_attr_init(&attributes) == 0) {
        // The new thread inherits the mask, so that no handler of the program's ever runs on it.
        uint64_t before = thread_block_signals();
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attributes, (size_t)256 << 10);
        int error = pthread_create(&id, &attributes, run, *(void **)&body);
        if (error == EINVAL) { // a program with more thread-local storage than that
            pthread_attr_setstacksize(&attributes, (size_t)8 << 20);
            error = pthread_create(&id, &attributes, run, *(void **)&body);
        }
        is_started = error == 0;
        thread_allow_signals(before);
        pthread_attr_destroy(&attributes);
    }
    errno = saved;
    return is_started;
}

void thread_sleep(uint64_t ns) {
    const int saved = errno;
    struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
    errno = saved;
}
