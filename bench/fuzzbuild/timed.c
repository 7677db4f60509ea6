// Runs a program and prints its CPU time (user and system, with its children) in nanoseconds.
//
//   timed OUT-FD PROGRAM ARG...      exit status: the program's, 255 if it died of a signal
//
// CPU time and not wall-clock time: what else the machine does then matters less.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int64_t nanoseconds(struct timeval t) {
    return (int64_t)t.tv_sec * 1000000000 + (int64_t)t.tv_usec * 1000;
}

int main(int argc, char **argv) {
    struct rusage used;
    int status;
    if (argc < 3) {
        return 2;
    }
    pid_t child = fork();
    if (child == 0) {
        const char *preload = getenv("TIMED_PRELOAD");
        if (preload != NULL && *preload != '\0') {
            setenv("LD_PRELOAD", preload, 1);
        }
        execvp(argv[2], argv + 2);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &used) != child) {
        return 2;
    }
    dprintf(atoi(argv[1]), "%lld\n",
            (long long)(nanoseconds(used.ru_utime) + nanoseconds(used.ru_stime)));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}
