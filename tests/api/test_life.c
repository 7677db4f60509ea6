// Allocation at every hour of a process: before main, in destructors, at exit, in modules that come
// and go, in dying threads. Each mode is a process of its own, because a process ends only once.
#include "tests/api/api.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char *from_constructor;
static const char *mode = "";
static atomic_int trouble; // set by any mode that found something wrong

// Says so without stdio: it may be past its end.
static void say(const char *text) {
    if (write(STDOUT_FILENO, text, strlen(text)) < 0) {
        trouble = 1;
    }
}

static void use_heap(void) {
    for (size_t n = 1; n < 200000; n = n * 2 + 1) {
        char *p = malloc(n);
        char *q = calloc(1, n);
        if (p == NULL || q == NULL) {
            trouble = 1;
            return;
        }
        memset(p, 'x', n);
        p = realloc(p, n * 2);
        if (p == NULL || p[n - 1] != 'x' || q[n - 1] != 0) {
            trouble = 1;
        }
        free(p);
        free(q);
    }
}

__attribute__((constructor)) static void before_main(void) {
    from_constructor = malloc(777);
    memset(from_constructor, 'c', 777);
    use_heap();
}

__attribute__((destructor)) static void after_main(void) {
    for (int i = 0; i < 777; i++) {
        trouble |= from_constructor[i] != 'c';
    }
    free(from_constructor);
    use_heap();
    if (mode[0] != '\0') {
        say(trouble ? "trouble\n" : "destructor\n");
    }
}

// ---- modes ----

static void at_exit(void) {
    use_heap();
    say("atexit\n");
}

static int mode_exit(void) {
    atexit(at_exit);
    say("main\n");
    return 0;
}

static void *outlive_main(void *arg) {
    (void)arg;
    for (int i = 0; i < 20; i++) {
        use_heap();
        usleep(2000);
    }
    say("thread\n");
    exit(0);
}

static int mode_thread_after_main(void) {
    pthread_t t;
    pthread_create(&t, NULL, outlive_main, NULL);
    say("main\n");
    pthread_exit(NULL);
}

static void *allocate_for_ever(void *arg) {
    (void)arg;
    void *p[32] = {0};
    for (unsigned i = 0;; i++) {
        free(p[i % 32]);
        p[i % 32] = malloc((i * 37u) % 3000);
    }
    return NULL;
}

static int mode_exit_under_load(void) {
    for (int i = 0; i < 4; i++) {
        pthread_t t;
        pthread_create(&t, NULL, allocate_for_ever, NULL);
    }
    usleep(3000);
    say("main\n");
    return 0;
}

static pthread_key_t keys[3];
static atomic_int key_runs;

// The heap's own end of the thread may have come before this, or may come after: either is fine.
static void key_end(void *value) {
    const int round = *(int *)value;
    free(value);
    use_heap();
    key_runs++;
    if (round < 3) {
        int *again = malloc(sizeof(*again));
        *again = round + 1;
        pthread_setspecific(keys[round % 3], again);
    }
}

static void *use_keys(void *arg) {
    for (int i = 0; i < 3; i++) {
        int *value = malloc(sizeof(*value));
        *value = 0;
        pthread_setspecific(keys[i], value);
    }
    return arg;
}

static int mode_keys(void) {
    for (int i = 0; i < 3; i++) {
        pthread_key_create(&keys[i], key_end);
    }
    for (int i = 0; i < 200; i++) {
        pthread_t t;
        trouble |= pthread_create(&t, NULL, use_keys, NULL) != 0;
        pthread_join(t, NULL);
    }
    trouble |= key_runs < 600;
    say("main\n");
    return 0;
}

static void *use_module(void *arg) {
    int (*is_sound)(void) = NULL;
    memcpy(&is_sound, arg, sizeof(is_sound));
    for (int i = 0; i < 50; i++) {
        trouble |= !is_sound();
    }
    return NULL;
}

static void load_module(const char *path, int flags) {
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL | flags);
    if (module == NULL) {
        say(dlerror());
        trouble = 1;
        return;
    }
    void *make_symbol = dlsym(module, "module_make");
    void *take_symbol = dlsym(module, "module_take");
    void *sound_symbol = dlsym(module, "module_is_sound");
    void *(*make)(size_t) = NULL;
    void (*take)(void *) = NULL;
    memcpy(&make, &make_symbol, sizeof(make));
    memcpy(&take, &take_symbol, sizeof(take));
    char *p = make(400);
    trouble |= p[399] != 'm';
    free(p);
    take(malloc(400));
    pthread_t t;
    pthread_create(&t, NULL, use_module, &sound_symbol);
    use_module(&sound_symbol);
    pthread_join(t, NULL);
    trouble |= dlclose(module) != 0;
}

// Blocks cross between the module and its host, whatever the module was loaded with.
static int load_modules(int flags) {
    char path[PATH_MAX + 32];
    const ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);
    path[n > 0 ? n : 0] = '\0';
    char *end = strrchr(path, '/');
    snprintf(end, 32, "/libmodule.so");
    for (int i = 0; i < 30; i++) {
        load_module(path, flags);
    }
    say("main\n");
    return 0;
}

static int mode_module(void) {
    return load_modules(0);
}

static int mode_module_bound_deeply(void) {
    return load_modules(RTLD_DEEPBIND);
}

static int mode_quick_exit(void) {
    at_quick_exit(at_exit);
    use_heap();
    say("main\n");
    quick_exit(trouble);
}

// Nothing of stdio, and nothing of the program, has descriptors any more.
static int mode_closed_descriptors(void) {
    for (int fd = 3; fd < 1024; fd++) {
        close(fd);
    }
    use_heap();
    say("main\n");
    return 0;
}

static const struct {
    const char *name;
    int (*run)(void);
    const char *output;
} modes[] = {
    {"exit", mode_exit, "main\natexit\ndestructor\n"},
    {"thread-after-main", mode_thread_after_main, "main\nthread\ndestructor\n"},
    {"exit-under-load", mode_exit_under_load, "main\ndestructor\n"},
    {"keys", mode_keys, "main\ndestructor\n"},
    {"module", mode_module, "main\ndestructor\n"},
    {"module-bound-deeply", mode_module_bound_deeply, "main\ndestructor\n"},
    {"quick-exit", mode_quick_exit, "main\natexit\n"},
    {"closed-descriptors", mode_closed_descriptors, "main\ndestructor\n"},
};
enum { MODES = sizeof(modes) / sizeof(modes[0]) };

// ---- the other side ----

static void expect_mode(const char *name) {
    char output[256];
    int ends[2], status = -1;
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        alarm(30); // a deadlock at exit is a failure, not a wait
        execl("/proc/self/exe", "test_life", name, (char *)NULL);
        _exit(98);
    }
    close(ends[1]);
    size_t n = 0;
    ssize_t got;
    while (n + 1 < sizeof(output) &&
           (got = read(ends[0], output + n, sizeof(output) - 1 - n)) > 0) {
        n += (size_t)got;
    }
    output[n] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    for (int i = 0; i < MODES; i++) {
        if (strcmp(modes[i].name, name) == 0) {
            assert_string_equal(output, modes[i].output);
        }
    }
    assert_int_equal(status, 0);
}

static void test_exit(void **state) {
    (void)state;
    expect_mode("exit");
}

static void test_thread_after_main(void **state) {
    (void)state;
    expect_mode("thread-after-main");
}

// The threads are wherever they are when the destructors run: many tries.
static void test_exit_under_load(void **state) {
    (void)state;
    for (int i = 0; i < 40; i++) {
        expect_mode("exit-under-load");
    }
}

static void test_key_destructors(void **state) {
    (void)state;
    expect_mode("keys");
}

static void test_modules_come_and_go(void **state) {
    (void)state;
    expect_mode("module");
    expect_mode("module-bound-deeply");
}

static void test_quick_exit(void **state) {
    (void)state;
    expect_mode("quick-exit");
}

static void test_closed_descriptors(void **state) {
    (void)state;
    expect_mode("closed-descriptors");
}

int main(int argc, char **argv) {
    api_require_firn("test_life");
    for (int i = 0; argc > 1 && i < MODES; i++) {
        if (strcmp(modes[i].name, argv[1]) == 0) {
            mode = modes[i].name;
            return modes[i].run();
        }
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exit),
        cmocka_unit_test(test_thread_after_main),
        cmocka_unit_test(test_exit_under_load),
        cmocka_unit_test(test_key_destructors),
        cmocka_unit_test(test_modules_come_and_go),
        cmocka_unit_test(test_quick_exit),
        cmocka_unit_test(test_closed_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
