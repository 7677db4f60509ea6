// P-SAMPLE. What a program dies of that misuses a guarded sample: the exact line, and who allocated and
// who freed the block below it. Each scenario in a process of its own, which waits for a sample first.
#include "tests/api/api.h"
#include "tests/support/memory.h"

#include <malloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { SIZE = 200, PAGE = 4096 };

static char program[4096];

// Alone on its page, and nothing on either side: no slot of this size lies so.
static int is_sample(const char *p) {
    const uintptr_t page = (uintptr_t)p & ~(uintptr_t)(PAGE - 1);
    const uintptr_t last = (uintptr_t)(p + SIZE - 1) & ~(uintptr_t)(PAGE - 1);
    return page == last && !memory_can_read(page - 1) && !memory_can_read(page + PAGE);
}

static char *wait_for_sample(int is_low) {
    for (unsigned i = 0; i < 20000000; i++) {
        char *p = malloc(SIZE);
        const uintptr_t offset = (uintptr_t)p % PAGE;
        // Cheap first: a sample begins or ends at a page.
        if ((offset == 0 || offset == PAGE - SIZE - 8) && is_sample(p) && (offset == 0) == is_low) {
            return p;
        }
        free(p);
    }
    _exit(97);
}

static void say(const char *p) {
    char text[32];
    const int n = snprintf(text, sizeof(text), "%p\n", (const void *)p);
    if (write(STDOUT_FILENO, text, (size_t)n) != n) {
        _exit(96);
    }
}

// Samples that are freed one right after the other stay accessible for a while: a few, freed, until one
// of them did.
static char *free_in_a_hurry(void) {
    enum { HELD = 8 };
    char *held[HELD];
    for (unsigned i = 0; i < HELD; i++) {
        held[i] = wait_for_sample(0);
    }
    for (unsigned i = 0; i < HELD; i++) {
        free(held[i]);
        if (memory_can_read((uintptr_t)held[i])) {
            return held[i];
        }
    }
    _exit(95);
}

// What to do with a sample. `at`: the address the report is to name.
static void misuse(const char *what) {
    const int is_low = strstr(what, "-low") != NULL;
    if (strstr(what, "-in-a-hurry") != NULL) {
        char *freed = free_in_a_hurry();
        say(freed);
        freed[3] ^= 2; // not what stands there, whatever that is
        if (strstr(what, "trim") != NULL) {
            malloc_trim(0);
        }
        (void)wait_for_sample(2); // never comes
    }
    volatile char *p = wait_for_sample(is_low);
    char *q = (char *)p;
    usleep(100000); // no hurry
    if (strcmp(what, "overflow") == 0) {
        say(q + SIZE + 8); // the first 8 bytes are alignment's
        p[SIZE + 8] = 1;
    } else if (strcmp(what, "overread") == 0) {
        say(q + SIZE + 8);
        (void)p[SIZE + 8];
    } else if (strcmp(what, "underflow-low") == 0) {
        say(q - 1);
        p[-1] = 1;
    } else if (strcmp(what, "write-after-free") == 0) {
        say(q + 3);
        free(q);
        p[3] = 1;
    } else if (strcmp(what, "read-after-free") == 0) {
        say(q + 3);
        free(q);
        (void)p[3];
    } else if (strcmp(what, "overflow-at-free") == 0) {
        say(q);
        p[SIZE] = 0;
        free(q);
    } else if (strcmp(what, "underflow-at-free") == 0) {
        say(q);
        p[-2] = 0;
        free(q);
    } else if (strcmp(what, "double-free") == 0) {
        say(q);
        free(q);
        free(q);
    } else if (strcmp(what, "handled") == 0) {
        say(q);
        signal(SIGSEGV, _exit); // the program's own: gets what is its
        p[SIZE + 8] = 1;
    }
}

static const struct scenario {
    const char *what, *slug, *api, *found, *expected;
    int is_freed;
} scenarios[] = {
    {"overflow", "sampled-overflow", "write",
     "8 bytes past the end of a sampled block of 200 bytes", "an address inside the block", 0},
    {"overread", "sampled-overflow", "read", "8 bytes past the end of a sampled block of 200 bytes",
     "an address inside the block", 0},
    {"underflow-low", "sampled-underflow", "write",
     "1 bytes before the start of a sampled block of 200 bytes", "an address inside the block", 0},
    {"write-after-free", "sampled-use-after-free", "write",
     "3 bytes into a freed sampled block of 200 bytes", "a live block", 1},
    {"read-after-free", "sampled-use-after-free", "read",
     "3 bytes into a freed sampled block of 200 bytes", "a live block", 1},
    {"write-after-free-in-a-hurry", "sampled-use-after-free", "malloc",
     "3 bytes into a freed sampled block of 200 bytes", "a live block", 1},
    {"write-trim-in-a-hurry", "sampled-use-after-free", "malloc_trim",
     "3 bytes into a freed sampled block of 200 bytes", "a live block", 1},
    {"overflow-at-free", "sampled-overflow", "free",
     "0 bytes past the end of a sampled block of 200 bytes", "an address inside the block", 0},
    {"underflow-at-free", "sampled-underflow", "free",
     "2 bytes before the start of a sampled block of 200 bytes", "an address inside the block", 0},
    {"double-free", "double-free", "free", "block is already free", "a live slot", 1},
};
enum { SCENARIOS = sizeof(scenarios) / sizeof(scenarios[0]) };

struct end {
    int status;
    char said[16384], aimed[64];
};

static void read_all(int fd, char *text, size_t capacity) {
    size_t n = 0;
    ssize_t got;
    while (n + 1 < capacity && (got = read(fd, text + n, capacity - 1 - n)) > 0) {
        n += (size_t)got;
    }
    text[n] = '\0';
    close(fd);
}

static void run(const char *what, struct end *end) {
    int out[2], err[2];
    assert_int_equal(pipe(out), 0);
    assert_int_equal(pipe(err), 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(out[1], STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        close(out[1]);
        close(err[1]);
        alarm(100);
        setenv("FIRN_OPTIONS", "sample=1000", 1);
        execl(program, program, what, (char *)NULL);
        _exit(98);
    }
    close(out[1]);
    close(err[1]);
    read_all(out[0], end->aimed, sizeof(end->aimed));
    read_all(err[0], end->said, sizeof(end->said));
    end->aimed[strcspn(end->aimed, "\n")] = '\0';
    assert_int_equal(waitpid(child, &end->status, 0), child);
}

static void check(const struct scenario *s) {
    static struct end end;
    char line[512];
    run(s->what, &end);
    if (!WIFSIGNALED(end.status) || WTERMSIG(end.status) != SIGABRT) {
        fail_msg("%s: status %x, said %s", s->what, (unsigned)end.status, end.said);
    }
    snprintf(line, sizeof(line),
             "firn: %s: %s(%s): class=208 size=? found: %s; expected: %s; caller=%s+0x", s->slug,
             s->api, end.aimed, s->found, s->expected, program);
    if (strncmp(end.said, line, strlen(line)) != 0) {
        fail_msg("%s: expected \"%s\", said \"%s\"", s->what, line, end.said);
    }
    assert_non_null(strstr(end.said, "\nfirn:   requested: 200 bytes\n"));
    assert_non_null(strstr(end.said, "\nfirn:   allocated: by thread "));
    assert_int_equal(strstr(end.said, "\nfirn:   freed: by thread ") != NULL, s->is_freed);
}

static int is_rationed(void) {
    struct rlimit address, data;
    char mode = '0';
    FILE *f = fopen("/proc/sys/vm/overcommit_memory", "r");
    if (f != NULL) {
        mode = (char)fgetc(f);
        fclose(f);
    }
    return getrlimit(RLIMIT_AS, &address) != 0 || getrlimit(RLIMIT_DATA, &data) != 0 ||
           address.rlim_cur != RLIM_INFINITY || data.rlim_cur != RLIM_INFINITY || mode == '2';
}

static void every_misuse_is_reported(void **state) {
    (void)state;
    if (is_rationed()) {
        skip();
    }
    for (unsigned i = 0; i < SCENARIOS; i++) {
        check(&scenarios[i]);
    }
}

static void a_program_that_handles_faults_goes_on_doing_so(void **state) {
    (void)state;
    static struct end end;
    if (is_rationed()) {
        skip();
    }
    run("handled", &end);
    assert_true(WIFEXITED(end.status));
    assert_int_equal(WEXITSTATUS(end.status), SIGSEGV);
    assert_string_equal(end.said, "");
}

int main(int argc, char **argv) {
    if (argc > 1) {
        misuse(argv[1]);
        return 99;
    }
    api_require_firn("test_sample");
    const ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
    program[n > 0 ? n : 0] = '\0';
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_misuse_is_reported),
        cmocka_unit_test(a_program_that_handles_faults_goes_on_doing_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
