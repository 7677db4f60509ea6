// firn-test: levels=1,2,3 timeout=1800
// How predictable are addresses? Counted over 1,000 fresh processes, with FIRN_THOROUGH=1 over 10,000,
// each of which draws secrets of its own (odds.c). P-APART, P-NEXT, P-FORK.
#include "src/base/config.h"
#include "tests/api/api.h"
#include "tests/matrix/odds.h"

#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS = 2 };

extern char **environ;

// The most that is allowed, in percent, at levels 1, 2 and 3.
static const double most_neighbours[] = {2, 1, 1};
static const double most_reused[] = {2, 0.5, 0.1};

// P-QUARANTINE. As in test_matrix.c: the switch as a function of the level.
#undef FIRN_LEVEL
static int has_quarantine(int FIRN_LEVEL) {
    (void)FIRN_LEVEL;
#ifdef FIRN_QUARANTINE
    return FIRN_QUARANTINE != 0;
#else
    return 0;
#endif
}

struct odds_sum {
    unsigned processes;
    unsigned first_neighbours[ODDS_SIZES], neighbours[ODDS_SIZES];
    unsigned first_reused[ODDS_SIZES], reused[ODDS_SIZES];
    unsigned came_back[ODDS_SIZES], dirty[ODDS_SIZES];
    unsigned fork_first_equal, fork_all_equal;
};

static char program[PATH_MAX + 16];
static char strides[ODDS_SIZES][24];
static int failures;

// The distance of two slots that touch: the smallest one there is among many blocks. It is the same in
// every process.
static size_t find_stride(size_t n) {
    enum { MANY = 300 };
    char *p[MANY];
    size_t least = SIZE_MAX;
    for (int i = 0; i < MANY; i++) {
        p[i] = malloc(n);
        for (int j = 0; j < i; j++) {
            const size_t distance = p[i] > p[j] ? (size_t)(p[i] - p[j]) : (size_t)(p[j] - p[i]);
            least = distance < least ? distance : least;
        }
    }
    for (int i = 0; i < MANY; i++) {
        free(p[i]);
    }
    return least;
}

static void add(struct odds_sum *sum, const struct odds_record *r) {
    sum->processes++;
    for (int i = 0; i < ODDS_SIZES; i++) {
        sum->first_neighbours[i] += r->sizes[i].first_neighbours;
        sum->neighbours[i] += r->sizes[i].neighbours;
        sum->first_reused[i] += r->sizes[i].first_reused;
        sum->reused[i] += r->sizes[i].reused;
        sum->came_back[i] += r->sizes[i].came_back;
        sum->dirty[i] += r->sizes[i].dirty;
    }
    sum->fork_first_equal += r->fork_first_equal;
    sum->fork_all_equal += r->fork_all_equal;
}

// One process after the other, by vfork and exec. Those that fail are not counted.
static void run_processes(int count, struct odds_sum *sum) {
    posix_spawn_file_actions_t actions;
    char *arguments[ODDS_SIZES + 2] = {program};
    int ends[2];
    if (pipe(ends) != 0) {
        return;
    }
    for (int i = 0; i < ODDS_SIZES; i++) {
        arguments[i + 1] = strides[i];
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    for (int i = 0; i < count; i++) {
        struct odds_record record;
        pid_t child;
        int status = -1;
        if (posix_spawn(&child, program, &actions, NULL, arguments, environ) != 0) {
            continue;
        }
        waitpid(child, &status, 0);
        if (status == 0 && read(ends[0], &record, sizeof(record)) == (ssize_t)sizeof(record) &&
            record.magic == ODDS_MAGIC) {
            add(sum, &record);
        }
    }
}

static void run_workers(struct odds_sum *sums, int processes) {
    int ends[WORKERS][2];
    for (int w = 0; w < WORKERS; w++) {
        if (pipe(ends[w]) != 0 || fork() != 0) {
            continue;
        }
        struct odds_sum sum;
        memset(&sum, 0, sizeof(sum));
        run_processes(processes / WORKERS, &sum);
        _exit(write(ends[w][1], &sum, sizeof(sum)) == (ssize_t)sizeof(sum) ? 0 : 1);
    }
    for (int w = 0; w < WORKERS; w++) {
        close(ends[w][1]);
        if (read(ends[w][0], &sums[w], sizeof(sums[w])) != (ssize_t)sizeof(sums[w])) {
            memset(&sums[w], 0, sizeof(sums[w]));
        }
        wait(NULL);
    }
}

static void expect(const char *what, const char *size, unsigned seen, unsigned tries, double most) {
    const double percent = tries > 0 ? 100.0 * seen / tries : 100;
    const int is_right = tries > 0 && percent <= most;
    printf("%s %s_%s: %u of %u, %.3f %%, at most %.3f %%\n", is_right ? "ok" : "not ok", what, size,
           seen, tries, percent, most);
    failures += !is_right;
}

static void judge_size(const struct odds_sum *sum, int i, int level) {
    const unsigned n = sum->processes;
    char name[24];
    snprintf(name, sizeof(name), "%zu", odds_sizes[i]);
    const double neighbours = most_neighbours[level - 1];
    const double reused = most_reused[level - 1];
    expect("first_two_are_neighbours", name, sum->first_neighbours[i], n, neighbours);
    expect("two_in_a_row_are_neighbours", name, sum->neighbours[i], n * ODDS_PAIRS, neighbours);
    expect("first_freed_is_next", name, sum->first_reused[i], n, reused);
    expect("freed_is_next", name, sum->reused[i], n * ODDS_ROUNDS, reused);
    expect("fresh_memory_is_not_zero", name, sum->dirty[i], n, 0);
    if (has_quarantine(level)) {
        expect("freed_comes_back_without_a_free", name, sum->came_back[i], n, 0);
    }
}

int main(void) {
    struct odds_sum sums[WORKERS];
    const ssize_t n = readlink("/proc/self/exe", program, PATH_MAX - 1);
    program[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(program, '/');
    snprintf(slash != NULL ? slash : program, 16, "/odds");
    api_require_firn("test_odds");
    const int level = api_level();
    const int processes = getenv("FIRN_THOROUGH") != NULL ? 10000 : 1000;
    for (int i = 0; i < ODDS_SIZES; i++) {
        snprintf(strides[i], sizeof(strides[i]), "%zu", find_stride(odds_sizes[i]));
    }
    memset(sums, 0, sizeof(sums));
    run_workers(sums, processes);
    struct odds_sum *total = &sums[0];
    for (int w = 1; w < WORKERS; w++) {
        const unsigned *from = (const unsigned *)&sums[w];
        unsigned *to = (unsigned *)total;
        for (size_t i = 0; i < sizeof(sums[w]) / sizeof(unsigned); i++) {
            to[i] += from[i];
        }
    }
    if (total->processes != (unsigned)processes) {
        printf("not ok processes: %u of %d gave an answer\n", total->processes, processes);
        failures++;
    }
    for (int i = 0; i < ODDS_SIZES; i++) {
        judge_size(total, i, level);
    }
    // By chance: one in the slots at hand, some 30; and less than one in 300,000.
    expect("child_repeats_its_parent", "once", total->fork_first_equal, total->processes, 8);
    expect("child_repeats_its_parent", "always", total->fork_all_equal, total->processes, 0.1);
    return failures != 0;
}
