// memcpy and its family, checked against the heap: no copy leaves the live object it begins in, and
// none begins in a freed one. P-BOUNDS. What passes is done by libc's own functions (plain.h).
//
// In libfirn-strict.so and the -checked libraries only, not in archives: exporting memcpy costs every
// program something, and a static program has one memcpy only. The makefile decides by linking this
// file or not. Overlapping arguments of memcpy are not looked for.
#undef _FORTIFY_SOURCE
#include "src/base/fatal.h"
#include "src/front/bounds.h"
#include "src/preload/plain.h"

#include <string.h>
#include <strings.h>

// What -D_FORTIFY_SOURCE makes of the calls; `room` is what the compiler knows of the destination.
void *__memcpy_chk(void *to, const void *from, size_t n, size_t room);
void *__memmove_chk(void *to, const void *from, size_t n, size_t room);
void *__mempcpy_chk(void *to, const void *from, size_t n, size_t room);
void *__memset_chk(void *p, int byte, size_t n, size_t room);
char *__strcpy_chk(char *to, const char *from, size_t room);
char *__stpcpy_chk(char *to, const char *from, size_t room);
char *__strncpy_chk(char *to, const char *from, size_t n, size_t room);
char *__stpncpy_chk(char *to, const char *from, size_t n, size_t room);
char *__strcat_chk(char *to, const char *from, size_t room);
char *__strncat_chk(char *to, const char *from, size_t n, size_t room);
FIRN_NORETURN void __chk_fail(void); // libc's: "buffer overflow detected"
void *__real_memcpy(void *to, const void *from, size_t n);

// Linked without -Wl,--wrap=memcpy, Firn's own copies would be checked, too: this name is then missing.
__attribute__((used)) static void *(*const is_wrapped)(void *, const void *,
                                                       size_t) = __real_memcpy;

#define CALL(api, size) (&(const struct bounds_call){api, FIRN_CALLER(), size})
#define CALL_UNSIZED(api) CALL(api, FATAL_SIZE_UNKNOWN)

FIRN_INLINE void require_room(size_t n, size_t room) {
    if (FIRN_UNLIKELY(n > room)) {
        __chk_fail();
    }
}

FIRN_INLINE void *copy(void *to, const void *from, size_t n, const struct bounds_call *call) {
    bounds_write(to, n, call);
    bounds_read(from, n, call);
    plain_copy(to, from, n);
    return to;
}

FIRN_INLINE void *move(void *to, const void *from, size_t n, const struct bounds_call *call) {
    bounds_write(to, n, call);
    bounds_read(from, n, call);
    plain_move(to, from, n);
    return to;
}

FIRN_INLINE void *fill(void *p, int byte, size_t n, const struct bounds_call *call) {
    bounds_write(p, n, call);
    plain_fill(p, byte, n);
    return p;
}

// Returns where the terminator was written. `room` as above, SIZE_MAX if unknown.
static char *copy_string(char *to, const char *from, size_t room, const struct bounds_call *call) {
    size_t n = bounds_length(from, call);
    require_room(n + 1, room);
    bounds_write(to, n + 1, call);
    plain_copy(to, from, n + 1);
    return to + n;
}

// strncpy: what `from` does not fill is zeros. Returns the first of them, or to + n.
static char *copy_padded(char *to, const char *from, size_t n, const struct bounds_call *call) {
    size_t length = bounds_length_most(from, n, call);
    bounds_write(to, n, call);
    plain_copy(to, from, length);
    plain_fill(to + length, 0, n - length);
    return to + length;
}

// At most n bytes of `from` behind the string at `to`.
static char *append(char *to, const char *from, size_t n, size_t room,
                    const struct bounds_call *call) {
    size_t before = bounds_length(to, call);
    size_t length = bounds_length_most(from, n, call);
    require_room(before + length + 1, room);
    bounds_write(to, before + length + 1, call);
    plain_copy(to + before, from, length);
    to[before + length] = '\0';
    return to;
}

FIRN_EXPORT void *memcpy(void *to, const void *from, size_t n) {
    return copy(to, from, n, CALL("memcpy", n));
}

FIRN_EXPORT void *memmove(void *to, const void *from, size_t n) {
    return move(to, from, n, CALL("memmove", n));
}

FIRN_EXPORT void *mempcpy(void *to, const void *from, size_t n) {
    return (char *)copy(to, from, n, CALL("mempcpy", n)) + n;
}

FIRN_EXPORT void *memset(void *p, int byte, size_t n) {
    return fill(p, byte, n, CALL("memset", n));
}

FIRN_EXPORT void bcopy(const void *from, void *to, size_t n) {
    move(to, from, n, CALL("bcopy", n));
}

FIRN_EXPORT void bzero(void *p, size_t n) {
    fill(p, 0, n, CALL("bzero", n));
}

FIRN_EXPORT char *strcpy(char *to, const char *from) {
    copy_string(to, from, SIZE_MAX, CALL_UNSIZED("strcpy"));
    return to;
}

FIRN_EXPORT char *stpcpy(char *to, const char *from) {
    return copy_string(to, from, SIZE_MAX, CALL_UNSIZED("stpcpy"));
}

FIRN_EXPORT char *strncpy(char *to, const char *from, size_t n) {
    copy_padded(to, from, n, CALL("strncpy", n));
    return to;
}

FIRN_EXPORT char *stpncpy(char *to, const char *from, size_t n) {
    return copy_padded(to, from, n, CALL("stpncpy", n));
}

FIRN_EXPORT char *strcat(char *to, const char *from) {
    return append(to, from, SIZE_MAX, SIZE_MAX, CALL_UNSIZED("strcat"));
}

FIRN_EXPORT char *strncat(char *to, const char *from, size_t n) {
    return append(to, from, n, SIZE_MAX, CALL("strncat", n));
}

FIRN_EXPORT void *__memcpy_chk(void *to, const void *from, size_t n, size_t room) {
    require_room(n, room);
    return copy(to, from, n, CALL("memcpy", n));
}

FIRN_EXPORT void *__memmove_chk(void *to, const void *from, size_t n, size_t room) {
    require_room(n, room);
    return move(to, from, n, CALL("memmove", n));
}

FIRN_EXPORT void *__mempcpy_chk(void *to, const void *from, size_t n, size_t room) {
    require_room(n, room);
    return (char *)copy(to, from, n, CALL("mempcpy", n)) + n;
}

FIRN_EXPORT void *__memset_chk(void *p, int byte, size_t n, size_t room) {
    require_room(n, room);
    return fill(p, byte, n, CALL("memset", n));
}

FIRN_EXPORT char *__strcpy_chk(char *to, const char *from, size_t room) {
    copy_string(to, from, room, CALL_UNSIZED("strcpy"));
    return to;
}

FIRN_EXPORT char *__stpcpy_chk(char *to, const char *from, size_t room) {
    return copy_string(to, from, room, CALL_UNSIZED("stpcpy"));
}

FIRN_EXPORT char *__strncpy_chk(char *to, const char *from, size_t n, size_t room) {
    require_room(n, room);
    copy_padded(to, from, n, CALL("strncpy", n));
    return to;
}

FIRN_EXPORT char *__stpncpy_chk(char *to, const char *from, size_t n, size_t room) {
    require_room(n, room);
    return copy_padded(to, from, n, CALL("stpncpy", n));
}

FIRN_EXPORT char *__strcat_chk(char *to, const char *from, size_t room) {
    return append(to, from, SIZE_MAX, room, CALL_UNSIZED("strcat"));
}

FIRN_EXPORT char *__strncat_chk(char *to, const char *from, size_t n, size_t room) {
    return append(to, from, n, room, CALL("strncat", n));
}
