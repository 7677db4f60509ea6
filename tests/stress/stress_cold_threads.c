// Threads that never allocate, and end while pages are away under engine `protect`: libc then touches its records of other
// threads, which are in the heap, with all signals blocked. A touch of a page that is away would end the process.
//
// firn-test: levels=2 timeout=120 sanitize=none

#include "tests/stress/stress.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>

enum { THREADS = 24, BLOCKS = 20000 };

static unsigned char *blocks[BLOCKS];
static atomic_uint alive, ended;

static uint32_t bytes_of(unsigned i) {
    return 16 + i % 600;
}

// More of their stacks than libc keeps: the records of one go with each that ends.
static void *sleep_and_end(void *context) {
    stress_sleep_ms(150 + (unsigned)(uintptr_t)context);
    atomic_fetch_add(&ended, 1);
    atomic_fetch_sub(&alive, 1);
    return NULL;
}

static void start_thread(unsigned ms) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    STRESS_CHECK(pthread_create(&thread, &attributes, sleep_and_end, (void *)(uintptr_t)ms) == 0,
                 "no thread");
    atomic_fetch_add(&alive, 1);
    pthread_attr_destroy(&attributes);
}

int main(int argc, char **argv) {
    if (getenv("FIRN_OPTIONS") == NULL) {
        setenv("FIRN_OPTIONS", "cold=on:cold_after=1:fault=protect", 1);
        setenv("FIRN_TEST_COLD", "300", 1); // milliseconds instead
        execv("/proc/self/exe", argv);
        return 127;
    }
    stress_seconds = 6;
    stress_start("stress_cold_threads", argc, argv);
    struct rng rng = rng_for(0);
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(bytes_of(i));
        STRESS_CHECK(blocks[i] != NULL, "malloc failed");
        memset(blocks[i], (int)(i % 251), bytes_of(i));
    }
    while (!stress_time_is_up()) {
        while (atomic_load(&alive) < THREADS) {
            start_thread((unsigned)rng_below(&rng, 600));
        }
        stress_sleep_ms(20);
    }
    while (atomic_load(&alive) > 0) {
        stress_sleep_ms(1);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        STRESS_CHECK(blocks[i][bytes_of(i) - 1] == i % 251, "block %u has changed", i);
    }
    printf("ok stress_cold_threads: %u threads\n", atomic_load(&ended));
    return 0;
}
