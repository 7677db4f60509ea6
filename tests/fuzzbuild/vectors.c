// Vector moves that rely on malloc's alignment of 16 on blocks that lie exactly before a guard:
// `vectors` must end with "fine" whatever the placement; `vectors beyond`, `vectors freed` and
// `vectors crooked` must die.
#include <emmintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *volatile hidden;

__attribute__((noinline)) static void copy_sse(void *to, const void *from) {
    __asm__ volatile("movdqa (%1), %%xmm3\n\tmovaps %%xmm3, (%0)"
                     :
                     : "r"(to), "r"(from)
                     : "memory", "xmm3");
}

__attribute__((noinline)) static void copy_indexed(char *to, const char *from, long i) {
    __asm__ volatile("movapd 16(%1,%2,8), %%xmm11\n\tmovntdq %%xmm11, 16(%0,%2,8)"
                     :
                     : "r"(to), "r"(from), "r"(i)
                     : "memory", "xmm11");
}

__attribute__((noinline)) static void copy_avx(void *to, const void *from) {
    __asm__ volatile("vmovdqa (%1), %%xmm9\n\tvmovaps %%xmm9, (%0)"
                     :
                     : "r"(to), "r"(from)
                     : "memory", "xmm9");
}

static int is_copied(const char *a, const char *b, size_t n, const char *what) {
    if (memcmp(a, b, n) != 0) {
        printf("%s copied something else\n", what);
        return 0;
    }
    return 1;
}

static int copy_all(char *to, const char *from) {
    copy_sse(to, from);
    if (!is_copied(to, from, 16, "movdqa")) {
        return 0;
    }
    copy_indexed(to, from, 2);
    if (!is_copied(to + 32, from + 32, 16, "movapd")) {
        return 0;
    }
    if (__builtin_cpu_supports("avx")) {
        memset(to, 0, 16);
        copy_avx(to, from);
        return is_copied(to, from, 16, "vmovdqa");
    }
    return 1;
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "";
    char *from = malloc(57), *to = malloc(57);
    for (int i = 0; i < 57; i++) {
        from[i] = (char)i;
    }
    hidden = from;
    if (strcmp(how, "beyond") == 0) {
        copy_sse(to, hidden + 48);
    } else if (strcmp(how, "freed") == 0) {
        free(from);
        copy_sse(to, hidden);
    } else if (strcmp(how, "crooked") == 0) {
        copy_sse(to, hidden + 4);
    }
    if (copy_all(to, from)) {
        puts("fine");
    }
    return 0;
}
