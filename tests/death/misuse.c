// Deliberate heap misuse, one scenario a process: `misuse NAME`. What each must die of is written
// in misuse.def. Before the wrong call a scenario prints the address it is about to misuse, so that
// the report can be compared word for word.
//
// Sizes are chosen so that the class is the same at every level: 260 bytes lie in class 288 and
// 1,100 in class 1280 with or without some room for a canary.
#include "tests/death/misuse.h"
#include "tests/death/damage.h"
#include "tests/death/double_free.h"

// ---- interior and misaligned pointers ----

static void interior_slot(void) {
    free(aim((char *)small_block() + 16));
}

static void interior_slot_end(void) {
    free(aim((char *)small_block() + 272));
}

static void interior_slot_remote(void) {
    in_thread(free_it, aim((char *)small_block() + 64));
}

static void interior_large(void) {
    free(aim((char *)large_block() + 16));
}

static void interior_large_page(void) {
    free(aim((char *)large_block() + 4096));
}

static void interior_large_last_page(void) {
    free(aim((char *)large_block() + 98304));
}

static void interior_by_realloc(void) {
    char *p = realloc(aim((char *)small_block() + 32), 500);
    (void)p;
}

static void interior_large_by_realloc(void) {
    char *p = realloc(aim((char *)large_block() + 8192), 500);
    (void)p;
}

static void interior_by_usable_size(void) {
    malloc_usable_size(aim((char *)small_block() + 48));
}

static void interior_by_delete(void) {
    _ZdlPv(aim((char *)_Znwm(SMALL) + 16));
}

// delete[] of what new[] with a cookie made, by the wrong operator: 8 or 16 bytes off.
static void interior_by_sized_delete(void) {
    _ZdlPvm(aim((char *)_Znwm(SMALL) + 16), SMALL - 16);
}

static void misaligned_slot(void) {
    free(aim((char *)small_block() + 8));
}

static void misaligned_slot_by_one(void) {
    free(aim((char *)small_block() + 1));
}

static void misaligned_large(void) {
    free(aim((char *)large_block() + 8));
}

static void misaligned_by_realloc(void) {
    char *p = realloc(aim((char *)small_block() + 4), 10);
    (void)p;
}

static void misaligned_by_usable_size(void) {
    malloc_usable_size(aim((char *)large_block() + 2));
}

static void misaligned_by_delete_array(void) {
    _ZdaPv(aim((char *)_Znwm(SMALL) + 8));
}

// ---- never allocated ----

enum { RARE = 9000, RARE_SLOT = 10240, RARE_SLOTS = 12 };

static int is_among(char *const *p, int count, const char *q) {
    for (int i = 0; i < count; i++) {
        if (p[i] == q) {
            return 1;
        }
    }
    return 0;
}

// A slot between two of `p` in one span that is not itself among them, or NULL. Two addresses lie
// in one span when they are a few whole slots apart: the slot size does not divide the span's.
static char *find_gap(char *const *p, int count) {
    for (int i = 0; i < count; i++) {
        for (int k = 0; k < count; k++) {
            const long apart = p[k] - p[i];
            if (apart > RARE_SLOT && apart < RARE_SLOTS * RARE_SLOT && apart % RARE_SLOT == 0 &&
                !is_among(p, count, p[i] + RARE_SLOT)) {
                return p[i] + RARE_SLOT;
            }
        }
    }
    return NULL;
}

// In a class that nobody else uses, the first random slots of a span leave gaps.
static void never_neighbour(void) {
    enum { COUNT = 60 };
    char *p[COUNT];
    char *gap = NULL;
    for (int i = 0; i < COUNT && gap == NULL; i++) {
        p[i] = malloc(RARE);
        gap = find_gap(p, i + 1);
    }
    free(aim(gap));
}

static void never_small_region(void) {
    free(aim((char *)small_block() + ((size_t)64 << 20)));
}

static void never_large_region(void) {
    free(aim((char *)large_block() + ((size_t)1 << 30)));
}

static void never_by_realloc(void) {
    char *p = realloc(aim((char *)large_block() + ((size_t)1 << 30)), 100);
    (void)p;
}

// ---- foreign pointers ----

static void foreign_stack(void) {
    char block[64] __attribute__((aligned(16))) = "";
    free(aim(block));
}

static void foreign_global(void) {
    free(aim(global_block));
}

static void foreign_global_misaligned(void) {
    free(aim(global_block + 3));
}

static void foreign_mmap(void) {
    free(aim(mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)));
}

static void foreign_code(void) {
    free(aim((void *)(uintptr_t)foreign_mmap));
}

static void *number(uintptr_t value) {
    volatile uintptr_t hidden = value;
    return (void *)hidden;
}

static void foreign_small_integer(void) {
    free(aim(number(16)));
}

static void foreign_one(void) {
    free(aim(number(1)));
}

static void foreign_non_canonical(void) {
    free(aim(number((uintptr_t)0x8000000000000010)));
}

static void foreign_kernel(void) {
    free(aim(number((uintptr_t)0xffffffff81000000)));
}

static void foreign_minus_one(void) {
    free(aim(number(UINTPTR_MAX)));
}

static void foreign_before_any_malloc(void) {
    // As early as a program can: main has allocated nothing yet.
    free(aim(number((uintptr_t)&global_block[16])));
}

static void foreign_by_realloc(void) {
    char *p = realloc(aim(global_block), 100);
    (void)p;
}

static void foreign_by_realloc_zero(void) {
    char *p = realloc(aim(global_block), 0);
    (void)p;
}

static void foreign_by_usable_size(void) {
    malloc_usable_size(aim(global_block));
}

static void foreign_by_delete(void) {
    _ZdlPv(aim(global_block));
}

static void foreign_by_sized_delete_array(void) {
    _ZdaPvm(aim(global_block), 64);
}

static void foreign_by_cfree(void) {
    cfree(aim(global_block));
}

// The wrong call is libc's, on the program's behalf.
static void foreign_through_libc(void) {
    char text[] = "0123456789";
    char *line = aim(global_block);
    size_t room = 1;
    FILE *f = fmemopen(text, 10, "r");
    (void)!getline(&line, &room, f);
}

// ---- sizes ----

static void size_small_other_class(void) {
    free_sized(aim(small_block()), 485);
}

static void size_small_too_short(void) {
    free_sized(aim(malloc(MEDIUM)), SMALL);
}

static void size_small_as_large(void) {
    free_sized(aim(small_block()), LARGE);
}

static void size_large_as_small(void) {
    free_sized(aim(large_block()), SMALL);
}

static void size_large_other_pages(void) {
    free_sized(aim(large_block()), 2 * LARGE);
}

static void size_zero(void) {
    free_sized(aim(small_block()), 0);
}

static void size_impossible(void) {
    free_sized(aim(small_block()), SIZE_MAX / 2 + 1);
}

static void size_all_ones(void) {
    free_sized(aim(small_block()), SIZE_MAX);
}

static void size_remote(void) {
    void *p = NULL;
    in_thread(make_block, &p);
    free_sized(aim(p), 485);
}

static void size_delete(void) {
    _ZdlPvm(aim(_Znwm(SMALL)), MEDIUM);
}

static void size_delete_array(void) {
    _ZdaPvm(aim(_Znwm(MEDIUM)), SMALL);
}

static void size_delete_large(void) {
    _ZdlPvm(aim(_Znwm(LARGE)), 2 * LARGE);
}

static void size_aligned(void) {
    free_aligned_sized(aim(aligned_alloc(64, SMALL)), 64, MEDIUM);
}

static void size_aligned_delete(void) {
    _ZdlPvmSt11align_val_t(aim(_ZnwmSt11align_val_t(SMALL, 64)), MEDIUM, 64);
}

static void size_alignment_forgotten(void) {
    _ZdlPvm(aim(_ZnwmSt11align_val_t(SMALL, 64)), SMALL);
}

static void size_alignment_impossible(void) {
    free_aligned_sized(aim(aligned_alloc(64, SMALL)), 24, SMALL);
}

// ---- corrupted links ----

static void allocate_until_drained(void) {
    for (int i = 0; i < 100000; i++) {
        if (malloc(SMALL) == NULL) {
            _exit(94);
        }
    }
}

static void link_overwritten(void) {
    char *p = aim(small_block());
    in_thread(free_it, p);
    scribble(p, 'A', SMALL);
    allocate_until_drained();
}

static void link_one_bit(void) {
    char *p = aim(small_block());
    in_thread(free_it, p);
    p[3] = (char)(p[3] ^ 1);
    allocate_until_drained();
}

static void link_zeroed(void) {
    char *p = aim(small_block());
    in_thread(free_it, p);
    scribble(p, 0, 8);
    allocate_until_drained();
}

// The tag of another slot, genuine where it was made.
static void link_replayed(void) {
    char *p = small_block();
    char *q = small_block();
    in_thread(free_it, p);
    in_thread(free_it, q);
    for (int i = 0; i < 16; i++) {
        ((volatile char *)p)[i] = ((volatile char *)q)[i];
    }
    aim(p);
    allocate_until_drained();
}

// ---- for the harness's own test ----

static void harness_survives(void) {
    aim(small_block());
}

static void harness_exits_with_134(void) {
    aim(small_block());
    _exit(134);
}

static void harness_is_silent(void) {
    aim(small_block());
    abort();
}

static void harness_segfaults(void) {
    aim(small_block());
    raise(SIGSEGV);
}

static void say(const char *text) {
    if (write(STDERR_FILENO, text, strlen(text)) < 0) {
        _exit(93);
    }
}

static void harness_says_other_words(void) {
    aim(small_block());
    say("firn: double-free: free(0x10): class=288 size=? found: slot is already free; expected: a "
        "live slot; caller=/nowhere+0x10\n");
    abort();
}

static void harness_right_slug_wrong_class(void) {
    void *p = aim(malloc(MEDIUM));
    free(p);
    free(p);
}

static void harness_writes_in_pieces(void) {
    say("firn: a first ");
    say("and a second piece\n");
    double_free_immediate();
}

#define SCENARIO(name, slug, api, class_name, size, found) {#name, name},
#define SCENARIO_FROM(level, name, slug, api, class_name, size, found) {#name, name},

static const struct {
    const char *name;
    void (*run)(void);
} scenarios[] = {
#include "tests/death/misuse.def"
#undef SCENARIO
#undef SCENARIO_FROM
};
enum { SCENARIOS = sizeof(scenarios) / sizeof(scenarios[0]) };

int main(int argc, char **argv) {
    for (int i = 0; i < SCENARIOS; i++) {
        if (argc < 2) {
            puts(scenarios[i].name);
        } else if (strcmp(argv[1], scenarios[i].name) == 0) {
            scenarios[i].run();
            return 3;
        }
    }
    return argc < 2 ? 0 : 97;
}
