// A system call of the program, on its way to libc. Where the kernel cannot wait for a page that is being merged
// or that the cold tier took away (os/pin.h), the memory that the call hands to the kernel is pinned for the time of the
// call, and touched. Memory outside of the heap passes with one comparison.
//
// Each goes on to the next definition in load order, libc's or that of another preloaded library. Not
// in the archive, where there is no next one: there the engines that need pins are not used.
#ifndef FIRN_PRELOAD_CALL_H
#define FIRN_PRELOAD_CALL_H

#include "src/base/compiler.h"
#include "src/meta/root.h"
#include "src/os/pin.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

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
// Pins. True: everything is to be added once more.
bool call_pin(struct call *c);
void call_unpin(const struct call *c);

void call_add_vector(struct call *c, const struct iovec *v, size_t n);
void call_add_message(struct call *c, const struct msghdr *m);
// The length is the caller's, and changed by the kernel.
void call_add_address(struct call *c, const void *address, const socklen_t *bytes);
void call_add_string(struct call *c, const char *s);
// Up to a NULL: of an exec.
void call_add_strings(struct call *c, char *const *strings);

// ENOSYS.
long call_fails(void);

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

// Any is in the heap.
FIRN_INLINE bool call_begin(struct call *c) {
    return FIRN_UNLIKELY((c->small.high | c->large.high) != 0) && call_pin(c);
}

FIRN_INLINE void call_end(const struct call *c) {
    if (FIRN_UNLIKELY((c->small.high | c->large.high) != 0)) {
        call_unpin(c);
    }
}

// The body of a call: `adds` adds to `c`, then the next definition of `name` runs. A thread cancelled in
// it leaves its pin, which ends with the thread. Each file has its `next` and look_up.
#define CALL(type, adds, name, ...)                                                                \
    do {                                                                                           \
        struct call c = {0};                                                                       \
        adds;                                                                                      \
        if (call_begin(&c)) {                                                                      \
            adds;                                                                                  \
        }                                                                                          \
        if (FIRN_UNLIKELY(next.of.name == NULL)) {                                                 \
            look_up();                                                                             \
        }                                                                                          \
        type result = next.of.name != NULL ? next.of.name(__VA_ARGS__) : (type)call_fails();       \
        call_end(&c);                                                                              \
        return result;                                                                             \
    } while (0)

#endif
