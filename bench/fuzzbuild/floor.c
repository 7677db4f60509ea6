// The least that a preloaded allocator can cost a fork: a library of two segments that maps one page
// where the fuzz build's heap begins, and does nothing else.
#include <sys/mman.h>

#define BASE ((void *)((unsigned long)16 << 40))

__attribute__((constructor)) static void map_one_page(void) {
    char *p = mmap(BASE, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p != MAP_FAILED) {
        *p = 1;
    }
}
