// Something for gcc to chew on under the preload: system headers and macros that grow. Never run.
#include <ctype.h>
#include <dlfcn.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ONE(n)                                                                                     \
    static unsigned mix_##n(unsigned x, const unsigned char *text, size_t length) {                \
        for (size_t i = 0; i < length; i++) {                                                      \
            switch ((text[i] + n) % 7) {                                                           \
            case 0:                                                                                \
                x = x * 31 + text[i];                                                              \
                break;                                                                             \
            case 1:                                                                                \
                x ^= x >> (n % 13 + 1);                                                            \
                break;                                                                             \
            case 2:                                                                                \
                x += isalpha(text[i]) ? (unsigned)toupper(text[i]) : x << 3;                       \
                break;                                                                             \
            default:                                                                               \
                x = (x << 5 | x >> 27) + n;                                                        \
            }                                                                                      \
        }                                                                                          \
        return x;                                                                                  \
    }
#define FOUR(n) ONE(n##0) ONE(n##1) ONE(n##2) ONE(n##3)
#define SIXTEEN(n) FOUR(n##0) FOUR(n##1) FOUR(n##2) FOUR(n##3)
SIXTEEN(1)
SIXTEEN(2)
SIXTEEN(3)
SIXTEEN(4)

#define USE(n) x = mix_##n(x, text, length);
#define USE_FOUR(n) USE(n##0) USE(n##1) USE(n##2) USE(n##3)
#define USE_SIXTEEN(n) USE_FOUR(n##0) USE_FOUR(n##1) USE_FOUR(n##2) USE_FOUR(n##3)

unsigned mix_all(unsigned x, const unsigned char *text, size_t length);
unsigned mix_all(unsigned x, const unsigned char *text, size_t length) {
    USE_SIXTEEN(1)
    USE_SIXTEEN(2)
    USE_SIXTEEN(3)
    USE_SIXTEEN(4)
    return x;
}

double table[64][64];
void multiply(double (*restrict a)[64], double (*restrict b)[64]);
void multiply(double (*restrict a)[64], double (*restrict b)[64]) {
    for (int i = 0; i < 64; i++) {
        for (int j = 0; j < 64; j++) {
            double sum = 0;
            for (int k = 0; k < 64; k++) {
                sum += a[i][k] * b[k][j];
            }
            table[i][j] = sqrt(fabs(sum));
        }
    }
}
