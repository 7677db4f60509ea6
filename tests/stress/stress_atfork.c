// Fork handlers that the program registered before its first allocation, so before Firn's if Firn
// waited for that: they allocate, and take a lock that another thread holds while it allocates.
// And fork from a timer's signal handler, whatever of the heap it interrupted.
//
// firn-test: levels=0,1,2,3 timeout=300 sanitize=none

#include "tests/stress/stress.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <sys/wait.h>

#define BLOCKS 400u
#define ROUNDS 12u
#define HANG_SECONDS 20u
#define TIMER_US 400
#define SIGNALS 150

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool stop;
static unsigned handled;
static bool is_quiet; // in a signal handler they may neither allocate nor lock

static void churn(uint64_t stream) {
    struct rng rng = rng_for(stream);
    void *blocks[BLOCKS];
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = block_new(&rng, rng_size(&rng));
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        block_free(blocks[i], "churn");
    }
}

static void on_prepare(void) {
    if (!is_quiet) {
        pthread_mutex_lock(&mutex);
        churn(++handled);
    }
}

static void on_fork(void) {
    if (!is_quiet) {
        churn(++handled);
        pthread_mutex_unlock(&mutex);
    }
}

static void *hold_and_churn(void *unused) {
    for (uint64_t stream = 1000; !atomic_load_explicit(&stop, memory_order_relaxed); stream++) {
        pthread_mutex_lock(&mutex);
        churn(stream);
        pthread_mutex_unlock(&mutex);
        stress_sleep_ms(1);
    }
    return unused;
}

static void wait_for(pid_t child) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {
        STRESS_CHECK(errno == EINTR, "waitpid: %s", strerror(errno));
    }
    STRESS_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child ended with %#x", status);
}

static void fork_with_handlers(void) {
    pthread_t thread = stress_thread(hold_and_churn, NULL);
    for (unsigned i = 0; i < ROUNDS; i++) {
        pid_t child = fork();
        STRESS_CHECK(child >= 0, "fork: %s", strerror(errno));
        if (child == 0) {
            alarm(HANG_SECONDS);
            churn(i);
            _exit(0);
        }
        wait_for(child);
    }
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    stress_join(thread);
    alarm(0);
    STRESS_CHECK(handled == 2 * ROUNDS, "%u handlers ran", handled);
}

// ---- fork from a signal handler ----

static volatile sig_atomic_t signals;

static void arm(void) {
    struct itimerval once = {.it_value = {.tv_usec = TIMER_US + signals % 97}};
    STRESS_CHECK(setitimer(ITIMER_REAL, &once, NULL) == 0, "setitimer: %s", strerror(errno));
}

static void on_alarm(int number) {
    int saved = errno;
    (void)number;
    pid_t child = fork();
    STRESS_CHECK(child >= 0, "fork: %s", strerror(errno));
    if (child == 0) {
        _exit(0);
    }
    wait_for(child);
    signals++;
    arm();
    errno = saved;
}

static void fork_from_signals(void) {
    struct sigaction action = {.sa_handler = on_alarm};
    is_quiet = true;
    STRESS_CHECK(sigaction(SIGALRM, &action, NULL) == 0, "sigaction: %s", strerror(errno));
    arm();
    for (uint64_t stream = 1; signals < SIGNALS; stream++) { // a hang is for the runner to end
        churn(stream);
        mem_trim(); // so that the next round works under locks, too
    }
    struct itimerval never = {0};
    setitimer(ITIMER_REAL, &never, NULL);
}

int main(int argc, char **argv) {
    STRESS_CHECK(pthread_atfork(on_prepare, on_fork, on_fork) == 0, "pthread_atfork failed");
    alarm(HANG_SECONDS);
    stress_start("stress_atfork", argc, argv);
    fork_with_handlers();
    fork_from_signals();
    printf("ok stress_atfork handlers %u, forks from signals %d\n", handled, (int)signals);
    return 0;
}
