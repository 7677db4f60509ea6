// Every kind of heap misuse ends the process by SIGABRT, with one exact line that names it.
//
// P-FREE-DOUBLE, P-FREE-INTERIOR, P-FREE-MISALIGNED, P-FREE-NEVER, P-FREE-FOREIGN, P-FREE-SIZE, P-LINK,
// P-CANARY, P-VERIFY.
//
// Each scenario of misuse.c runs in a process of its own; its standard error is a packet pipe, so
// that a report in more than one write shows. Scenarios named harness_* are wrong on purpose: they
// pass when they are rejected for the expected reason. Without those, a harness that accepts
// everything would go unnoticed.
#include "tests/api/api.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

struct scenario {
    int level; // the lowest that notices
    const char *name, *slug, *api, *class_name, *size, *found;
};

static const struct scenario scenarios[] = {
#define SCENARIO_FROM(level, name, slug, api, class_name, size, found)                             \
    {level, #name, slug, api, class_name, size, found},
#define SCENARIO(name, slug, api, class_name, size, found)                                         \
    SCENARIO_FROM(1, name, slug, api, class_name, size, found)
#include "tests/death/misuse.def"
#undef SCENARIO
#undef SCENARIO_FROM
};
enum { SCENARIOS = sizeof(scenarios) / sizeof(scenarios[0]) };

static const struct {
    const char *slug, *expected;
} expectations[] = {
    {"double-free", "a live slot"},
    {"interior-pointer", "the start of a block"},
    {"misaligned-pointer", "a pointer aligned to 16 bytes"},
    {"never-allocated", "a block that malloc returned"},
    {"foreign-pointer", "a pointer into this heap"},
    {"corrupt-link", "the tag written when another thread freed the block"},
    {"overflow", "the canary after the block"},
    {"underflow", "the canary before the block"},
    {"write-after-free", "the zeros written when the block was freed"},
    {"size-mismatch", "the size the block was allocated with"},
};
enum { EXPECTATIONS = sizeof(expectations) / sizeof(expectations[0]) };

// What each harness_* scenario must be rejected for: the start of the reason.
static const struct {
    const char *name, *reason;
} rejections[] = {
    {"harness_survives", "did not die of SIGABRT: exited with status 3"},
    {"harness_exits_with_134", "did not die of SIGABRT: exited with status 134"},
    {"harness_is_silent", "said nothing"},
    {"harness_segfaults", "did not die of SIGABRT: signal 11"},
    {"harness_says_other_words", "said \"firn: double-free: free(0x10)"},
    {"harness_right_slug_wrong_class", "said \"firn: double-free: free("},
    {"harness_writes_in_pieces", "said \"firn: a first"},
};
enum { REJECTIONS = sizeof(rejections) / sizeof(rejections[0]) };

struct death {
    int status;
    unsigned packets; // writes to standard error
    char said[8192];  // all of it
    char aimed[64];   // the announced address
};

static char misuse[PATH_MAX + 16];

static void find_misuse(void) {
    const ssize_t n = readlink("/proc/self/exe", misuse, PATH_MAX);
    misuse[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(misuse, '/');
    snprintf(slash != NULL ? slash : misuse, 16, "/misuse");
}

static void run_child(const char *name, int out, int err) {
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    alarm(60);
    execl(misuse, misuse, name, (char *)NULL);
    _exit(98);
}

// The last line of what the scenario announced.
static void read_aim(int fd, struct death *d) {
    char text[256];
    const ssize_t n = read(fd, text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    size_t end = strlen(text);
    if (end > 0) {
        text[--end] = '\0';
    }
    const char *line = strrchr(text, '\n');
    snprintf(d->aimed, sizeof(d->aimed), "%s", line != NULL ? line + 1 : text);
}

static struct death die(const char *name) {
    struct death d;
    int out[2], err[2];
    memset(&d, 0, sizeof(d));
    if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC | O_DIRECT) != 0) {
        return d;
    }
    const pid_t child = fork();
    if (child == 0) {
        run_child(name, out[1], err[1]);
    }
    close(out[1]);
    close(err[1]);
    size_t n = 0;
    ssize_t got;
    while (n + 1 < sizeof(d.said) && (got = read(err[0], d.said + n, sizeof(d.said) - 1 - n)) > 0) {
        n += (size_t)got;
        d.packets++;
    }
    read_aim(out[0], &d);
    close(out[0]);
    close(err[0]);
    waitpid(child, &d.status, 0);
    return d;
}

static const char *expected_by(const char *slug) {
    for (int i = 0; i < EXPECTATIONS; i++) {
        if (strcmp(expectations[i].slug, slug) == 0) {
            return expectations[i].expected;
        }
    }
    return "?";
}

// The caller is MODULE+0xOFFSET with an offset inside the module's code. True if well formed; the
// module is the scenarios' program, or libc where libc made the call.
static int is_caller_right(const struct scenario *s, const char *caller) {
    const char *plus = strrchr(caller, '+');
    char *end = NULL;
    // Firn looked by itself.
    if (strcmp(s->api, "exit") == 0 || strcmp(s->api, "sweep") == 0) {
        return strcmp(caller, "?+0x0") == 0;
    }
    if (plus == NULL || strncmp(plus, "+0x", 3) != 0) {
        return 0;
    }
    const unsigned long offset = strtoul(plus + 1, &end, 16);
    const size_t n = (size_t)(plus - caller);
    if (*end != '\0' || offset < 0x100) {
        return 0;
    }
    if (strcmp(s->name, "foreign_through_libc") == 0) {
        return n > 10 && strncmp(plus - 10, "/libc.so.6", 10) == 0;
    }
    return n == strlen(misuse) && strncmp(caller, misuse, n) == 0 && offset < 0x100000;
}

static const char *reason(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *reason(const char *format, ...) {
    static char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return text;
}

// NULL when the process died as it should, else why not.
static const char *judge_line(const struct scenario *s, const struct death *d) {
    char want[512], line[1024];
    snprintf(line, sizeof(line), "%.*s", (int)strcspn(d->said, "\n"), d->said);
    snprintf(want, sizeof(want),
             "firn: %s: %s(%s): class=%s size=%s found: %s; expected: %s; caller=", s->slug, s->api,
             d->aimed, s->class_name, s->size, s->found, expected_by(s->slug));
    if (strncmp(line, want, strlen(want)) != 0) {
        return reason("said \"%s\" instead of \"%s\"", line, want);
    }
    if (!is_caller_right(s, line + strlen(want))) {
        return reason("wrong caller: \"%s\"", line + strlen(want));
    }
    return NULL;
}

static const char *judge(const struct scenario *s, const struct death *d) {
    if (!WIFSIGNALED(d->status)) {
        return reason("did not die of SIGABRT: exited with status %d; said \"%s\"",
                      WEXITSTATUS(d->status), d->said);
    }
    if (WTERMSIG(d->status) != SIGABRT) {
        return reason("did not die of SIGABRT: signal %d; said \"%s\"", WTERMSIG(d->status),
                      d->said);
    }
    if (d->said[0] == '\0') {
        return "said nothing";
    }
    const char *wrong = judge_line(s, d);
    if (wrong != NULL) {
        return wrong;
    }
    if (d->packets != 1) {
        return reason("wrote %u times instead of once", d->packets);
    }
    for (const char *at = strchr(d->said, '\n'); at != NULL; at = strchr(at + 1, '\n')) {
        if (at[1] != '\0' && strncmp(at + 1, "firn:   ", 8) != 0) {
            return reason("a further line does not start with \"firn:   \": %s", at + 1);
        }
    }
    return d->said[strlen(d->said) - 1] == '\n' ? NULL : "the report does not end with a newline";
}

// For a scenario that is wrong on purpose: NULL when `verdict` is the expected rejection.
static const char *judge_rejection(const char *name, const char *verdict) {
    for (int i = 0; i < REJECTIONS; i++) {
        const char *want = rejections[i].reason;
        if (strcmp(rejections[i].name, name) != 0) {
            continue;
        }
        if (verdict == NULL) {
            return "the harness accepted a wrong death";
        }
        return strncmp(verdict, want, strlen(want)) == 0 ? NULL : verdict;
    }
    return "no rejection is written down for this scenario";
}

int main(void) {
    int failures = 0;
    api_require_firn("test_misuse");
    if (api_level() < 1) {
        printf("ok misuse # SKIP level 0 checks nothing\n");
        return 0;
    }
    find_misuse();
    for (int i = 0; i < SCENARIOS; i++) {
        const struct scenario *s = &scenarios[i];
        if (api_level() < s->level) {
            printf("ok %s # SKIP level %d does not notice\n", s->name, api_level());
            continue;
        }
        const struct death d = die(s->name);
        const char *wrong = judge(s, &d);
        if (strncmp(s->name, "harness_", 8) == 0) {
            wrong = judge_rejection(s->name, wrong);
        }
        if (wrong != NULL) {
            printf("not ok %s: %s\n", s->name, wrong);
            failures++;
        } else {
            printf("ok %s\n", s->name);
        }
    }
    printf("1..%d\n", (int)SCENARIOS);
    return failures != 0;
}
