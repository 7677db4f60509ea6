// Modules come and go while threads allocate: the loader allocates (link maps, TLS blocks), the
// modules' constructors allocate (libstdc++'s emergency pool), their code allocates through its
// own call sites, and all of it is freed again on dlclose.
//
// firn-test: levels=0,1,2,3 timeout=300 sanitize=none

#include "tests/stress/stress.h"

#include <stdatomic.h>

#define THREADS 2u
#define BLOCKS 64u

// Of every Debian with the packages of `make setup`; a module that is missing is passed over, but
// with fewer than two there is nothing to test.
static const char *const modules[] = {"libstdc++.so.6", "libz.so.1",      "libsqlite3.so.0",
                                      "libcrypt.so.1",  "libresolv.so.2", "libm.so.6"};
#define MODULES (sizeof modules / sizeof *modules)

static atomic_bool stop;
static unsigned opened[MODULES];
static unsigned zlib_rounds;

static void *run(void *arg) {
    struct rng rng = rng_for((uint64_t)(uintptr_t)arg);
    void *blocks[BLOCKS] = {NULL};
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        void **place = &blocks[rng_below(&rng, BLOCKS)];
        if (*place != NULL) {
            block_free(*place, "free");
            *place = NULL;
        } else {
            *place = block_new(&rng, rng_size(&rng));
        }
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (blocks[i] != NULL) {
            block_free(blocks[i], "at the end");
        }
    }
    return NULL;
}

// ISO C has no cast from an object pointer to a function pointer.
union zlib_call {
    void *object;
    int (*code)(unsigned char *, unsigned long *, const unsigned char *, unsigned long);
};

// Code inside a module that allocates: deflate's tables and windows, 256 KiB a call.
static void use_zlib(void *module, struct rng *rng) {
    union zlib_call deflate = {.object = dlsym(module, "compress")};
    union zlib_call inflate = {.object = dlsym(module, "uncompress")};
    STRESS_CHECK(deflate.object != NULL && inflate.object != NULL, "libz has no compress");
    unsigned char text[8192];
    unsigned char packed[16384];
    unsigned char back[8192];
    pattern_fill(text, 0, sizeof text, rng_next(rng));
    unsigned long packed_bytes = sizeof packed;
    unsigned long back_bytes = sizeof back;
    STRESS_CHECK(deflate.code(packed, &packed_bytes, text, sizeof text) == 0, "compress failed");
    STRESS_CHECK(inflate.code(back, &back_bytes, packed, packed_bytes) == 0, "uncompress failed");
    STRESS_CHECK(back_bytes == sizeof text && memcmp(text, back, sizeof text) == 0,
                 "zlib gave back other bytes");
    zlib_rounds++;
}

static void open_one(struct rng *rng, size_t index) {
    static const int flags[] = {RTLD_NOW | RTLD_LOCAL, RTLD_LAZY | RTLD_LOCAL,
                                RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND};
    int flag = flags[rng_below(rng, sizeof flags / sizeof *flags)];
    void *module = dlopen(modules[index], flag);
    if (module == NULL) {
        return;
    }
    opened[index]++;
    if (strcmp(modules[index], "libz.so.1") == 0) {
        use_zlib(module, rng);
    }
    STRESS_CHECK(dlclose(module) == 0, "dlclose: %s", dlerror());
}

int main(int argc, char **argv) {
    stress_start("stress_dlopen", argc, argv);
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        threads[i] = stress_thread(run, (void *)(uintptr_t)(i + 1));
    }
    struct rng rng = rng_for(0);
    unsigned rounds = 0;
    do {
        open_one(&rng, rng_below(&rng, MODULES));
        rounds++;
    } while (rounds < 50 || !stress_time_is_up());
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (unsigned i = 0; i < THREADS; i++) {
        stress_join(threads[i]);
    }
    unsigned kinds = 0;
    for (size_t i = 0; i < MODULES; i++) {
        kinds += opened[i] > 0;
    }
    STRESS_CHECK(kinds >= 2, "only %u of %zu modules could be opened", kinds, MODULES);
    printf("ok %s rounds=%u modules=%u zlib=%u seed=%" PRIu64 "\n", stress_name, rounds, kinds,
           zlib_rounds, stress_seed);
    return 0;
}
