// What a right program sees of the fuzz build: `behave WHAT [ARG]` prints "fine", or what was wrong.
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SLOTS = 64, THREADS = 4, THREAD_STEPS = 4000 };

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("line %d: %s\n", __LINE__, #condition);                                         \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static uint32_t draw(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static int is_filled(const unsigned char *p, size_t n, unsigned char value) {
    for (size_t i = 0; i < n; i++) {
        if (p[i] != value) {
            return 0;
        }
    }
    return 1;
}

static void use_api(void) {
    errno = 77;
    char *p = malloc(0), *q = malloc(0);
    MUST(p != NULL && q != NULL && p != q && malloc_usable_size(p) == 0);
    free(p);
    free(q);
    free(NULL);
    MUST(errno == 77);
    for (size_t size = 1; size < 300000; size = size * 5 / 3 + 1) {
        char *z = calloc(size, 1);
        MUST(z != NULL && is_filled((unsigned char *)z, size, 0));
        memset(z, 7, size);
        MUST(malloc_usable_size(z) == size);
        z = realloc(z, size * 2);
        MUST(z != NULL && is_filled((unsigned char *)z, size, 7));
        z = realloc(z, size / 2 + 1);
        MUST(z != NULL && is_filled((unsigned char *)z, size / 2 + 1, 7));
        free(z);
    }
    for (size_t align = 1; align <= (size_t)4 << 20; align *= 2) {
        void *a = memalign(align, 100), *b = aligned_alloc(align, align);
        MUST(a != NULL && b != NULL && (uintptr_t)a % align == 0 && (uintptr_t)b % align == 0);
        memset(a, 1, 100);
        memset(b, 1, align);
        free(a);
        free(b);
        void *c = &c;
        int status = posix_memalign(&c, align, 10);
        MUST(align >= sizeof(void *) ? status == 0 : status == EINVAL && c == &c);
        if (status == 0) {
            free(c);
        }
    }
    MUST(aligned_alloc(24, 100) == NULL && errno == EINVAL);
    MUST(malloc(SIZE_MAX) == NULL && errno == ENOMEM);
    MUST(malloc(PTRDIFF_MAX) == NULL && realloc(NULL, SIZE_MAX - 100) == NULL);
    MUST(reallocarray(NULL, SIZE_MAX / 2, 3) == NULL && errno == ENOMEM);
    p = malloc(10);
    MUST(realloc(p, SIZE_MAX / 2) == NULL && malloc_usable_size(p) == 10);
    MUST(realloc(p, 0) == NULL);
    p = valloc(10);
    q = pvalloc(10);
    MUST((uintptr_t)p % 4096 == 0 && (uintptr_t)q % 4096 == 0 && malloc_usable_size(q) == 4096);
    free(p);
    free(q);
}

// Blocks of all sizes come and go; what was written is what is read.
static void churn(uint32_t seed, int steps) {
    unsigned char *blocks[SLOTS] = {0};
    size_t sizes[SLOTS] = {0};
    uint32_t state = seed * 2654435761u + 1;
    for (int i = 0; i < steps; i++) {
        uint32_t at = draw(&state) % SLOTS, kind = draw(&state) % 16;
        size_t most = kind == 0 ? 700000 : kind < 4 ? 20000 : 300, size = draw(&state) % most;
        MUST(is_filled(blocks[at], sizes[at], (unsigned char)at));
        if (kind % 2 == 0) {
            free(blocks[at]);
            blocks[at] = kind == 2 ? calloc(1, size) : malloc(size);
            MUST(blocks[at] != NULL && (kind != 2 || is_filled(blocks[at], size, 0)));
        } else if (size > 0) {
            blocks[at] = realloc(blocks[at], size);
            MUST(blocks[at] != NULL);
            MUST(is_filled(blocks[at], size < sizes[at] ? size : sizes[at], (unsigned char)at));
        } else {
            continue;
        }
        memset(blocks[at], (int)at, size);
        sizes[at] = size;
    }
    for (int i = 0; i < SLOTS; i++) {
        free(blocks[i]);
    }
}

static void *_Atomic mailbox[SLOTS];

static void *run_thread(void *argument) {
    uint32_t state = (uint32_t)(uintptr_t)argument * 7919 + 1;
    for (int i = 0; i < THREAD_STEPS; i++) {
        char *p = malloc(1 + draw(&state) % 500);
        *p = 1;
        free(__atomic_exchange_n((void **)&mailbox[draw(&state) % SLOTS], p, __ATOMIC_ACQ_REL));
        if (i % 500 == 0) {
            pid_t child = fork();
            if (child == 0) {
                free(malloc(100));
                _exit(0);
            }
            int status = -1;
            MUST(waitpid(child, &status, 0) == child && status == 0);
        }
    }
    return NULL;
}

static void use_threads(void) {
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) {
        MUST(pthread_create(&threads[i], NULL, run_thread, (void *)(i + 1)) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < SLOTS; i++) {
        free(mailbox[i]);
    }
}

static sigjmp_buf back;
static volatile sig_atomic_t handled;

static void on_fault(int number, siginfo_t *info, void *context) {
    (void)context;
    handled = number == SIGSEGV && info->si_addr != NULL;
    siglongjmp(back, 1);
}

// A fault that is none of the heap's business belongs to the program.
static void use_handler(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO}, old;
    char *closed = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(sigaction(SIGSEGV, &action, NULL) == 0);
    for (int i = 0; i < 3; i++) {
        handled = 0;
        if (sigsetjmp(back, 1) == 0) {
            *(volatile char *)closed = 1;
            MUST(!"the store faulted");
        }
        MUST(handled);
    }
    MUST(sigaction(SIGSEGV, NULL, &old) == 0 && old.sa_sigaction == on_fault);
    MUST(signal(SIGSEGV, SIG_DFL) != SIG_ERR);
    MUST(sigaction(SIGSEGV, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
    MUST(signal(SIGUSR1, SIG_IGN) == SIG_DFL && raise(SIGUSR1) == 0);
}

// One allocating and one freeing site, whoever calls. Reads the block after its free if asked.
__attribute__((noinline)) static int free_one(int with_read) {
    char *volatile p = malloc(40);
    free(p);
    return with_read ? *(volatile char *)p : 0;
}

// Reads a freed block after `before` frees of its site.
static void read_freed(long before) {
    for (long i = 0; i < before; i++) {
        free_one(0);
    }
    free_one(1);
}

// Between two inputs a persistent-mode target stops itself, and every site is revoked again.
static void stop_between_inputs(int with_stop) {
    pid_t child = fork();
    int status;
    if (child == 0) {
        for (int i = 0; i < 10; i++) {
            free_one(0);
        }
        if (with_stop) {
            raise(SIGSTOP);
        }
        free_one(1);
        _exit(0);
    }
    MUST(waitpid(child, &status, WUNTRACED) == child);
    if (WIFSTOPPED(status)) {
        kill(child, SIGCONT);
        MUST(waitpid(child, &status, 0) == child);
    }
    MUST(with_stop ? WIFSIGNALED(status) : WIFEXITED(status));
}

static void count_mappings(void) {
    static char *blocks[5000];
    int lines = 0, c;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 5000; i++) {
            blocks[i] = malloc((size_t)(1 + i % 3000));
            blocks[i][0] = 1;
        }
        for (int i = round; i < 5000; i += round < 2 ? 1 : 2) {
            free(blocks[i]);
        }
    }
    FILE *maps = fopen("/proc/self/maps", "r");
    while ((c = fgetc(maps)) != EOF) {
        lines += c == '\n';
    }
    fclose(maps);
    printf("%d mappings\n", lines);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    long number = argc > 2 ? atol(argv[2]) : 0;
    if (strcmp(what, "api") == 0) {
        use_api();
    } else if (strcmp(what, "churn") == 0) {
        churn((uint32_t)number, 20000);
    } else if (strcmp(what, "threads") == 0) {
        use_threads();
    } else if (strcmp(what, "handler") == 0) {
        use_handler();
    } else if (strcmp(what, "read_freed") == 0) {
        read_freed(number);
    } else if (strcmp(what, "stop") == 0) {
        stop_between_inputs((int)number);
    } else if (strcmp(what, "mappings") == 0) {
        count_mappings();
    } else if (strcmp(what, "addresses") == 0) {
        for (int i = 0; i < 5; i++) {
            printf("%p ", malloc((size_t)(10 + i * 1000)));
        }
    } else if (strcmp(what, "limit") == 0) {
        void *p = malloc((size_t)number);
        printf("%s\n", p == NULL && errno == ENOMEM ? "refused" : "given");
        free(p);
    } else if (strcmp(what, "calloc_overflow") == 0) {
        MUST(calloc((size_t)1 << 40, (size_t)1 << 40) == NULL && errno == ENOMEM);
    } else if (strcmp(what, "fill") == 0) {
        const unsigned char *volatile p = malloc(100);
        MUST(is_filled(p, 100, (unsigned char)number));
    } else {
        return 2;
    }
    puts("fine");
    return 0;
}
