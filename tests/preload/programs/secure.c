// Says whether the kernel started it in secure mode, and uses the heap. Linked with the library
// under test and made set-user-ID by start.sh.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

int main(void) {
    char *blocks[1000];
    for (int i = 0; i < 1000; i++) {
        blocks[i] = malloc((size_t)i + 1);
        if (blocks[i] == NULL) {
            return 1;
        }
        memset(blocks[i], i & 255, (size_t)i + 1);
    }
    for (int i = 0; i < 1000; i++) {
        free(blocks[i]);
    }
    printf("secure=%lu\n", getauxval(AT_SECURE));
    return 0;
}
