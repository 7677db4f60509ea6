// Moments in which libc has every signal blocked, or an exec is near, and somebody touches the heap: under engine `signal`
// of the cold tier a touch of a page that is away is a signal (src/cold/mark.h). All that can go is sent away before each.
//
//   marked    a line for each, to be the same with and without Firn. Status 4: nothing goes
#include "firn/firn.h"

#include <aio.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#pragma weak firn_hint_cold
#pragma weak firn_stats

enum { BLOCKS = 20000, BYTES = 300, THREADS = 40, ROUNDS = 4, ROUND_US = 150000 };

static char *blocks[BLOCKS];
static int next_block;

static void check(const char *what, int is_right) {
    printf("%s %s\n", what, is_right ? "right" : "WRONG");
    (void)fflush(stdout);
}

static void make_blocks(void) {
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(BYTES);
        memset(blocks[i], 'a' + i % 20, BYTES);
        snprintf(blocks[i], BYTES, "block %d", i);
    }
}

// One that was not touched for long, with others around it.
static int touch_one(void) {
    char expected[32];
    int i = next_block++ * 97 % BLOCKS;
    snprintf(expected, sizeof expected, "block %d", i);
    return strcmp(blocks[i], expected) == 0;
}

// Private memory of nobody's, and Firn's heap among it: libc's own blocks, too.
static void hint_all(void) {
    char line[512];
    size_t from, until;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        if (strstr(line, " rw-p 00000000 00:00 0 \n") != NULL &&
            sscanf(line, "%zx-%zx", &from, &until) == 2) {
            firn_hint_cold((void *)from, until - from); // NOLINT(performance-no-int-to-ptr)
        }
    }
    if (maps != NULL) {
        (void)fclose(maps);
    }
}

static void send_all_away(void) {
    struct firn_stats s = {.struct_bytes = sizeof s};
    if (firn_hint_cold == NULL) {
        return;
    }
    for (int i = 0; i < ROUNDS; i++) {
        hint_all();
        usleep(ROUND_US);
    }
    if (firn_stats(&s) != 0 || s.cold_reason != NULL || s.freezes < BLOCKS / 20) {
        fprintf(stderr, "nothing goes: %s, %zu pages\n",
                s.cold_reason != NULL ? s.cold_reason : "?", s.freezes);
        exit(4);
    }
}

// ---- threads ------------------------------------------------------------------------------------

static pthread_barrier_t barrier;

static void *wait_twice(void *nothing) {
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return nothing;
}

// Each has a table of thread-local storage on the heap, which libc looks through when it has blocked everything. Half
// of them have never used the heap themselves.
static void threads_end(void) {
    pthread_t threads[THREADS];
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], i % 2 == 0 ? NULL : &detached, wait_twice, NULL);
    }
    pthread_barrier_wait(&barrier);
    send_all_away();
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < THREADS; i += 2) {
        pthread_join(threads[i], NULL);
    }
    usleep(100000);
    check("threads end", touch_one());
}

static void *touch_in_thread(void *result) {
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    *(int *)result = touch_one() && sigismember(&mask, SIGSEGV) == 1;
    return NULL;
}

// Its extension is on the heap.
static void attributes_are_used(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    cpu_set_t cpus;
    sigset_t mask;
    int is_right = 0;
    sigfillset(&mask);
    sched_getaffinity(0, sizeof cpus, &cpus);
    pthread_attr_init(&attributes);
    pthread_attr_setaffinity_np(&attributes, sizeof cpus, &cpus);
    pthread_attr_setsigmask_np(&attributes, &mask);
    send_all_away();
    int error = pthread_create(&thread, &attributes, touch_in_thread, &is_right);
    if (error == 0) {
        pthread_join(thread, NULL);
    }
    pthread_attr_destroy(&attributes);
    check("attributes", error == 0 && is_right);
}

// ---- masks --------------------------------------------------------------------------------------

static volatile sig_atomic_t is_handled;

static void touch_in_handler(int number) {
    (void)number;
    is_handled = touch_one() ? 1 : -1;
}

// Comes as soon as the call lets it.
static void raise_later(sigset_t *all_but_it) {
    sigset_t only;
    struct sigaction a = {.sa_handler = touch_in_handler};
    sigfillset(&a.sa_mask);
    sigaction(SIGUSR1, &a, NULL);
    sigemptyset(&only);
    sigaddset(&only, SIGUSR1);
    sigprocmask(SIG_BLOCK, &only, NULL);
    sigfillset(all_but_it);
    sigdelset(all_but_it, SIGUSR1);
    is_handled = 0;
    raise(SIGUSR1);
}

static void calls_sleep_with_a_mask(void) {
    sigset_t mask;
    struct timespec time = {5, 0};
    struct epoll_event event;
    int epoll = epoll_create1(0);
    send_all_away();
    raise_later(&mask);
    check("ppoll", ppoll(NULL, 0, &time, &mask) == -1 && errno == EINTR && is_handled == 1);
    raise_later(&mask);
    check("pselect",
          pselect(0, NULL, NULL, NULL, &time, &mask) == -1 && errno == EINTR && is_handled == 1);
    raise_later(&mask);
    check("epoll_pwait",
          epoll_pwait(epoll, &event, 1, 5000, &mask) == -1 && errno == EINTR && is_handled == 1);
    raise_later(&mask);
    check("epoll_pwait2",
          epoll_pwait2(epoll, &event, 1, &time, &mask) == -1 && errno == EINTR && is_handled == 1);
    raise_later(&mask);
    check("sigsuspend", sigsuspend(&mask) == -1 && errno == EINTR && is_handled == 1);
    close(epoll);
}

static void the_program_blocks_everything(void) {
    sigset_t all, before, now;
    send_all_away();
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    int is_right = touch_one();
    sigprocmask(SIG_SETMASK, &before, &now);
    check("sigprocmask",
          is_right && sigismember(&now, SIGSEGV) == 1 && sigismember(&before, SIGSEGV) == 0);
}

// ---- children -----------------------------------------------------------------------------------

static int status_of(pid_t pid) {
    int status = -1;
    return pid > 0 && waitpid(pid, &status, 0) == pid ? status : -1;
}

static void a_vfork_child_resets_handlers(void) {
    char **arguments = malloc(3 * sizeof *arguments);
    arguments[0] = strdup("sh");
    arguments[1] = strdup("-c");
    arguments = realloc(arguments, 4 * sizeof *arguments);
    arguments[2] = strdup("exit 7");
    arguments[3] = NULL;
    send_all_away();
    pid_t pid = vfork();
    if (pid == 0) {
        for (int number = 1; number < 32; number++) {
            signal(number, SIG_DFL);
        }
        if (touch_one()) {
            execv("/bin/sh", arguments);
        }
        _exit(1);
    }
    check("vfork", status_of(pid) == 7 << 8);
    next_block++;
}

static void libc_runs_a_command(void) {
    char *command = strdup("exit 6");
    send_all_away();
    check("system", system(command) == 6 << 8); // NOLINT(concurrency-mt-unsafe)
}

// ---- libc's helpers, which block everything for as long as they live: last --------------------------

static atomic_int ticks;

static void tick(union sigval value) {
    (void)value;
    atomic_fetch_add(&ticks, touch_one() ? 1 : 100);
}

static void timers_start_threads(void) {
    timer_t timers[8];
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = tick};
    struct itimerspec once = {.it_value = {0, 1000000}};
    for (int i = 0; i < 8; i++) {
        timer_create(CLOCK_MONOTONIC, &event, &timers[i]);
    }
    send_all_away();
    for (int i = 0; i < 8; i++) {
        timer_settime(timers[i], 0, &once, NULL);
    }
    for (int i = 0; i < 200 && atomic_load(&ticks) < 8; i++) {
        usleep(10000);
    }
    check("timers", atomic_load(&ticks) == 8);
}

static void aio_reads(void) {
    char *room = malloc(64);
    struct aiocb *request = calloc(1, sizeof *request);
    const struct aiocb *list[] = {request};
    request->aio_fildes = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
    request->aio_buf = room;
    request->aio_nbytes = 64;
    int is_right = 1;
    for (int i = 0; i < 2; i++) {
        is_right &= aio_read(request) == 0 && aio_suspend(list, 1, NULL) == 0 &&
                    aio_error(request) == 0 && aio_return(request) == 7;
        send_all_away();
    }
    check("aio", is_right && memcmp(room, "marked\n", 7) == 0);
}

int main(void) {
    make_blocks();
    threads_end();
    attributes_are_used();
    calls_sleep_with_a_mask();
    the_program_blocks_everything();
    a_vfork_child_resets_handlers();
    libc_runs_a_command();
    timers_start_threads();
    aio_reads();
    return 0;
}
