// With cold_store=swap: what is idle goes into swap and comes back as it was, for threads, system calls and children;
// what is read again and again is soon left alone. Prints what it found; ends with 0 if all was right.
#include "include/firn/firn.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

int firn_stats(struct firn_stats *out) __attribute__((weak));
void firn_thaw_all(void) __attribute__((weak));
void firn_hint_cold(const void *p, size_t bytes) __attribute__((weak));
int firn_exclude(const void *p, size_t bytes) __attribute__((weak));

enum { SMALLS = 40000, LARGES = 16, LARGE = 1 << 20, HOT = 1 << 20, PAGE = 4096 };
static unsigned char *smalls[SMALLS], *larges[LARGES], *hot, *kept;
static unsigned wrong;

static void check(int is_right, const char *what) {
    if (!is_right) {
        printf("wrong: %s\n", what);
        wrong++;
    }
}

static void sleep_ms(unsigned ms) {
    usleep(ms * 1000);
}

static struct firn_stats figures(void) {
    struct firn_stats s = {.struct_bytes = sizeof s};
    firn_stats(&s);
    return s;
}

static size_t swap_kib(void) {
    char line[256];
    size_t kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        (void)sscanf(line, "VmSwap: %zu", &kib);
    }
    if (f != NULL) {
        fclose(f);
    }
    return kib;
}

static int waits_for(size_t least_kib, unsigned ms) {
    for (unsigned i = 0; i < ms / 100; i++) {
        if (swap_kib() >= least_kib) {
            return 1;
        }
        sleep_ms(100);
    }
    return 0;
}

static size_t size_of(unsigned i) {
    return 100 + i % 1500;
}

static void fill(unsigned char *p, size_t n, unsigned seed) {
    for (size_t i = 0; i < n; i++) {
        p[i] = (unsigned char)(seed + i / 7);
    }
}

static int is_filled(const unsigned char *p, size_t n, unsigned seed) {
    for (size_t i = 0; i < n; i++) {
        if (p[i] != (unsigned char)(seed + i / 7)) {
            return 0;
        }
    }
    return 1;
}

static void make_all(void) {
    for (unsigned i = 0; i < SMALLS; i++) {
        smalls[i] = malloc(size_of(i));
        fill(smalls[i], size_of(i), i);
    }
    for (unsigned i = 0; i < LARGES; i++) {
        larges[i] = malloc(LARGE);
        fill(larges[i], LARGE, i);
    }
}

static int are_right(void) {
    int is_right = 1;
    for (unsigned i = 0; i < SMALLS; i++) {
        is_right = is_right && is_filled(smalls[i], size_of(i), i);
    }
    for (unsigned i = 0; i < LARGES; i++) {
        is_right = is_right && is_filled(larges[i], LARGE, i);
    }
    return is_right;
}

// Where the cold tier has no page to fetch: a call just works.
static void hand_to_kernel(void) {
    char name[] = "/tmp/swapped-XXXXXX";
    int fd = mkstemp(name);
    unlink(name);
    check(write(fd, larges[0], LARGE) == LARGE, "write of what is out");
    check(pread(fd, larges[1], LARGE, 0) == LARGE, "read to what is out");
    check(is_filled(larges[1], LARGE, 0), "what was read");
    fill(larges[1], LARGE, 1);
    close(fd);
}

static void fork_child(void) {
    int status = 1;
    pid_t child = fork();
    if (child == 0) {
        int is_right = are_right();
        free(larges[2]);
        larges[2] = malloc(LARGE);
        memset(larges[2], 1, LARGE);
        _exit(!is_right);
    }
    check(waitpid(child, &status, 0) == child && status == 0, "child");
}

// Freed while out and used again: new, and not counted as come back.
static void use_again(void) {
    size_t back = figures().thaws;
    for (unsigned i = 0; i < LARGES; i += 2) {
        free(larges[i]);
        larges[i] = calloc(1, LARGE);
        check(larges[i][0] == 0 && !memcmp(larges[i], larges[i] + 1, LARGE - 1), "zeros");
        fill(larges[i], LARGE, i);
    }
    sleep_ms(1200);
    printf("used again: %zu came back\n", figures().thaws - back);
    check(figures().thaws - back < LARGES / 4 * (LARGE / PAGE), "what is new has not come back");
    for (unsigned i = 1; i < LARGES; i += 2) {
        larges[i] = realloc(larges[i], 3 * LARGE);
        check(is_filled(larges[i], LARGE, i), "grown");
        larges[i] = realloc(larges[i], LARGE);
    }
}

static void read_hot(unsigned ms) {
    for (unsigned i = 0; i < ms; i += 10) {
        for (size_t at = 0; at < HOT; at += PAGE) {
            (void)*(volatile unsigned char *)(hot + at);
        }
        sleep_ms(10);
    }
}

// How often its pages were fetched: less and less often.
static void test_hot(void) {
    hot = malloc(HOT);
    fill(hot, HOT, 5);
    size_t first = figures().thaws;
    read_hot(4000);
    size_t middle = figures().thaws;
    read_hot(4000);
    size_t last = figures().thaws;
    printf("hot: %zu, then %zu\n", middle - first, last - middle);
    check(middle - first > 0, "hot pages go at first");
    check(last - middle <= HOT / PAGE * 3 / 2, "and are left alone then");
}

static void test_hints(void) {
    firn_thaw_all();
    size_t kib = swap_kib();
    check(kib < 4000, "firn_thaw_all");
    check(are_right(), "after firn_thaw_all");
    kept = malloc(LARGE);
    fill(kept, LARGE, 9);
    check(firn_exclude(kept, LARGE) == 0, "firn_exclude");
    firn_hint_cold(kept, LARGE);
    firn_hint_cold(larges[3], LARGE);
    for (unsigned i = 0; i < 50 && swap_kib() < kib + 900; i++) {
        sleep_ms(20);
    }
    check(swap_kib() >= kib + 900, "firn_hint_cold");
    unsigned char there[LARGE / PAGE] = {0};
    uintptr_t page = ((uintptr_t)kept + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
    check(mincore((void *)page, LARGE - PAGE, there) == 0 && there[1] & 1 && there[200] & 1,
          "excluded");
    check(is_filled(larges[3], LARGE, 3), "wished away");
}

int main(int argc, char **argv) {
    if (firn_stats == NULL) {
        return 3;
    }
    make_all();
    if (argc > 1 && strcmp(argv[1], "never") == 0) {
        check(!waits_for(5000, 3000), "nothing goes");
        struct firn_stats s = figures();
        printf("%s: %s\n", s.cold_engine, s.cold_reason != NULL ? s.cold_reason : "-");
        return wrong != 0 || !are_right();
    }
    if (!waits_for(30000, 30000)) {
        struct firn_stats s = figures();
        printf("%s: %s\n", s.cold_engine, s.cold_reason != NULL ? s.cold_reason : "-");
        return 4;
    }
    printf("out: %zu of it\n", figures().freezes);
    check(figures().frozen_raw >= 30000 << 10 && figures().frozen_stored == 0, "figures");
    if (argc > 1) {
        test_hot();
    }
    hand_to_kernel();
    fork_child();
    use_again();
    check(are_right(), "what was out");
    test_hints();
    check(strcmp(figures().cold_engine, "swap") == 0, "engine");
    puts(wrong == 0 ? "well" : "wrong");
    return wrong != 0;
}
