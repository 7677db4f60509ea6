// A system call of the program, on its way to libc. Where the kernel cannot wait for a page that is being merged
// or that the cold tier took away (os/pin.h), the memory that the call hands to the kernel is pinned for the time of the
// call, and touched. Memory outside of the heap passes with one comparison.
//
// Each goes on to the next definition in load order, libc's or that of another preloaded library. Not
// in the archive, where there is no next one: there the engines that need pins are not used.
//
// Two kinds. Calls by which the kernel writes (syscalls.c, CALL) always pin, as merging may begin while they are
// under way. The others (CALL_GUARDED) matter to the cold tier only, under engine `signal`, which a process has to be
// started with: elsewhere they are a comparison and a jump.
#ifndef FIRN_PRELOAD_CALL_H
#define FIRN_PRELOAD_CALL_H

#include "src/base/compiler.h"
#include "src/meta/root.h"
#include "src/os/pin.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

// Blocks of the heap that the kernel may touch lie between, small and large ones apart, as they lie far from each
// other; high 0: there are none.
struct call_range {
    uintptr_t low, high;
};
struct call {
    struct call_range small, large;
    unsigned small_pin, large_pin;
    bool is_touching; // they are pinned: what is added now is touched
};

void call_add_heap(struct call *c, uintptr_t address, size_t bytes);
// Pins. True: everything is to be added once more, and then this to be called again.
bool call_pin(struct call *c);
void call_unpin(const struct call *c);

void call_add_vector(struct call *c, const struct iovec *v, size_t n);
void call_add_message(struct call *c, const struct msghdr *m);
// The length is the caller's, and changed by the kernel.
void call_add_address(struct call *c, const void *address, const socklen_t *bytes);
void call_add_string(struct call *c, const char *s);
// Up to a NULL: of an exec.
void call_add_strings(struct call *c, char *const *strings);

// Is never to go away, as far as it lies in the block of the heap that `p` is in: the kernel will touch it when nobody
// calls.
void call_keep(const void *p, size_t bytes);

// libc will start a thread that blocks all signals, for good: no page may be away from now on that takes one to bring it
// back.
void call_starts_thread(void);
void call_starts_notifier(const struct sigevent *event); // if that is how it is to be told

// From there to the end of the live block.
void call_add_object(struct call *c, const void *p);

// What stands for a function that libc lacks: -1 with ENOSYS, ENOSYS.
long call_fails(void);
long call_fails_by_result(void);

FIRN_INLINE void add(struct call *c, const void *p, size_t n) {
    if (FIRN_UNLIKELY((uintptr_t)p - FIRN_ROOT.data.base < FIRN_ROOT.data.bytes)) {
        call_add_heap(c, (uintptr_t)p, n);
    }
}

FIRN_INLINE void add_path(struct call *c, const char *path) {
    if (FIRN_UNLIKELY((uintptr_t)path - FIRN_ROOT.data.base < FIRN_ROOT.data.bytes)) {
        call_add_string(c, path);
    }
}

FIRN_INLINE size_t call_count(int n) {
    return n > 0 ? (size_t)n : 0;
}

// Pins, if any is in the heap. As call_pin.
FIRN_INLINE bool call_begin(struct call *c) {
    return FIRN_UNLIKELY((c->small.high | c->large.high) != 0) && call_pin(c);
}

FIRN_INLINE void call_end(const struct call *c) {
    if (FIRN_UNLIKELY((c->small.high | c->large.high) != 0)) {
        call_unpin(c);
    }
}

// ---- next definitions ---------------------------------------------------------------------------

enum call_state {
    CALL_UNKNOWN, // constructors have not run yet
    CALL_PLAIN,   // only calls by which the kernel writes are pinned
    CALL_WARY     // all are: pages may be away that the kernel cannot fetch
};
// With the definitions of all files FIRN_KEPT.
extern unsigned char firn_call_state __attribute__((visibility("hidden"))); // enum call_state

FIRN_INLINE bool call_is_plain(void) {
    return FIRN_LIKELY(firn_call_state == CALL_PLAIN);
}

// Finds the next definitions of all files, if that was not done. Preserves errno.
void call_look_up(void);

// `names`: one behind the other, an empty one at the end. What is not there becomes `otherwise`.
typedef long call_missing_fn(void);
void call_find(void **slots, const char *names, call_missing_fn *otherwise);

void call_find_written(void); // one for each file
void call_find_read(void);
void call_find_records(void);
void call_find_paths(void);
void call_find_programs(void);
void call_find_streams(void);
void call_find_waits(void);
// libc's. Once firn_call_state is known.
int call_next_clock_gettime(clockid_t clock, struct timespec *out);

// NOLINTNEXTLINE(bugprone-macro-parentheses): a name cannot stand in them
#define CALL_MEMBER(name) __typeof__(&(name)) name;
#define CALL_NAME(name) #name "\0"

// A file's `next`, of the list NAMES(X), and the function that fills it in.
#define CALL_DEFINITIONS(find, otherwise)                                                          \
    static struct { NAMES(CALL_MEMBER) } next FIRN_KEPT;                                           \
    void find(void) {                                                                              \
        call_find((void **)(void *)&next, NAMES(CALL_NAME), otherwise);                            \
    }                                                                                              \
    _Static_assert(true, "a semicolon follows")

// ---- definitions ---------------------------------------------------------------------------------

// The body of a call: `adds` adds to `c`, then the next definition of `name` runs. A thread cancelled in
// it leaves its pin, which ends with the thread.
#define CALL(type, adds, name, ...)                                                                \
    do {                                                                                           \
        struct call c = {0};                                                                       \
        do {                                                                                       \
            adds;                                                                                  \
        } while (call_begin(&c));                                                                  \
        if (FIRN_UNLIKELY(firn_call_state == CALL_UNKNOWN)) {                                      \
            call_look_up();                                                                        \
        }                                                                                          \
        type result = next.name(__VA_ARGS__);                                                      \
        call_end(&c);                                                                              \
        return result;                                                                             \
    } while (0)

// A whole call that only matters to the cold tier. The parameters and the arguments are in parentheses; the rest adds.
#define CALL_GUARDED(type, name, parameters, arguments, ...)                                       \
    FIRN_COLD static type wary_##name parameters {                                                 \
        CALL(type, (__VA_ARGS__), name, CALL_BARE arguments);                                      \
    }                                                                                              \
    FIRN_EXPORT type name parameters {                                                             \
        return call_is_plain() ? next.name arguments : wary_##name arguments;                      \
    }                                                                                              \
    _Static_assert(true, "a semicolon follows")

// Likewise, of one that may never return, return in another process, or take hours with much in its hands: what it
// reads at once is brought back, and not pinned.
#define CALL_TOUCHED(type, name, parameters, arguments, ...)                                       \
    FIRN_COLD static type wary_##name parameters {                                                 \
        struct call c = {.is_touching = true};                                                     \
        __VA_ARGS__;                                                                               \
        if (firn_call_state == CALL_UNKNOWN) {                                                     \
            call_look_up();                                                                        \
        }                                                                                          \
        return next.name arguments;                                                                \
    }                                                                                              \
    FIRN_EXPORT type name parameters {                                                             \
        return call_is_plain() ? next.name arguments : wary_##name arguments;                      \
    }                                                                                              \
    _Static_assert(true, "a semicolon follows")

#define CALL_BARE(...) __VA_ARGS__

#endif
