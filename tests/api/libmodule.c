// A module for test_life: allocates in its constructor, frees in its destructor, and hands blocks
// to and from its host.
#include <stdlib.h>
#include <string.h>

static char *kept;
static __thread char *per_thread;

__attribute__((constructor)) static void module_begin(void) {
    kept = malloc(300);
    memset(kept, 'k', 300);
}

__attribute__((destructor)) static void module_end(void) {
    // Two blocks, so that a bad state of the first shows.
    free(kept);
    free(malloc(1000));
}

void *module_make(size_t n);
void *module_make(size_t n) {
    void *p = malloc(n);
    memset(p, 'm', n);
    return p;
}

void module_take(void *p);
void module_take(void *p) {
    free(p);
}

// 1 when the constructor's block is as it was and thread-local storage works.
int module_is_sound(void);
int module_is_sound(void) {
    for (int i = 0; i < 300; i++) {
        if (kept[i] != 'k') {
            return 0;
        }
    }
    if (per_thread == NULL) {
        per_thread = malloc(50);
    }
    char *resized = realloc(per_thread, 5000);
    free(resized);
    per_thread = NULL;
    return resized != NULL;
}
