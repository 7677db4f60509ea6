// With large_only=BYTES: below BYTES every function hands out blocks that are not Firn's, from there on blocks that are,
// and everything that takes a block takes either. Argument: BYTES; then, to die of it, a mistake.
#include "include/firn/firn.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

void free_sized(void *p, size_t size) __attribute__((weak));
void free_aligned_sized(void *p, size_t align, size_t size) __attribute__((weak));
void cfree(void *p) __attribute__((weak));
size_t firn_object_size(const void *p) __attribute__((weak));

static size_t mark; // BYTES; 0: no such option, all is Firn's
static unsigned wrong;

static void check(int is_right, const char *what, size_t size) {
    if (!is_right) {
        printf("wrong: %s, %zu bytes\n", what, size);
        wrong++;
    }
}

static int is_firn(const void *p) {
    return firn_object_size(p) != SIZE_MAX;
}

static int is_filled(const unsigned char *p, int byte, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (p[i] != (unsigned char)byte) {
            return 0;
        }
    }
    return 1;
}

// It is whose it should be, may be written to, and is let go of by the next way to do so.
static void use(unsigned char *p, size_t size, size_t align, const char *what) {
    static unsigned turn;
    if (p == NULL || (uintptr_t)p % align != 0) {
        check(0, what, size);
        return;
    }
    check(is_firn(p) == (size >= mark), what, size);
    check(malloc_usable_size(p) >= size, "malloc_usable_size", size);
    memset(p, 0xa5, size);
    errno = 77;
    unsigned way = turn++ % 5;
    if (way == 1 && align <= 16) {
        free_sized(p, size);
    } else if (way == 2 && align > 16) {
        free_aligned_sized(p, align, size);
    } else if (way == 3) {
        check(realloc(p, 0) == NULL, "realloc to 0", size);
    } else if (way == 4) {
        cfree(p);
    } else {
        free(p);
    }
    check(errno == 77, "errno", size);
}

static void each_function(size_t size) {
    void *out = NULL;
    use(malloc(size), size, 16, "malloc");
    unsigned char *zeros = calloc(1, size);
    check(zeros != NULL && is_filled(zeros, 0, size), "calloc", size);
    use(zeros, size, 16, "calloc");
    if (size % 4 == 0) {
        use(calloc(size / 4, 4), size, 16, "calloc of many");
        use(reallocarray(NULL, 4, size / 4), size, 16, "reallocarray");
    }
    use(realloc(NULL, size), size, 16, "realloc");
    for (size_t align = 16; align <= 65536; align *= 4) {
        use(memalign(align, size), size, align, "memalign");
        use(aligned_alloc(align, size), size, align, "aligned_alloc");
        check(posix_memalign(&out, align, size) == 0, "posix_memalign", size);
        use(out, size, align, "posix_memalign");
    }
    use(valloc(size), size, 4096, "valloc");
}

static void cross(size_t from, size_t to) {
    unsigned char *p = malloc(from);
    check(p != NULL && is_firn(p) == (from >= mark), "before", from);
    memset(p, 0x3c, from);
    unsigned char *q = realloc(p, to);
    check(q != NULL && is_firn(q) == (to >= mark), "after", to);
    check(is_filled(q, 0x3c, from < to ? from : to), "contents", to);
    // Nobody has as much: what was there stays.
    memset(q, 0x3d, to);
    errno = 0;
    p = realloc(q, (size_t)1 << 61);
    check(p == NULL && errno == ENOMEM && is_filled(q, 0x3d, to), "kept", to);
    p = reallocarray(q, SIZE_MAX / 2, 3);
    check(p == NULL && errno == ENOMEM && is_filled(q, 0x3d, to), "kept", to);
    free(q);
}

enum { THREADS = 4, PLACES = 64 };
static _Atomic(size_t *) places[PLACES];

// Blocks are freed, and grow and shrink, in other threads than they come from.
static void *work(void *opaque) {
    unsigned random = (unsigned)(uintptr_t)opaque * 2654435761u;
    for (unsigned i = 0; i < (mark > 32768 ? 1000 : 10000); i++) {
        random = random * 1664525u + 1013904223u;
        size_t size = (random >> 8) % (2 * (mark != 0 ? mark : 4096)) + 16;
        size_t *mine = random % 3 == 0 ? calloc(1, size) : malloc(size);
        if (mine == NULL) {
            abort();
        }
        mine[0] = size;
        *((unsigned char *)mine + size - 1) = (unsigned char)size;
        size_t *other =
            __atomic_exchange_n((size_t **)&places[random >> 26], mine, __ATOMIC_SEQ_CST);
        if (other == NULL) {
            continue;
        }
        size = other[0];
        if (*((unsigned char *)other + size - 1) != (unsigned char)size) {
            abort();
        }
        if (random % 5 == 0) {
            other = realloc(other, size / 2 + 8);
        } else if (random % 7 == 0) {
            other = realloc(other, size * 2);
        }
        if (other == NULL || other[0] != size) {
            abort();
        }
        free(other);
    }
    return NULL;
}

static void run_threads(void) {
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) {
        check(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0, "thread", i);
    }
    for (unsigned i = 0; i < 8; i++) {
        int status = 1;
        pid_t child = fork();
        if (child == 0) {
            work((void *)(uintptr_t)99);
            _exit(0);
        }
        check(waitpid(child, &status, 0) == child && status == 0, "child", i);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void check_figures(void) {
    void *small = malloc(1000), *large = malloc(3 << 20);
    struct mallinfo2 before = mallinfo2();
    void *small_too = malloc(2000), *large_too = malloc(2 << 20);
    struct mallinfo2 after = mallinfo2();
    size_t more = after.uordblks + after.hblkhd - before.uordblks - before.hblkhd;
    check(more >= 2000 + (2 << 20), "mallinfo2", more);
    free(small);
    free(large);
    free(small_too);
    free(large_too);
    check(malloc_trim(0) == 1, "malloc_trim", 0);
}

static void err(const char *mistake) {
    char *large = malloc(mark), *small = malloc(100);
    if (strcmp(mistake, "twice") == 0) {
        free(large);
        free(large);
    } else if (strcmp(mistake, "inside") == 0) {
        free(large + 16);
    } else if (strcmp(mistake, "size") == 0) {
        free_sized(large, 100);
    } else {
        free(small);
        free(small); // libc's to notice
    }
}

int main(int argc, char **argv) {
    mark = argc > 1 ? strtoul(argv[1], NULL, 0) : 0;
    if (firn_object_size == NULL || free_sized == NULL || cfree == NULL) {
        return 3;
    }
    if (argc > 2) {
        err(argv[2]);
        return 0;
    }
    static const size_t more[] = {16,   100,   1024,  2048,  4000, 4096,
                                  5000, 32752, 32768, 32769, 65536};
    for (unsigned i = 0; i < sizeof more / sizeof more[0]; i++) {
        each_function(more[i]);
    }
    for (size_t size = mark - 20; mark != 0 && size < mark + 20; size++) {
        each_function(size);
        for (unsigned i = 0; i < sizeof more / sizeof more[0]; i++) {
            cross(size, more[i]);
            cross(more[i], size);
        }
        cross(mark - 1, size);
        cross(size, mark * 3);
    }
    run_threads();
    check_figures();
    puts(wrong == 0 ? "well" : "wrong");
    return wrong != 0;
}
