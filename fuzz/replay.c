// Every input of fuzz/corpus as a unit test, each in a process of its own, without a fuzzer.
// firn-test: timeout=300 sanitize=address wrap=fatal,abort,sys_write,syscall,clock_coarse_ns
//
// Runs at the repository's root. With arguments TARGET FILE..., these inputs one after the other in this
// process: what afl-fuzz found may need the state that earlier inputs left.
#include "fuzz/fuzz.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { INPUT_MOST = 1 << 20, SECONDS_MOST = 60 };

struct target {
    const char *name;
    int (*run)(const uint8_t *data, size_t size);
};

static const struct target targets[] = {
#define TARGET(name) {#name, firn_fuzz_##name},
    FUZZ_TARGETS(TARGET)
#undef TARGET
};
enum { TARGETS = sizeof(targets) / sizeof(targets[0]) };

static uint8_t data[INPUT_MOST];
static unsigned failed;

static bool read_input(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    *size = file != NULL ? fread(data, 1, sizeof(data), file) : 0;
    return file != NULL && fclose(file) == 0;
}

// The wait status of a child that runs the target. What it says goes to the log.
static int run_apart(const struct target *target, size_t size) {
    int status = -1;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(SECONDS_MOST);
        _exit(target->run(data, size));
    }
    return child > 0 && waitpid(child, &status, 0) == child ? status : -1;
}

static void judge(const char *what, bool is_good, int status) {
    if (is_good) {
        printf("ok %s\n", what);
    } else {
        printf("not ok %s: wait status %#x\n", what, (unsigned)status);
        failed++;
    }
}

static void replay_file(const struct target *target, const char *file) {
    char path[512];
    size_t size = 0;
    snprintf(path, sizeof(path), "fuzz/corpus/%s/%s", target->name, file);
    int status = read_input(path, &size) ? run_apart(target, size) : -1;
    judge(path, status == 0, status);
}

static int is_visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static void replay_target(const struct target *target) {
    char path[512];
    struct dirent **files = NULL;
    snprintf(path, sizeof(path), "fuzz/corpus/%s", target->name);
    int count = scandir(path, &files, is_visible, alphasort);
    if (count <= 0) {
        judge(path, false, count);
    }
    for (int i = 0; i < count; i++) {
        replay_file(target, files[i]->d_name);
        free(files[i]);
    }
    free(files);
}

// A harness that cannot fail proves nothing.
static void check_harness(void) {
    static const struct target planted = {"planted", firn_fuzz_planted};
    memcpy(data, "crash", 5);
    int status = run_apart(&planted, 5);
    judge("a failing target is noticed", WIFSIGNALED(status), status);
    status = run_apart(&planted, 4);
    judge("a passing target is not", status == 0, status);
}

static int run_files(int argc, char **argv) {
    const struct target *target = NULL;
    for (size_t i = 0; i < TARGETS; i++) {
        target = strcmp(argv[1], targets[i].name) == 0 ? &targets[i] : target;
    }
    for (int i = 2; target != NULL && i < argc; i++) {
        size_t size = 0;
        if (!read_input(argv[i], &size)) {
            perror(argv[i]);
            return 1;
        }
        (void)target->run(data, size);
    }
    if (target == NULL || argc < 3) {
        fprintf(stderr, "usage: replay [TARGET FILE...]\n");
    }
    return target != NULL && argc >= 3 ? 0 : 2;
}

int main(int argc, char **argv) {
    if (argc > 1) {
        return run_files(argc, argv);
    }
    check_harness();
    for (size_t i = 0; i < TARGETS; i++) {
        replay_target(&targets[i]);
    }
    return failed > 0;
}
