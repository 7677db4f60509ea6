// firn-test: levels=3
//
// P-BOUNDS: a copy that leaves its object, or that begins in a freed one, ends the process with one exact
// line. preload/checked.sh runs the same program with the -checked libraries of levels 1 and 2.
#include "include/firn/firn.h"
#include "tests/api/api.h"

#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#pragma weak firn_object_size // the preload has it

void *__memcpy_chk(void *to, const void *from, size_t n, size_t room);
void *__memmove_chk(void *to, const void *from, size_t n, size_t room);
void *__mempcpy_chk(void *to, const void *from, size_t n, size_t room);
void *__memset_chk(void *p, int byte, size_t n, size_t room);
char *__strcpy_chk(char *to, const char *from, size_t room);
char *__stpcpy_chk(char *to, const char *from, size_t room);
char *__strncpy_chk(char *to, const char *from, size_t n, size_t room);
char *__stpncpy_chk(char *to, const char *from, size_t n, size_t room);
char *__strcat_chk(char *to, const char *from, size_t room);
char *__strncat_chk(char *to, const char *from, size_t n, size_t room);

// 260 bytes lie in class 288 at every level.
enum { SMALL = 260, LARGE = 100000 };

// What a function reads at its source.
enum reads { NOTHING, BYTES, STRING };

// What the child announces before its wrong call.
static struct {
    uintptr_t address;
    size_t size; // if the function names one
    char found[96];
} * announced;

static char elsewhere[2 * LARGE]; // not Firn's

static char *block(size_t bytes) {
    char *p = malloc(bytes);
    if (p == NULL) {
        _exit(97);
    }
    memset(p, 'x', malloc_usable_size(p)); // a string without an end
    return p;
}

static char *small_block(void) {
    return block(SMALL);
}

// One byte more than there is behind `p`.
static size_t too_much(const char *p) {
    return firn_object_size(p) + 1;
}

// `found` may have one %zu, for what is left of p's object.
static void announce(const void *p, size_t size, const char *found) {
    announced->address = (uintptr_t)p;
    announced->size = size;
    snprintf(announced->found, sizeof(announced->found), found, firn_object_size(p));
}

static void announce_write(const void *p, size_t n) {
    char found[64];
    snprintf(found, sizeof(found), "write of %zu bytes, %%zu left in the object", n);
    announce(p, n, found);
}

static void announce_read(const void *p, size_t n, enum reads how) {
    char found[64];
    snprintf(found, sizeof(found), "read of %zu bytes, %%zu left in the object", n);
    announce(p, n, how == STRING ? "string without an end, %zu left in the object" : found);
}

// A string of exactly n - 1 bytes elsewhere, so that its copy needs n.
static const char *text_of(size_t n) {
    memset(elsewhere, 'y', n - 1);
    elsewhere[n - 1] = '\0';
    return elsewhere;
}

// The functions that write n bytes at `to`, read from `from`.
typedef void (*copier)(char *to, const char *from, size_t n);

#define COPIER(name, call)                                                                         \
    static void name(char *to, const char *from, size_t n) {                                       \
        (void)from, (void)n;                                                                       \
        call;                                                                                      \
    }
COPIER(by_memcpy, memcpy(to, from, n))
COPIER(by_memmove, memmove(to, from, n))
COPIER(by_mempcpy, mempcpy(to, from, n))
COPIER(by_bcopy, bcopy(from, to, n))
COPIER(by_memset, memset(to, 1, n))
COPIER(by_bzero, bzero(to, n))
COPIER(by_strcpy, strcpy(to, from))
COPIER(by_stpcpy, stpcpy(to, from))
COPIER(by_strncpy, strncpy(to, from, n))
COPIER(by_stpncpy, stpncpy(to, from, n))
COPIER(by_strcat, (*to = '\0', strcat(to, from)))
COPIER(by_strncat, (*to = '\0', strncat(to, from, n)))
COPIER(by_memcpy_chk, __memcpy_chk(to, from, n, SIZE_MAX))
COPIER(by_memmove_chk, __memmove_chk(to, from, n, SIZE_MAX))
COPIER(by_mempcpy_chk, __mempcpy_chk(to, from, n, SIZE_MAX))
COPIER(by_memset_chk, __memset_chk(to, 1, n, SIZE_MAX))
COPIER(by_strcpy_chk, __strcpy_chk(to, from, SIZE_MAX))
COPIER(by_stpcpy_chk, __stpcpy_chk(to, from, SIZE_MAX))
COPIER(by_strncpy_chk, __strncpy_chk(to, from, n, SIZE_MAX))
COPIER(by_stpncpy_chk, __stpncpy_chk(to, from, n, SIZE_MAX))
COPIER(by_strcat_chk, (*to = '\0', __strcat_chk(to, from, SIZE_MAX)))
COPIER(by_strncat_chk, (*to = '\0', __strncat_chk(to, from, n, SIZE_MAX)))

static const struct function {
    const char *name, *api;
    copier run;
    enum reads reads;
    int names_size; // the call names a number of bytes
} functions[] = {
    {"memcpy", "memcpy", by_memcpy, BYTES, 1},
    {"memmove", "memmove", by_memmove, BYTES, 1},
    {"mempcpy", "mempcpy", by_mempcpy, BYTES, 1},
    {"bcopy", "bcopy", by_bcopy, BYTES, 1},
    {"memset", "memset", by_memset, NOTHING, 1},
    {"bzero", "bzero", by_bzero, NOTHING, 1},
    {"strcpy", "strcpy", by_strcpy, STRING, 0},
    {"stpcpy", "stpcpy", by_stpcpy, STRING, 0},
    {"strncpy", "strncpy", by_strncpy, STRING, 1},
    {"stpncpy", "stpncpy", by_stpncpy, STRING, 1},
    {"strcat", "strcat", by_strcat, STRING, 0},
    {"strncat", "strncat", by_strncat, STRING, 1},
    {"memcpy_chk", "memcpy", by_memcpy_chk, BYTES, 1},
    {"memmove_chk", "memmove", by_memmove_chk, BYTES, 1},
    {"mempcpy_chk", "mempcpy", by_mempcpy_chk, BYTES, 1},
    {"memset_chk", "memset", by_memset_chk, NOTHING, 1},
    {"strcpy_chk", "strcpy", by_strcpy_chk, STRING, 0},
    {"stpcpy_chk", "stpcpy", by_stpcpy_chk, STRING, 0},
    {"strncpy_chk", "strncpy", by_strncpy_chk, STRING, 1},
    {"stpncpy_chk", "stpncpy", by_stpncpy_chk, STRING, 1},
    {"strcat_chk", "strcat", by_strcat_chk, STRING, 0},
    {"strncat_chk", "strncat", by_strncat_chk, STRING, 1},
};
enum { FUNCTIONS = sizeof(functions) / sizeof(functions[0]) };

// The scenarios.

static void writes_past_end(const struct function *f) {
    char *p = small_block();
    const size_t n = too_much(p);
    const char *from = text_of(n);
    announce_write(p, n);
    f->run(p, from, n);
}

static void writes_past_end_from_inside(const struct function *f) {
    char *p = small_block() + 100;
    const size_t n = too_much(p);
    const char *from = text_of(n);
    announce_write(p, n);
    f->run(p, from, n);
}

static void writes_past_large(const struct function *f) {
    char *p = block(LARGE);
    const size_t n = too_much(p);
    const char *from = text_of(n);
    announce_write(p, n);
    f->run(p, from, n);
}

static void writes_into_freed(const struct function *f) {
    char *p = small_block(), *keep = small_block();
    const char *from = text_of(16);
    announce(p, 16, "write of 16 bytes, no live object there");
    free(p);
    f->run(p, from, 16);
    free(keep);
}

static void reads_past_end(const struct function *f) {
    char *p = small_block();
    const size_t n = too_much(p);
    announce_read(p, n, f->reads);
    f->run(elsewhere, p, n);
}

static void reads_freed(const struct function *f) {
    char *p = small_block(), *keep = small_block();
    announce(p, 16,
             f->reads == STRING ? "string without an end, no live object there"
                                : "read of 16 bytes, no live object there");
    free(p);
    f->run(elsewhere, p, 16);
    free(keep);
}

static void negative_length(const struct function *f) {
    char *p = small_block();
    announce_write(p, (size_t)-8);
    f->run(p, elsewhere, (size_t)-8);
}

static void joins_endless(const struct function *f) {
    char *p = small_block();
    announce_read(p, 1, STRING);
    f->api[3] == 'n' ? strncat(p, "z", 1) : strcat(p, "z");
}

static const struct function *in_handler;

static void handler(int number) {
    (void)number;
    writes_past_end(in_handler);
}

static void in_a_signal_handler(const struct function *f) {
    in_handler = f;
    signal(SIGUSR1, handler);
    raise(SIGUSR1);
}

static void *thread(void *f) {
    writes_past_end(f);
    return NULL;
}

static void in_a_thread(const struct function *f) {
    pthread_t other;
    pthread_create(&other, NULL, thread, (void *)(uintptr_t)f);
    pthread_join(other, NULL);
}

static const struct scenario {
    const char *name;
    void (*run)(const struct function *f);
    const char *class_name;
    enum reads least; // what the function must read for this to make sense
    const char *only; // the one function, NULL for all
} scenarios[] = {
    {"writes_past_end", writes_past_end, "288", NOTHING, NULL},
    {"writes_past_end_from_inside", writes_past_end_from_inside, "288", NOTHING, NULL},
    {"writes_past_large", writes_past_large, "large", NOTHING, NULL},
    {"writes_into_freed", writes_into_freed, "288", NOTHING, NULL},
    {"reads_past_end", reads_past_end, "288", BYTES, NULL},
    {"reads_freed", reads_freed, "288", BYTES, NULL},
    {"negative_length", negative_length, "288", NOTHING, "memcpy"},
    {"negative_length", negative_length, "288", NOTHING, "memset"},
    {"joins_endless", joins_endless, "288", STRING, "strcat"},
    {"joins_endless", joins_endless, "288", STRING, "strncat"},
    {"in_a_signal_handler", in_a_signal_handler, "288", NOTHING, "memcpy"},
    {"in_a_thread", in_a_thread, "288", NOTHING, "strcpy"},
};
enum { SCENARIOS = sizeof(scenarios) / sizeof(scenarios[0]) };

// strcat and strncat look at the destination first, and change it: a freed one has its own words.
static int is_excluded(const struct scenario *s, const struct function *f) {
    const int joins = strncmp(f->api, "strcat", 6) == 0 || strncmp(f->api, "strncat", 7) == 0;
    return (joins && s->run == writes_into_freed) || f->reads < s->least ||
           (s->only != NULL && strcmp(s->only, f->name) != 0);
}

static char said[4096];
static int status;

static void run_child(const struct scenario *s, const struct function *f) {
    int err[2];
    size_t n = 0;
    ssize_t got;
    if (pipe(err) != 0) {
        exit(1);
    }
    const pid_t child = fork();
    if (child == 0) {
        dup2(err[1], STDERR_FILENO);
        alarm(60);
        s->run(f);
        _exit(3);
    }
    close(err[1]);
    while (n + 1 < sizeof(said) && (got = read(err[0], said + n, sizeof(said) - 1 - n)) > 0) {
        n += (size_t)got;
    }
    said[n] = '\0';
    close(err[0]);
    waitpid(child, &status, 0);
}

// NULL when the child died as it should.
static const char *judge(const struct scenario *s, const struct function *f) {
    static char want[1024], self[PATH_MAX];
    char size[32] = "?";
    const ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[length > 0 ? length : 0] = '\0';
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT) {
        snprintf(want, sizeof(want), "did not die of SIGABRT: status %x; said \"%s\"",
                 (unsigned)status, said);
        return want;
    }
    if (f->names_size) {
        snprintf(size, sizeof(size), "%zu", announced->size);
    }
    snprintf(want, sizeof(want),
             "firn: out-of-bounds: %s(0x%lx): class=%s size=%s found: %s; expected: a range inside "
             "one live object; caller=%s+0x",
             f->api, (unsigned long)announced->address, s->class_name, size, announced->found,
             self);
    return strncmp(said, want, strlen(want)) == 0 ? NULL : want;
}

int main(void) {
    int failures = 0, count = 0;
    api_require_firn("test_bounds");
    announced = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < SCENARIOS; i++) {
        for (int k = 0; k < FUNCTIONS; k++) {
            if (is_excluded(&scenarios[i], &functions[k])) {
                continue;
            }
            run_child(&scenarios[i], &functions[k]);
            const char *wrong = judge(&scenarios[i], &functions[k]);
            printf("%s %s_%s", wrong == NULL ? "ok" : "not ok", functions[k].name,
                   scenarios[i].name);
            printf(wrong == NULL ? "\n" : ": wanted \"%s\", got \"%s\"\n", wrong, said);
            failures += wrong != NULL;
            count++;
        }
    }
    printf("1..%d\n", count);
    return failures != 0 || count < 100;
}
