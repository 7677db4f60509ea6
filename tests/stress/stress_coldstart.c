// Forks at the very moment in which the cold tier starts, in one process after another: a fork waits in the kernel for
// Firn's thread to read of it, with the heap's locks held, so that thread must not need them any more.
//
// firn-test: levels=2 timeout=200 sanitize=none
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PROCESSES = 60, FORKS = 40, BLOCKS = 8, MOST_MS = 20000 };

// Large ones tick the upkeep, by which it starts.
static void allocate(void) {
    void *blocks[BLOCKS];
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(40000 + i * 1000);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        free(blocks[i]);
    }
}

static void fork_all_the_time(void) {
    for (unsigned i = 0; i < FORKS; i++) {
        allocate();
        pid_t child = fork();
        if (child == 0) {
            _exit(0);
        }
        int status;
        (void)waitpid(child, &status, 0);
    }
    _exit(0);
}

// False when it does not end.
static int ends(pid_t process) {
    struct timespec ms = {0, 1000000};
    int status = 1;
    for (unsigned i = 0; i < MOST_MS; i++) {
        if (waitpid(process, &status, WNOHANG) == process) {
            return status == 0;
        }
        nanosleep(&ms, NULL);
    }
    kill(process, SIGKILL);
    (void)waitpid(process, &status, 0);
    return 0;
}

int main(int argc, char **argv) {
    (void)argc;
    if (getenv("FIRN_OPTIONS") == NULL) {
        setenv("FIRN_OPTIONS", "cold=on:cold_after=1", 1);
        execv("/proc/self/exe", argv);
        return 1;
    }
    for (unsigned i = 0; i < PROCESSES; i++) {
        pid_t process = fork();
        if (process == 0) {
            fork_all_the_time();
        }
        if (!ends(process)) {
            printf("not ok stress_coldstart: process %u does not end\n", i);
            return 1;
        }
    }
    puts("ok stress_coldstart");
    return 0;
}
