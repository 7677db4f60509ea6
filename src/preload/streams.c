// Standard I/O. A stream's buffer is a block of libc's, which libc itself hands to the kernel whenever it likes: blocks
// of such sizes never go (fault_may_be_buffer). Buffers that the program gives to streams and to aio are excluded, for
// good. What a call hands to the kernel past the buffer is pinned.
#include "src/preload/call.h"

#include <aio.h>
#include <stdio.h>
#include <unistd.h>

// Macros, in some versions of the header.
#undef fwrite_unlocked
#undef fread_unlocked

// libc's own.
size_t __fread_chk(void *restrict p, size_t room, size_t size, size_t n, FILE *restrict stream);
size_t __fread_unlocked_chk(void *restrict p, size_t room, size_t size, size_t n,
                            FILE *restrict stream);

// clang-format off
#define NAMES(X)                                                                                  \
    X(fopen) X(fopen64) X(freopen) X(freopen64) X(fdopen) X(popen)        \
    X(fwrite) X(fwrite_unlocked) X(fread) X(fread_unlocked) X(__fread_chk)                        \
    X(__fread_unlocked_chk) X(fputs) X(fputs_unlocked) X(puts) X(setvbuf) X(setbuf) X(setbuffer)  \
    X(aio_read) X(aio_read64) X(aio_write) X(aio_write64) X(lio_listio) X(lio_listio64)
// clang-format on
CALL_DEFINITIONS(call_find_streams, call_fails);

// ---- buffers -------------------------------------------------------------------------------------

static void keep(const volatile void *p, size_t bytes) {
    call_keep((const void *)(uintptr_t)p, bytes);
}

// ---- streams -------------------------------------------------------------------------------------

CALL_GUARDED(FILE *, fopen, (const char *restrict path, const char *restrict how), (path, how),
             add_path(&c, path));
CALL_GUARDED(FILE *, fopen64, (const char *restrict path, const char *restrict how), (path, how),
             add_path(&c, path));
CALL_GUARDED(FILE *, freopen,
             (const char *restrict path, const char *restrict how, FILE *restrict stream),
             (path, how, stream), add_path(&c, path));
CALL_GUARDED(FILE *, freopen64,
             (const char *restrict path, const char *restrict how, FILE *restrict stream),
             (path, how, stream), add_path(&c, path));
CALL_GUARDED(FILE *, fdopen, (int fd, const char *how), (fd, how), add_path(&c, how));
CALL_GUARDED(FILE *, popen, (const char *command, const char *how), (command, how),
             add_path(&c, command), call_add_strings(&c, environ));

CALL_GUARDED(size_t, fwrite, (const void *restrict p, size_t size, size_t n, FILE *restrict stream),
             (p, size, n, stream), add(&c, p, size *n));
CALL_GUARDED(size_t, fwrite_unlocked,
             (const void *restrict p, size_t size, size_t n, FILE *restrict stream),
             (p, size, n, stream), add(&c, p, size *n));
CALL_GUARDED(size_t, fread, (void *restrict p, size_t size, size_t n, FILE *restrict stream),
             (p, size, n, stream), add(&c, p, size *n));
CALL_GUARDED(size_t, fread_unlocked,
             (void *restrict p, size_t size, size_t n, FILE *restrict stream), (p, size, n, stream),
             add(&c, p, size *n));
CALL_GUARDED(size_t, __fread_chk,
             (void *restrict p, size_t room, size_t size, size_t n, FILE *restrict stream),
             (p, room, size, n, stream), add(&c, p, size *n));
CALL_GUARDED(size_t, __fread_unlocked_chk,
             (void *restrict p, size_t room, size_t size, size_t n, FILE *restrict stream),
             (p, room, size, n, stream), add(&c, p, size *n));
CALL_GUARDED(int, fputs, (const char *restrict s, FILE *restrict stream), (s, stream),
             add_path(&c, s));
CALL_GUARDED(int, fputs_unlocked, (const char *restrict s, FILE *restrict stream), (s, stream),
             add_path(&c, s));
CALL_GUARDED(int, puts, (const char *s), (s), add_path(&c, s));

// ---- buffers of the program's --------------------------------------------------------------------

CALL_GUARDED(int, setvbuf, (FILE *restrict stream, char *restrict p, int how, size_t n),
             (stream, p, how, n), keep(p, n));

FIRN_EXPORT void setbuffer(FILE *stream, char *p, size_t n) {
    if (!call_is_plain()) {
        keep(p, n);
        call_look_up();
    }
    next.setbuffer(stream, p, n);
}

FIRN_EXPORT void setbuf(FILE *restrict stream, char *restrict p) {
    if (!call_is_plain()) {
        keep(p, BUFSIZ);
        call_look_up();
    }
    next.setbuf(stream, p);
}

// libc's threads read and write them, by calls of its own.

FIRN_COLD static void keep_list(struct aiocb *const list[], int n) {
    for (size_t i = 0; i < call_count(n); i++) {
        if (list[i] != NULL) {
            keep(list[i]->aio_buf, list[i]->aio_nbytes);
        }
    }
}

CALL_GUARDED(int, aio_read, (struct aiocb * p), (p), call_starts_thread(),
             keep(p->aio_buf, p->aio_nbytes));
CALL_GUARDED(int, aio_write, (struct aiocb * p), (p), call_starts_thread(),
             keep(p->aio_buf, p->aio_nbytes));
CALL_GUARDED(int, aio_read64, (struct aiocb64 * p), (p), call_starts_thread(),
             keep(p->aio_buf, p->aio_nbytes));
CALL_GUARDED(int, aio_write64, (struct aiocb64 * p), (p), call_starts_thread(),
             keep(p->aio_buf, p->aio_nbytes));
CALL_GUARDED(int, lio_listio,
             (int how, struct aiocb *const list[restrict], int n, struct sigevent *restrict event),
             (how, list, n, event), call_starts_thread(), keep_list(list, n));
// On a machine of 64 bits they are the same.
_Static_assert(sizeof(struct aiocb) == sizeof(struct aiocb64), "one layout");
CALL_GUARDED(int, lio_listio64,
             (int how, struct aiocb64 *const list[restrict], int n,
              struct sigevent *restrict event),
             (how, list, n, event), call_starts_thread(),
             keep_list((struct aiocb *const *)list, n));
