#include "src/os/pin.h"

#include "src/os/fault.h"
#include "src/os/sys.h"

// What pin_enter returns instead of an entry: everything is pinned.
enum { WHOLE = PIN_DEPTH };

static struct pin_slot slots[PIN_SLOTS];
static _Atomic uint32_t used_slots; // none beyond was ever taken
static _Atomic uint32_t whole;      // calls that found no entry

static FIRN_TLS struct pin_slot *mine;
static atomic_bool is_announced;
static _Atomic(pin_touch_fn *) touch_pages;
static _Atomic int process; // 0: nothing needs to be touched here

void pin_announce(void) {
    atomic_store_explicit(&is_announced, true, memory_order_release);
}

bool pin_is_announced(void) {
    return atomic_load_explicit(&is_announced, memory_order_acquire);
}

void pin_set_touch(pin_touch_fn *touch) {
    atomic_store_explicit(&process, sys_process_id(), memory_order_relaxed);
    atomic_store_explicit(&touch_pages, touch, memory_order_release);
}

bool pin_needs_touch(void) {
    return atomic_load_explicit(&touch_pages, memory_order_acquire) != NULL;
}

void pin_touch(uintptr_t address, size_t bytes) {
    pin_touch_fn *touch = atomic_load_explicit(&touch_pages, memory_order_acquire);
    if (touch != NULL) {
        touch(address, bytes);
    }
}

// A thread that ended, perhaps by cancellation in the middle of a call, leaves its slot as it was.
static bool is_gone(int thread) {
    return !sys_has_thread(thread);
}

static void clear(struct pin_slot *s) {
    for (unsigned i = 0; i < PIN_DEPTH; i++) {
        atomic_store(&s->entries[i].bytes, 0);
    }
}

static bool take(struct pin_slot *s, int from, int me) {
    if (!atomic_compare_exchange_strong(&s->owner, &from, me)) {
        return false;
    }
    clear(s);
    mine = s;
    return true;
}

// Free ones first, in order, so that a program with few threads touches one page of the table.
static struct pin_slot *find_slot(void) {
    int known = atomic_load_explicit(&process, memory_order_relaxed);
    if (sys_is_mute()) {
        return NULL; // it may not ask who it is
    }
    if (known != 0 && sys_process_id() != known) {
        return NULL; // between vfork and exec: it would be its parent's, in the name of who is soon gone
    }
    int me = sys_thread_id();
    uint32_t used = atomic_load(&used_slots);
    while (used < PIN_SLOTS) {
        if (atomic_compare_exchange_weak(&used_slots, &used, used + 1) &&
            take(&slots[used], 0, me)) {
            return mine;
        }
    }
    for (unsigned i = 0; i < PIN_SLOTS; i++) {
        int owner = atomic_load(&slots[i].owner);
        if (owner != 0 && is_gone(owner) && take(&slots[i], owner, me)) {
            return mine;
        }
    }
    return NULL;
}

void pin_prepare(void) {
    if (mine == NULL) {
        (void)find_slot();
    }
}

// A signal handler that comes in between takes the same entry, and has given it back when it returns.
static unsigned find_entry(const struct pin_slot *s) {
    unsigned i = 0;
    while (i < PIN_DEPTH && atomic_load_explicit(&s->entries[i].bytes, memory_order_relaxed) != 0) {
        i++;
    }
    return i; // WHOLE when there is none
}

unsigned pin_enter(uintptr_t address, size_t bytes) {
    struct pin_slot *s = mine != NULL ? mine : find_slot();
    unsigned entry = s != NULL ? find_entry(s) : (unsigned)WHOLE;
    if (entry == WHOLE) {
        atomic_fetch_add(&whole, 1);
    } else {
        atomic_store_explicit(&s->entries[entry].address, address, memory_order_relaxed);
        atomic_store(&s->entries[entry].bytes, bytes);
    }
    fault_wait(address, bytes);
    return entry;
}

void pin_leave(unsigned pin) {
    if (pin == WHOLE) {
        atomic_fetch_sub(&whole, 1);
        return;
    }
    atomic_store_explicit(&mine->entries[pin].bytes, 0, memory_order_release);
}

static bool overlaps(const struct pin_slot *s, uintptr_t address, size_t bytes) {
    for (unsigned i = 0; i < PIN_DEPTH; i++) {
        size_t n = atomic_load(&s->entries[i].bytes);
        uintptr_t start = atomic_load_explicit(&s->entries[i].address, memory_order_relaxed);
        if (n != 0 && start < address + bytes && address < start + n) {
            return true;
        }
    }
    return false;
}

bool pin_is_any(uintptr_t address, size_t bytes) {
    uint32_t used = atomic_load(&used_slots);
    if (atomic_load(&whole) > 0) {
        return true;
    }
    for (uint32_t i = 0; i < used; i++) {
        if (!overlaps(&slots[i], address, bytes)) {
            continue;
        }
        int owner = atomic_load(&slots[i].owner);
        if (owner != 0 && !is_gone(owner)) {
            return true;
        }
    }
    return false;
}

void pin_after_fork_in_child(void) {
    if (atomic_load_explicit(&process, memory_order_relaxed) != 0) {
        atomic_store_explicit(&process, sys_process_id(), memory_order_relaxed);
    }
    for (uint32_t i = 0; i < atomic_load_explicit(&used_slots, memory_order_relaxed); i++) {
        if (&slots[i] != mine) {
            clear(&slots[i]);
        }
    }
    if (mine != NULL) {
        atomic_store_explicit(&mine->owner, sys_thread_id(), memory_order_relaxed);
    }
    atomic_store_explicit(&whole, 0, memory_order_relaxed);
}
