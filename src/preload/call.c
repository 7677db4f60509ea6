#include "src/preload/call.h"

#include "src/cold/cold.h"
#include "src/front/front.h"
#include "src/os/lock.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

// Large blocks are never merged: they matter to the cold tier only.
void call_add_heap(struct call *c, uintptr_t address, size_t bytes) {
    size_t room = FIRN_ROOT.data.bytes - (address - FIRN_ROOT.data.base);
    bool is_small = address - FIRN_ROOT.small_base < FIRN_ROOT.small_bytes;
    bytes = bytes < room ? bytes : room;
    if (c->is_touching) {
        // Of its own block, whatever the caller says: others may be freed, and closed, at this moment.
        size_t most = front_object_size((const void *)address); // NOLINT(performance-no-int-to-ptr)
        pin_touch(address, bytes < most ? bytes : most != SIZE_MAX ? most : 0);
    } else if (bytes != 0 && (is_small || firn_call_state == CALL_WARY)) {
        struct call_range *r = is_small ? &c->small : &c->large;
        r->low = r->high == 0 || address < r->low ? address : r->low;
        r->high = address + bytes > r->high ? address + bytes : r->high;
    }
}

bool call_pin(struct call *c) {
    if (c->is_touching) {
        return false;
    }
    if (c->small.high != 0) {
        c->small_pin = pin_enter(c->small.low, c->small.high - c->small.low);
    }
    if (c->large.high != 0) {
        c->large_pin = pin_enter(c->large.low, c->large.high - c->large.low);
    }
    c->is_touching = pin_needs_touch();
    return c->is_touching;
}

void call_unpin(const struct call *c) {
    if (c->large.high != 0) {
        pin_leave(c->large_pin);
    }
    if (c->small.high != 0) {
        pin_leave(c->small_pin);
    }
}

void call_add_vector(struct call *c, const struct iovec *v, size_t n) {
    if (v != NULL && n <= IOV_MAX) {
        add(c, v, n * sizeof *v);
        for (size_t i = 0; i < n; i++) {
            add(c, v[i].iov_base, v[i].iov_len);
        }
    }
}

void call_add_message(struct call *c, const struct msghdr *m) {
    if (m != NULL) {
        add(c, m, sizeof *m);
        add(c, m->msg_name, m->msg_namelen);
        add(c, m->msg_control, m->msg_controllen);
        call_add_vector(c, m->msg_iov, m->msg_iovlen);
    }
}

void call_add_address(struct call *c, const void *address, const socklen_t *bytes) {
    if (address != NULL && bytes != NULL) {
        add(c, bytes, sizeof *bytes);
        add(c, address, *bytes);
    }
}

// In a signal handler that interrupted Firn, not: it takes a lock.
void call_keep(const void *p, size_t bytes) {
    bool is_heap = (uintptr_t)p - FIRN_ROOT.data.base < FIRN_ROOT.data.bytes;
    size_t most = is_heap ? front_object_size(p) : 0;
    if (most != 0 && most != SIZE_MAX && !lock_is_any_held()) {
        (void)!cold_exclude((uintptr_t)p, bytes < most ? bytes : most);
    }
}

void call_starts_thread(void) {
    if (!lock_is_any_held()) {
        cold_stop();
    }
}

void call_starts_notifier(const struct sigevent *event) {
    if (event != NULL && event->sigev_notify == SIGEV_THREAD) {
        call_starts_thread();
    }
}

void call_add_object(struct call *c, const void *p) {
    if (FIRN_UNLIKELY((uintptr_t)p - FIRN_ROOT.data.base < FIRN_ROOT.data.bytes)) {
        size_t bytes = front_object_size(p);
        add(c, p, bytes != SIZE_MAX ? bytes : 0);
    }
}

// The kernel reads no further than PATH_MAX; an argument of exec may be longer.
void call_add_string(struct call *c, const char *s) {
    add(c, s, strlen(s) + 1);
}

void call_add_strings(struct call *c, char *const *strings) {
    if (strings == NULL) {
        return;
    }
    size_t n = 0;
    for (; strings[n] != NULL; n++) {
        add_path(c, strings[n]);
    }
    add(c, strings, (n + 1) * sizeof *strings);
}

long call_fails(void) {
    errno = ENOSYS;
    return -1;
}

long call_fails_by_result(void) {
    return ENOSYS;
}
