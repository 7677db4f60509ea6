// firn-test: levels=1,2,3 timeout=1800
// Every case of the misuse matrix, wrong and right, each in a process of its own: was it stopped?
//
// Which cases have to be follows from the switches of the level: a case names the feature without
// which it is not stopped. Asserted besides: at level 2 at least 95 of 100 wrong cases are stopped,
// at level 3 all of them; no right one ever is; and README.md gives the reason for each that is not
// stopped at level 2. See README.md for how to read the table.
#include "src/base/config.h"
#include "tests/api/api.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HARMLESS = 40, MOST_CASES = 400, LEAST_CASES = 120, TRIES = 4 };

static const char *const programs[] = {"overflow", "underflow", "stale", "twice",
                                       "invalid",  "exposed",   "types"};
enum { PROGRAMS = sizeof(programs) / sizeof(programs[0]) };

// The switches are conditions on FIRN_LEVEL: here it is the parameter, and they become functions.
#undef FIRN_LEVEL
#define FEATURE(name, condition)                                                                   \
    static int has_##name(int FIRN_LEVEL) {                                                        \
        (void)FIRN_LEVEL;                                                                          \
        return (condition);                                                                        \
    }
FEATURE(check, FIRN_CHECK_FREE)
FEATURE(link, FIRN_SAFE_LINK)
FEATURE(guard, 1) // around large blocks, at every level
#ifdef FIRN_CANARY
FEATURE(canary, FIRN_CANARY)
#else
FEATURE(canary, 0)
#endif
#ifdef FIRN_WIPE
FEATURE(wipe, FIRN_WIPE)
#else
FEATURE(wipe, 0)
#endif
#ifdef FIRN_VERIFY
FEATURE(verify, FIRN_VERIFY)
#else
FEATURE(verify, 0)
#endif
#ifdef FIRN_QUARANTINE
FEATURE(quarantine, FIRN_QUARANTINE)
#else
FEATURE(quarantine, 0)
#endif
#ifdef FIRN_LARGE_RETIRE
FEATURE(retire, FIRN_LARGE_RETIRE)
#else
FEATURE(retire, 0)
#endif
#ifdef FIRN_LARGE_SLACK
FEATURE(page_slack, FIRN_LARGE_SLACK)
#else
FEATURE(page_slack, 0)
#endif
#ifdef FIRN_SLACK
FEATURE(slack, FIRN_SLACK)
#else
FEATURE(slack, 0)
#endif
#ifdef FIRN_SWEEP
FEATURE(sweep, FIRN_SWEEP)
#else
FEATURE(sweep, 0)
#endif

static const struct feature {
    const char *name;
    int (*is_on)(int level);
    const char *without; // why the cases that need it are not stopped where it is off
} features[] = {
    {"check", has_check, "frees are not checked"},
    {"link", has_link, "blocks freed by other threads carry no tag"},
    {"guard", has_guard, "no guard pages around large blocks"},
    {"canary", has_canary, "no canary after the block"},
    {"wipe", has_wipe, "a freed block keeps its contents"},
    {"verify", has_verify, "a freed block is not looked at before it is used again"},
    {"quarantine", has_quarantine, "a freed block may be handed out at once"},
    {"retire", has_retire,
     "a freed large block keeps its contents and stays accessible for a while"},
    {"page_slack", has_page_slack, "the rest of a large block's last page is not watched"},
    {"slack", has_slack, "the rest of the slot beyond the requested size is not watched"},
    {"sweep", has_sweep, "nothing is looked at when the process ends"},
};
enum { FEATURES = sizeof(features) / sizeof(features[0]) };

struct matrix_row {
    char name[64]; // PROGRAM/CASE
    const struct feature *feature;
    int wrong, right; // outcomes; of the first try
    int tries;        // until it was stopped
};

enum outcome { STOPPED, ENDED, HARMLESS_READ, BROKEN };
static const char *const outcome_words[] = {"stopped", "not stopped", "harmless", "BROKEN"};

static struct matrix_row rows[MOST_CASES];
static int row_count, failures, level;
static char folder[PATH_MAX];

static void fail(const char *name, const char *reason) {
    printf("not ok %s: %s\n", name, reason);
    failures++;
}

static pid_t start(const char *program, const char *name, const char *twin, int out) {
    const pid_t child = fork();
    if (child == 0) {
        char path[PATH_MAX + 32];
        snprintf(path, sizeof(path), "%s/%s", folder, program);
        dup2(out, twin != NULL ? STDERR_FILENO : STDOUT_FILENO);
        alarm(60);
        execl(path, path, name, twin, (char *)NULL);
        _exit(98);
    }
    return child;
}

// What a child says, as far as it fits, and how it ends.
static int listen(const char *program, const char *name, const char *twin, char *said,
                  size_t room) {
    int ends[2], status = -1;
    size_t n = 0;
    ssize_t got;
    char rest[512];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return -1;
    }
    const pid_t child = start(program, name, twin, ends[1]);
    close(ends[1]);
    while ((got = n + 1 < room ? read(ends[0], said + n, room - 1 - n)
                               : read(ends[0], rest, sizeof(rest))) > 0) {
        n += n + 1 < room ? (size_t)got : 0;
    }
    said[n] = '\0';
    close(ends[0]);
    waitpid(child, &status, 0);
    return status;
}

// Dead by SIGABRT with a report, or by SIGSEGV at a guard; or nothing to be seen there.
static int judge(int status, const char *said) {
    if (WIFSIGNALED(status)) {
        const int is_report = WTERMSIG(status) == SIGABRT && strncmp(said, "firn: ", 6) == 0;
        return is_report || WTERMSIG(status) == SIGSEGV ? STOPPED : BROKEN;
    }
    return WEXITSTATUS(status) == 0          ? ENDED
           : WEXITSTATUS(status) == HARMLESS ? HARMLESS_READ
                                             : BROKEN;
}

static const struct feature *feature_named(const char *name) {
    for (int i = 0; i < FEATURES; i++) {
        if (strcmp(features[i].name, name) == 0) {
            return &features[i];
        }
    }
    return NULL;
}

static int is_stop(int outcome) {
    return outcome == STOPPED || outcome == HARMLESS_READ;
}

// Where chance decides (the first slot of a span has no canary before it), further tries tell odds
// from a defect. Only the first one counts for the share of cases that are stopped.
static void run_wrong(struct matrix_row *row, const char *program, const char *name) {
    char said[1024];
    row->wrong = judge(listen(program, name, "wrong", said, sizeof(said)), said);
    row->tries = 1;
    if (row->wrong == BROKEN) {
        fail(row->name, said[0] != '\0' ? said : "the wrong case ended in an unknown way");
        return;
    }
    for (int last = row->wrong; !is_stop(last) && row->feature->is_on(level); row->tries++) {
        if (row->tries == TRIES) {
            fail(row->name, "is not stopped, although this level has the feature it needs");
            return;
        }
        last = judge(listen(program, name, "wrong", said, sizeof(said)), said);
    }
}

static void run_case(const char *program, const char *name, const char *feature) {
    char said[1024];
    if (row_count == MOST_CASES) {
        fail(name, "too many cases");
        return;
    }
    struct matrix_row *row = &rows[row_count++];
    snprintf(row->name, sizeof(row->name), "%s/%s", program, name);
    row->feature = feature_named(feature);
    if (row->feature == NULL) {
        fail(row->name, "names a feature that does not exist");
        row->feature = &features[0];
    }
    run_wrong(row, program, name);
    row->right = judge(listen(program, name, "right", said, sizeof(said)), said);
    if (row->right != ENDED) {
        fail(row->name, said[0] != '\0' ? said : "the right twin did not run to its end");
    }
}

static void run_program(const char *program) {
    char list[16384], name[64], feature[32];
    const int status = listen(program, "list", NULL, list, sizeof(list));
    if (status != 0) {
        fail(program, "does not list its cases");
    }
    for (const char *at = list; sscanf(at, "%63s %31s", name, feature) == 2;
         at = strchr(at, '\n') + 1) {
        run_case(program, name, feature);
    }
}

// README.md lists the cases that level 2 does not stop, each in a row of its own.
static int has_reason(const char *name) {
    char line[512], start_of[128];
    int found = 0;
    FILE *in = fopen("tests/matrix/README.md", "r");
    snprintf(start_of, sizeof(start_of), "| `%s` | ", name);
    while (in != NULL && !found && fgets(line, sizeof(line), in) != NULL) {
        found =
            strncmp(line, start_of, strlen(start_of)) == 0 && strlen(line) > strlen(start_of) + 8;
    }
    if (in != NULL) {
        fclose(in);
    }
    return found;
}

static void judge_row(const struct matrix_row *row) {
    if (is_stop(row->wrong)) {
        return;
    }
    printf("# %-36s not stopped: %s\n", row->name,
           row->feature->is_on(level) ? "by chance, this time" : row->feature->without);
    if (level == 2 && !row->feature->is_on(2) && row->feature->is_on(3) && !has_reason(row->name)) {
        fail(row->name, "is not stopped, and tests/matrix/README.md does not say why");
    }
}

static void print_table(void) {
    printf("# %-36s %-10s %-12s %s\n", "case", "needs", "wrong", "right");
    for (int i = 0; i < row_count; i++) {
        const struct matrix_row *row = &rows[i];
        printf("# %-36s %-10s %-12s %s\n", row->name, row->feature->name, outcome_words[row->wrong],
               row->right == ENDED ? "runs" : "FAILS");
    }
}

static void judge_whole(void) {
    int stopped = 0;
    for (int i = 0; i < row_count; i++) {
        stopped += is_stop(rows[i].wrong);
        judge_row(&rows[i]);
    }
    printf("# level %d: %d of %d wrong cases stopped\n", level, stopped, row_count);
    if (row_count < LEAST_CASES) {
        fail("matrix", "has too few cases");
    }
    // A build with a feature switched off has no bar to meet, but for the cases it still covers.
    int is_complete = 1;
    for (int i = 0; i < FEATURES; i++) {
        if (!features[i].is_on(3)) {
            printf("# the bars of whole levels are not asserted: there is no %s\n",
                   features[i].name);
            is_complete = 0;
        }
    }
    if (is_complete && level == 2 && stopped * 100 < row_count * 95) {
        fail("matrix", "level 2 stops less than 95 of 100 wrong cases");
    }
    if (is_complete && level == 3 && stopped != row_count) {
        fail("matrix", "level 3 does not stop every wrong case");
    }
}

int main(void) {
    const ssize_t n = readlink("/proc/self/exe", folder, sizeof(folder) - 1);
    folder[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    api_require_firn("test_matrix");
    level = api_level();
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < PROGRAMS; i++) {
        run_program(programs[i]);
    }
    print_table();
    judge_whole();
    for (int i = 0; i < row_count; i++) {
        if (rows[i].right == ENDED && (is_stop(rows[i].wrong) || !rows[i].feature->is_on(level))) {
            printf("ok %s\n", rows[i].name);
        }
    }
    printf("ok matrix # of %d cases\n", row_count);
    return failures != 0;
}
