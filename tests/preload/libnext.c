// An allocator as small as one can be, to come after Firn: blocks from one array, each behind its size. Whatever is
// not a block of its own, free or in use, ends the process.
#include <errno.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { GUARD = 0x5afe };
struct head {
    size_t size;
    size_t guard; // GUARD while in use
};

static _Alignas(65536) unsigned char pool[1 << 30];
static size_t used;

static void *take(size_t align, size_t size) {
    align = align < 16 ? 16 : align;
    size_t most = sizeof pool / 2;
    size_t bytes = size < most ? size + align + 32 : most;
    size_t at = __atomic_fetch_add(&used, bytes, __ATOMIC_RELAXED);
    if (size >= most || align >= most || at > sizeof pool - bytes) {
        __atomic_fetch_sub(&used, bytes, __ATOMIC_RELAXED);
        errno = ENOMEM;
        return NULL;
    }
    at = (at + sizeof(struct head) + align - 1) / align * align;
    struct head head = {size, GUARD};
    memcpy(pool + at - sizeof head, &head, sizeof head);
    return pool + at;
}

static struct head *head_of(void *p) {
    struct head *head = (struct head *)p - 1;
    if ((uintptr_t)p - (uintptr_t)pool >= sizeof pool || head->guard != GUARD) {
        __builtin_trap();
    }
    return head;
}

void *malloc(size_t size) {
    return take(16, size);
}

void free(void *p) {
    if (p != NULL) {
        head_of(p)->guard = 0;
    }
}

void *calloc(size_t n, size_t size) {
    return take(16, n * size); // nothing is used twice
}

void *realloc(void *p, size_t size) {
    void *q = take(16, size);
    if (p != NULL && q != NULL) {
        size_t old = head_of(p)->size;
        memcpy(q, p, old < size ? old : size);
        free(p);
    }
    return q;
}

void *memalign(size_t align, size_t size) {
    return take(align, size);
}

size_t malloc_usable_size(void *p) {
    return p != NULL ? head_of(p)->size : 0;
}

struct mallinfo2 mallinfo2(void) {
    return (struct mallinfo2){.uordblks = __atomic_load_n(&used, __ATOMIC_RELAXED)};
}
