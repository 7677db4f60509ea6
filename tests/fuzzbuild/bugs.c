// One heap bug per case, and its right twin: `bugs CASE wrong` must die of the bug, `bugs CASE right`
// does the same work without it and prints "survived". `bugs --list` prints the cases.
#include <malloc.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void free_sized(void *p, size_t size);
#pragma weak free_sized

static volatile unsigned sink; // keeps reads alive
static char *volatile hidden;  // keeps pointers out of the compiler's sight
static char global[64];

static char *get(size_t size) {
    hidden = malloc(size);
    if (hidden != NULL) {
        memset(hidden, 'a', size);
    }
    return hidden;
}

static unsigned peek(const char *p) {
    return *(const volatile char *)p;
}

static void poke(char *p) {
    *(volatile char *)p = 'x';
}

// Reads or writes at the end of a block: the last byte (right) or `beyond` bytes after it (wrong).
static void read_end(size_t size, size_t beyond, int wrong) {
    char *p = get(size);
    sink = peek(p + size - 1 + (wrong ? beyond : 0));
    free(p);
}

static void write_end(size_t size, size_t beyond, int wrong) {
    char *p = get(size);
    poke(p + size - 1 + (wrong ? beyond : 0));
    free(p);
}

static void write_before(size_t size, size_t before, int wrong) {
    char *p = get(size);
    poke(p - (wrong ? before : 0));
    free(p);
}

static void read_r1_10(int w) {
    read_end(10, 1, w);
}
static void read_r1_16(int w) {
    read_end(16, 1, w);
}
static void read_r1_24(int w) {
    read_end(24, 1, w);
}
static void read_r1_4096(int w) {
    read_end(4096, 1, w);
}
static void read_r1_5001(int w) {
    read_end(5001, 1, w);
}
static void read_r1_70000(int w) {
    read_end(70000, 1, w);
}
static void read_r1_600000(int w) {
    read_end(600000, 1, w);
}
static void read_r1_3m(int w) {
    read_end(3000001, 1, w);
}
static void read_r100_32(int w) {
    read_end(32, 100, w);
}
static void read_r4096_48(int w) {
    read_end(48, 4096, w);
}
static void write_r1_1(int w) {
    write_end(1, 1, w);
}
static void write_r1_10(int w) {
    write_end(10, 1, w);
}
static void write_r1_16(int w) {
    write_end(16, 1, w);
}
static void write_r1_1000(int w) {
    write_end(1000, 1, w);
}
static void write_r1_4096(int w) {
    write_end(4096, 1, w);
}
static void write_r1_70000(int w) {
    write_end(70000, 1, w);
}
static void write_r1_3m(int w) {
    write_end(3000001, 1, w);
}
static void write_l1_10(int w) {
    write_before(10, 1, w);
}
static void write_l1_16(int w) {
    write_before(16, 1, w);
}
static void write_l4_100(int w) {
    write_before(100, 4, w);
}
static void write_l32_100(int w) {
    write_before(100, 32, w);
}
static void write_l1_4096(int w) {
    write_before(4096, 1, w);
}
static void write_l1_70000(int w) {
    write_before(70000, 1, w);
}

static void read_zero_bytes(int wrong) {
    char *p = malloc(0);
    hidden = p;
    if (wrong) {
        sink = peek(hidden);
    }
    free(p);
}

static void read_word_across(int wrong) {
    char *p = get(16);
    sink = (unsigned)*(volatile uint64_t *)(p + (wrong ? 12 : 8));
    free(p);
}

static void write_loop(int wrong) {
    char *p = get(37);
    for (int i = 0; i < 37 + wrong; i++) {
        poke(p + i);
    }
    free(p);
}

static void memcpy_out(int wrong) {
    char from[64] = {1}, *p = get(40);
    memcpy(p, from, 40u + (unsigned)wrong);
    free(p);
}

static void strcpy_out(int wrong) {
    char *p = get(8);
    strcpy(p, wrong ? "12345678" : "1234567");
    free(p);
}

static void strlen_out(int wrong) {
    char *p = get(9);
    p[8] = wrong ? 'a' : '\0';
    sink = (unsigned)strlen(p);
    free(p);
}

static void calloc_out(int wrong) {
    int *p = calloc(7, sizeof(*p));
    hidden = (char *)p;
    sink = (unsigned)((volatile int *)p)[wrong ? 7 : 6];
    free(p);
}

static void realloc_grown_out(int wrong) {
    char *p = realloc(get(10), 33);
    hidden = p;
    poke(p + (wrong ? 33 : 32));
    free(p);
}

static void realloc_shrunk_out(int wrong) {
    char *p = realloc(get(100), 50);
    hidden = p;
    sink = peek(p + (wrong ? 50 : 49));
    free(p);
}

static void aligned_write_out(int wrong) {
    void *p = NULL;
    if (posix_memalign(&p, 64, 64) != 0) {
        return;
    }
    hidden = p;
    poke(hidden + (wrong ? 64 : 63));
    free(p);
}

static void aligned_slack(int wrong) {
    hidden = aligned_alloc(64, 100);
    poke(hidden + (wrong ? 100 : 99));
    free(hidden);
}

static void page_aligned_out(int wrong) {
    hidden = memalign(8192, 8192);
    poke(hidden + (wrong ? 8192 : 8191));
    free(hidden);
}

static void use_read(size_t size, int wrong) {
    char *p = get(size);
    if (!wrong) {
        sink = peek(p + size / 2);
    }
    free(p);
    if (wrong) {
        sink = peek(hidden + size / 2);
    }
}

static void uaf_read_10(int w) {
    use_read(10, w);
}
static void uaf_read_4096(int w) {
    use_read(4096, w);
}
static void uaf_read_70000(int w) {
    use_read(70000, w);
}
static void uaf_read_3m(int w) {
    use_read(3000000, w);
}

static void uaf_write(int wrong) {
    char *p = get(24);
    if (wrong) {
        free(p);
    }
    poke(hidden);
    if (!wrong) {
        free(p);
    }
}

static void uaf_late(int wrong) {
    char *p = get(40), *others[100];
    if (wrong) {
        free(p);
    }
    for (int i = 0; i < 100; i++) {
        others[i] = malloc(40);
    }
    for (int i = 0; i < 100; i++) {
        free(others[i]);
    }
    sink = peek(p);
    if (!wrong) {
        free(p);
    }
}

static void uaf_realloc(int wrong) {
    char *p = get(64), *q;
    hidden = p;
    q = realloc(p, 65);
    sink = peek(wrong ? hidden : q);
    free(q);
}

static void uaf_list(int wrong) {
    struct node {
        struct node *next;
    } *first = NULL;
    for (int i = 0; i < 10; i++) {
        struct node *n = malloc(sizeof(*n));
        n->next = first;
        first = n;
    }
    for (struct node *n = first, *next; n != NULL; n = next) {
        next = n->next;
        free(n);
        if (wrong) {
            next = *(struct node *volatile *)&n->next;
        }
    }
}

static void double_free(int wrong) {
    char *p = get(24);
    free(p);
    if (wrong) {
        free(hidden);
    }
}

static void double_free_large(int wrong) {
    char *p = get(3000000);
    free(p);
    if (wrong) {
        free(hidden);
    }
}

static void double_free_late(int wrong) {
    char *p = get(24);
    free(p);
    for (int i = 0; i < 50; i++) {
        free(malloc(24));
    }
    if (wrong) {
        free(hidden);
    }
}

static void free_interior(int wrong) {
    get(64);
    free(hidden + (wrong ? 16 : 0));
}

static void free_before(int wrong) {
    get(64);
    free(hidden - (wrong ? 16 : 0));
}

static void free_stack(int wrong) {
    char local[64];
    hidden = wrong ? local : NULL;
    free(hidden);
}

static void free_global(int wrong) {
    hidden = wrong ? global + 16 : NULL;
    free(hidden);
}

static void free_wild(int wrong) {
    free((void *)(uintptr_t)(wrong ? 0x123450 : 0));
}

static void realloc_freed(int wrong) {
    char *p = get(24);
    if (wrong) {
        free(p);
    }
    free(realloc(hidden, 48));
}

static void realloc_interior(int wrong) {
    get(24);
    free(realloc(hidden + (wrong ? 8 : 0), 48));
}

static void usable_freed(int wrong) {
    char *p = get(24);
    if (wrong) {
        free(p);
    }
    sink = (unsigned)malloc_usable_size(hidden);
    if (!wrong) {
        free(p);
    }
}

static void sized_free(int wrong) {
    char *p = get(24);
    if (free_sized != NULL) {
        free_sized(p, wrong ? 32 : 24);
    }
}

static void calloc_overflow(int wrong) {
    hidden = calloc((size_t)1 << 33, wrong ? (size_t)1 << 33 : 0);
    free(hidden);
}

static void null_read(int wrong) {
    hidden = wrong ? NULL : global;
    sink = peek(hidden + 8);
}

static void null_write(int wrong) {
    hidden = wrong ? NULL : global;
    poke(hidden + 8);
}

static void wild_read(int wrong) {
    hidden = wrong ? (char *)(uintptr_t)0xcccccccccccccccc : global;
    sink = peek(hidden);
}

static int deeper(int n) {
    volatile char room[1024];
    room[0] = (char)n;
    return n == 0 ? room[0] : deeper(n - 1) + room[0];
}

static void stack_exhausted(int wrong) {
    sink = (unsigned)deeper(wrong ? 1 << 20 : 10);
}

// The bug happens after the program asked for the signal: it must be reported all the same.
static void on_signal(int number) {
    (void)number;
    _exit(0);
}

static void uaf_with_handler(int wrong) {
    signal(SIGSEGV, on_signal);
    use_read(10, wrong);
}

// Nothing frees the block: found at exit.
static void write_l1_never_freed(int wrong) {
    poke(get(100) - wrong);
}

// Beyond the revoked frees of a site (revoke=0): found when the slot is used again, or at exit.
static void waf_resident_exit(int wrong) {
    char *p = get(100);
    free(p);
    if (wrong) {
        poke(hidden + 50);
    }
}

static void waf_resident_reuse(int wrong) {
    char *p = get(100);
    free(p);
    if (wrong) {
        poke(hidden + 99);
    }
    for (int i = 0; i < 2000; i++) {
        free(malloc(100));
    }
    _exit(0);
}

// Ten of them: a stale copy of a pointer in a register or on the stack hides one.
static void leak(int wrong) {
    for (int i = 0; i < 10; i++) {
        char *p = get(123);
        if (!wrong) {
            free(p);
        }
    }
    hidden = NULL;
}

struct bug {
    const char *name;
    void (*run)(int wrong);
};
#define BUG(f)                                                                                     \
    { #f, f }
static const struct bug bugs[] = {
    BUG(read_r1_10),
    BUG(read_r1_16),
    BUG(read_r1_24),
    BUG(read_r1_4096),
    BUG(read_r1_5001),
    BUG(read_r1_70000),
    BUG(read_r1_600000),
    BUG(read_r1_3m),
    BUG(read_r100_32),
    BUG(read_r4096_48),
    BUG(write_r1_1),
    BUG(write_r1_10),
    BUG(write_r1_16),
    BUG(write_r1_1000),
    BUG(write_r1_4096),
    BUG(write_r1_70000),
    BUG(write_r1_3m),
    BUG(write_l1_10),
    BUG(write_l1_16),
    BUG(write_l4_100),
    BUG(write_l32_100),
    BUG(write_l1_4096),
    BUG(write_l1_70000),
    BUG(read_zero_bytes),
    BUG(read_word_across),
    BUG(write_loop),
    BUG(memcpy_out),
    BUG(strcpy_out),
    BUG(strlen_out),
    BUG(calloc_out),
    BUG(realloc_grown_out),
    BUG(realloc_shrunk_out),
    BUG(aligned_write_out),
    BUG(aligned_slack),
    BUG(page_aligned_out),
    BUG(uaf_read_10),
    BUG(uaf_read_4096),
    BUG(uaf_read_70000),
    BUG(uaf_read_3m),
    BUG(uaf_write),
    BUG(uaf_late),
    BUG(uaf_realloc),
    BUG(uaf_list),
    BUG(double_free),
    BUG(double_free_large),
    BUG(double_free_late),
    BUG(free_interior),
    BUG(free_before),
    BUG(free_stack),
    BUG(free_global),
    BUG(free_wild),
    BUG(realloc_freed),
    BUG(realloc_interior),
    BUG(usable_freed),
    BUG(sized_free),
    BUG(calloc_overflow),
    BUG(null_read),
    BUG(null_write),
    BUG(wild_read),
    BUG(stack_exhausted),
    BUG(uaf_with_handler),
    BUG(write_l1_never_freed),
    BUG(waf_resident_exit),
    BUG(waf_resident_reuse),
    BUG(leak),
};

int main(int argc, char **argv) {
    for (size_t i = 0; i < sizeof(bugs) / sizeof(bugs[0]); i++) {
        if (argc == 2 && strcmp(argv[1], "--list") == 0) {
            puts(bugs[i].name);
        } else if (argc == 3 && strcmp(argv[1], bugs[i].name) == 0) {
            bugs[i].run(strcmp(argv[2], "wrong") == 0);
            puts("survived");
            return 0;
        }
    }
    return argc == 2 ? 0 : 2;
}
