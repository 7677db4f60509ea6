/*
 * cold: what is left in memory of a heap that nobody touches, and what it costs to touch it again.
 *
 *   cold [MIB [KIND [SECONDS]]]      256 json 20 by default; kinds: json records pointers words elf random
 *
 * To be run with FIRN_OPTIONS=cold=on:cold_after=5. Allocates MIB of small objects of the kind, sleeps,
 * and prints the process's PSS over what it was before (the program's own pages subtracted from both);
 * what the first touches take, of objects drawn at random, one after the other in one thread; how fast
 * all the rest is read in the order of its allocation. The bytes of every object are checked.
 *
 *   cold bare
 *
 * To be run without Firn: what the kernel alone takes for a touch of a page that userfaultfd fills with a ready copy,
 * by a thread that waits for such touches, and by the thread that touches, in a handler of the SIGSEGV of a guard
 * marker. The least that Firn's engines could take on the machine, but for unpacking.
 */
#include "bench/bench.h"

#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#ifndef MADV_GUARD_INSTALL /* Linux 6.13 */
#define MADV_GUARD_INSTALL 102
#endif
#ifndef UFFD_USER_MODE_ONLY /* Linux 5.11 */
#define UFFD_USER_MODE_ONLY 1
#endif

enum {
    PAGE = 4096,
    LONGEST = 640,
    TOUCHES = 2000,
    ELF_OBJECT = 512,
    JSON_OBJECT = 512,
    ELF_MOST = 4 << 20
};

struct object {
    unsigned char *p;
    uint32_t size;
    uint32_t sum;
};

static struct bench_rng rng = {1};
static unsigned char *elf;
static size_t elf_bytes;

/* As a cache of a web service holds them: buffers of 512 bytes, about two thirds of them text. */
static size_t make_json(unsigned char *out) {
    uint32_t a = bench_rng_next(&rng), b = bench_rng_next(&rng), c = bench_rng_next(&rng);
    memset(out, 0, JSON_OBJECT);
    (void)snprintf(
        (char *)out, JSON_OBJECT,
        "{\"id\": %u, \"user\": \"user%u\", \"email\": \"user%u@example.com\", \"active\": %s, "
        "\"visits\": %u, \"tags\": [\"alpha\", \"beta\", \"gamma\"], \"address\": {\"city\": "
        "\"Springfield\", \"street\": \"%u Main Street\", \"zip\": \"%05u\"}, \"balance\": "
        "%u.%02u, "
        "\"created\": \"2024-%02u-%02uT%02u:%02u:00Z\"}",
        a % 1000000, b % 100000, b % 100000, c % 2 != 0 ? "true" : "false", a % 997, a % 991,
        b % 99991, c % 10000, a % 100, b % 12 + 1, c % 28 + 1, a % 24, b % 60);
    return JSON_OBJECT;
}

/* The same without the padding, each of its own length: what is written with no room to spare. */
static size_t make_records(unsigned char *out) {
    (void)make_json(out);
    size_t n = strlen((const char *)out);
    for (uint32_t items = bench_rng_next(&rng) % 5; items > 0; items--) {
        uint32_t item = bench_rng_next(&rng);
        n += (size_t)snprintf((char *)out + n, LONGEST - n, ", {\"sku\": %u, \"count\": %u}",
                              item % 100000, item / 65536 % 20);
    }
    return n + 1;
}

/* Pointers to anywhere in 256 MiB, as nodes of a graph hold them. */
static size_t make_pointers(unsigned char *out) {
    size_t n = bench_rng_range(&rng, 2, 60);
    for (size_t i = 0; i < n; i++) {
        uint64_t p = UINT64_C(0x7f3a40000000) + (bench_rng_next(&rng) & 0xffffff0);
        memcpy(out + i * 8, &p, 8);
    }
    return n * 8;
}

/* Words of a text: 1,000 of them, of 2 to 9 letters, the frequent ones far more often. */
static size_t make_words(unsigned char *out) {
    size_t most = bench_rng_range(&rng, 100, 600), n = 0;
    while (n + 12 < most) {
        size_t rank = bench_rng_range(&rng, 0, 999) * bench_rng_range(&rng, 0, 999) / 1000;
        rank = rank * bench_rng_range(&rng, 0, 999) / 1000;
        struct bench_rng word = {rank * UINT64_C(0x9e3779b97f4a7c15)};
        for (size_t letters = bench_rng_range(&word, 2, 9); letters > 0; letters--) {
            out[n++] = (unsigned char)"eetaaoinnshrdlucmfwypvbgk"[bench_rng_range(&word, 0, 24)];
        }
        out[n++] = ' ';
    }
    out[n++] = 0;
    return n;
}

/* Pieces of an executable file: code, tables, names. */
static size_t make_elf(unsigned char *out) {
    static size_t at;
    at = at + 2 * ELF_OBJECT < elf_bytes ? at + ELF_OBJECT : 0;
    memcpy(out, elf + at, ELF_OBJECT);
    return ELF_OBJECT - 16; /* what canaries leave of a slot */
}

static size_t make_random(unsigned char *out) {
    size_t n = bench_rng_range(&rng, 16, 512);
    for (size_t i = 0; i < n; i++) {
        out[i] = (unsigned char)bench_rng_next(&rng);
    }
    return n;
}

static const struct kind {
    const char *name;
    size_t (*make)(unsigned char *out);
} kinds[] = {{"json", make_json},   {"records", make_records}, {"pointers", make_pointers},
             {"words", make_words}, {"elf", make_elf},         {"random", make_random}};

static void *map_pages(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        bench_die("no memory");
    }
    return p;
}

static void read_elf(void) {
    int fd = open("/usr/bin/python3", O_RDONLY | O_CLOEXEC);
    elf = map_pages(ELF_MOST);
    ssize_t n = fd >= 0 ? read(fd, elf, ELF_MOST) : -1;
    if (n <= 0) {
        bench_die("cannot read /usr/bin/python3");
    }
    elf_bytes = (size_t)n;
    close(fd);
}

static uint32_t sum_of(const unsigned char *p, size_t n) {
    uint64_t sum = n, word;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&word, p, 8);
        sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    }
    for (; n > 0; p++, n--) {
        sum = (sum ^ *p) * UINT64_C(0x9e3779b97f4a7c15);
    }
    return (uint32_t)(sum >> 32);
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void check(const struct object *o) {
    if (sum_of(o->p, o->size) != o->sum) {
        bench_die("an object has lost its content");
    }
}

static uint64_t ns[TOUCHES];

static void print_touches(const char *p50, const char *p99) {
    qsort(ns, TOUCHES, sizeof ns[0], compare);
    bench_print(p50, (double)ns[TOUCHES / 2] / 1000, "us");
    bench_print(p99, (double)ns[TOUCHES * 99 / 100] / 1000, "us");
}

static int uffd = -1;
static _Alignas(PAGE) char ready[PAGE];

static void fill_page(uintptr_t address) {
    struct uffdio_copy c = {
        .dst = address & ~(uintptr_t)(PAGE - 1), .src = (uintptr_t)ready, .len = PAGE};
    (void)ioctl(uffd, UFFDIO_COPY, &c);
}

static void on_touch(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    fill_page((uintptr_t)info->si_addr);
}

static void *serve(void *nothing) {
    struct uffd_msg m;
    for (;;) {
        struct pollfd polled = {.fd = uffd, .events = POLLIN};
        (void)poll(&polled, 1, -1);
        while (read(uffd, &m, sizeof m) == sizeof m) {
            fill_page((uintptr_t)m.arg.pagefault.address);
        }
    }
    return nothing;
}

static void touch_bare(char *from) {
    for (size_t i = 0; i < TOUCHES; i++) {
        volatile char *at = from + i * 617 % TOUCHES * PAGE;
        uint64_t began = bench_wall_ns();
        (void)*at;
        ns[i] = bench_wall_ns() - began;
        for (volatile unsigned k = 0; k < 2000; k++) {
        }
    }
}

static int run_bare(void) {
    const size_t bytes = (size_t)TOUCHES * PAGE;
    char *pages = map_pages(2 * bytes);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register all = {.range = {(uintptr_t)pages, 2 * bytes},
                                  .mode = UFFDIO_REGISTER_MODE_MISSING};
    struct sigaction action = {.sa_sigaction = on_touch, .sa_flags = SA_SIGINFO};
    pthread_t thread;
    uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0 || ioctl(uffd, UFFDIO_REGISTER, &all) != 0 ||
        pthread_create(&thread, NULL, serve, NULL) != 0) {
        bench_die("no userfaultfd");
    }
    memset(ready, 7, sizeof ready);
    touch_bare(pages);
    print_touches("cold_bare_wait_p50", "cold_bare_wait_p99");
    if (madvise(pages + bytes, bytes, MADV_GUARD_INSTALL) == 0 &&
        sigaction(SIGSEGV, &action, NULL) == 0) {
        touch_bare(pages + bytes);
        print_touches("cold_bare_signal_p50", "cold_bare_signal_p99");
    }
    return 0;
}

/* One page at a time, far from the last one, so that nothing was fetched ahead. */
static void touch_some(const struct object *objects, size_t n) {
    for (size_t i = 0; i < TOUCHES; i++) {
        const struct object *o = &objects[bench_rng_range(&rng, 0, n - 1)];
        uint64_t began = bench_wall_ns();
        (void)*(volatile unsigned char *)o->p;
        ns[i] = bench_wall_ns() - began;
        check(o);
    }
    print_touches("cold_touch_p50", "cold_touch_p99");
    bench_print("cold_touch_max", (double)ns[TOUCHES - 1] / 1000, "us");
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "bare") == 0) {
        return run_bare();
    }
    size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 256;
    const struct kind *kind = kinds;
    while (argc > 2 && strcmp(kind->name, argv[2]) != 0) {
        if (++kind == kinds + sizeof kinds / sizeof kinds[0]) {
            bench_die("no such kind");
        }
    }
    unsigned seconds = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 20;
    if (mib == 0) {
        bench_die("no size");
    }
    size_t most = (mib << 20) / 16 + 1, n = 0, bytes = 0;
    struct object *objects = map_pages(most * sizeof *objects);
    read_elf();
    for (; n < most && bytes < mib << 20; n++) {
        unsigned char text[LONGEST];
        struct object *o = &objects[n];
        o->size = (uint32_t)kind->make(text);
        o->p = malloc(o->size);
        if (o->p == NULL) {
            bench_die("out of memory");
        }
        memcpy(o->p, text, o->size);
        o->sum = sum_of(o->p, o->size);
        bytes += o->size;
    }
    long own_kib = (long)((n * sizeof *objects + elf_bytes) >> 10);
    double before = (double)(bench_pss_kib() - own_kib);
    uint64_t cpu = bench_cpu_ns();
    for (unsigned i = 0; i < seconds * 10; i++) {
        usleep(100000);
    }
    double after = (double)(bench_pss_kib() - own_kib);
    bench_print("cold_objects", (double)n, "objects");
    bench_print("cold_bytes", (double)bytes / 1048576, "MiB");
    bench_print("cold_before", before / 1024, "MiB");
    bench_print("cold_after", after / 1024, "MiB");
    bench_print("cold_ratio", after / before, "x");
    bench_print("cold_cpu", (double)(bench_cpu_ns() - cpu) / 1e6, "ms");
    touch_some(objects, n);
    uint64_t began = bench_wall_ns();
    for (size_t i = 0; i < n; i++) {
        check(&objects[i]);
    }
    double s = (double)(bench_wall_ns() - began) / 1e9;
    bench_print("cold_reread", (double)bytes / 1e6 / s, "MB/s");
    return 0;
}
