#include "src/cold/thaw.h"

#include "src/base/fatal.h"
#include "src/cold/hint.h"
#include "src/cold/mark.h"
#include "src/cold/mask.h"
#include "src/cold/stage.h"
#include "src/meta/page_state.h"
#include "src/meta/root.h"
#include "src/os/clock.h"
#include "src/os/strain.h"
#include "src/os/sys.h"
#include "src/os/veil.h"

enum {
    CHILDREN_MOST = 1024,
    FILL_PAGES = 16,      // of a child, between two looks at who waits
    ROW_NS = 20000000,    // touches of a chunk that follow each other closer are in a row
    ZERO_BYTES = 64 << 10 // given at once to who touches fresh memory
};

// A child, and how far its holes have been filled.
struct child {
    int descriptor;
    struct chunk *chunk; // NULL: all of them
    unsigned page;
};

static struct child children[CHILDREN_MOST];
static _Atomic unsigned child_count;

static _Alignas(FIRN_PAGE) char buffer[FIRN_PAGE]; // with cold_lock
// Counted with cold_lock, read by anybody.
static struct {
    _Atomic uint64_t thaws, returns, fetched, waited, touched, zeros, forks, longest_ns,
        times[THAW_BUCKETS];
} figures;
static _Atomic int thread;

static void count(_Atomic uint64_t *figure) {
    atomic_fetch_add_explicit(figure, 1, memory_order_relaxed);
}

unsigned thaw_children(void) {
    return atomic_load_explicit(&child_count, memory_order_acquire);
}

uint64_t thaw_waited(void) {
    return atomic_load_explicit(&figures.waited, memory_order_relaxed);
}

uint64_t thaw_returned(void) {
    return atomic_load_explicit(&figures.returns, memory_order_relaxed);
}

void thaw_reset(void) {
    atomic_store_explicit(&child_count, 0, memory_order_release);
}

// ---- pages --------------------------------------------------------------------------------------

// P-COLD-SEAL
static FIRN_NORETURN FIRN_COLD void die(uintptr_t page) {
    struct fatal_info info = {.api = "thaw",
                              .address = page,
                              .class_bytes = FATAL_CLASS_NONE,
                              .size = FATAL_SIZE_UNKNOWN,
                              .found = "a page whose record contradicts its state"};
    fatal(FATAL_COLD_STORE, &info);
}

// What the page holds: in the staging area (which under `protect` is not where it is), or in `buffer`.
static const void *content_of(const struct cold_page *p, uintptr_t address) {
    if (p->holds == HOLDS_SLOT) {
        if (!stage_is_for(p->at.slot, address)) {
            die(address);
        }
        return (const void *)stage_address(p->at.slot);
    }
    cold_store_get(address, p->generation, p->at.blob, buffer);
    mask_page(address, buffer);
    return buffer;
}

// False when one of the children is about to fork: then nothing may change yet.
static bool give_to_children(uintptr_t address, const void *content) {
    unsigned n = thaw_children();
    for (unsigned i = 0; i < n; i++) {
        if (missing_fill(children[i].descriptor, address, content) == MISSING_AGAIN) {
            return false;
        }
    }
    return true;
}

static enum missing_result put_back(struct chunk *c, const struct cold_page *p, uintptr_t address,
                                    const void *content) {
    if (p->holds == HOLDS_SLOT) {
        mark_remove(c, address);
        enum missing_result result = missing_move_back(stage_address(p->at.slot), address);
        if (result != MISSING_BUSY) {
            return result;
        }
        // Shared with a child: it gets a page of its own.
    }
    return missing_fill(MISSING_SELF, address, content);
}

// The page is back, and its state still says that it is on its way.
static void settle(struct chunk *c, uintptr_t address) {
    struct cold_page *p = table_page(c, address);
    if (p->holds == HOLDS_BLOB) {
        cold_store_drop(p->at.blob);
        count(&figures.thaws);
    } else {
        count(&figures.returns);
        count(&c->returns);
    }
    p->holds = HOLDS_NOTHING;
    p->idle = 0;
    table_count_away(c, -1);
    FIRN_ENSURE(page_state_move(address, PAGE_THAWING, PAGE_RESIDENT));
    missing_settle(address);
}

static enum missing_result thaw_one(struct chunk *c, uintptr_t address) {
    struct cold_page *p = table_page(c, address);
    enum page_state away = p->holds == HOLDS_SLOT ? PAGE_STAGED : PAGE_FROZEN;
    if (!page_state_move(address, away, PAGE_THAWING)) {
        return MISSING_GONE;
    }
    const void *content = content_of(p, address);
    enum missing_result result =
        give_to_children(address, content) ? put_back(c, p, address, content) : MISSING_AGAIN;
    if (result != MISSING_DONE && result != MISSING_THERE) {
        FIRN_ENSURE(page_state_move(address, PAGE_THAWING, away));
        return result;
    }
    settle(c, address);
    return MISSING_DONE;
}

// With cold_lock: a page that is away is not let go, only released.
static bool is_away(struct chunk *c, uintptr_t address) {
    enum page_state state = c != NULL ? page_state_get(address) : PAGE_FRESH;
    if (state != PAGE_STAGED && state != PAGE_FROZEN) {
        return false;
    }
    if (table_page(c, address)->holds != (state == PAGE_STAGED ? HOLDS_SLOT : HOLDS_BLOB)) {
        die(address); // rather than give zeros
    }
    return true;
}

static enum missing_result thaw_if_away(uintptr_t address) {
    struct chunk *c = table_find(address);
    return is_away(c, address) ? thaw_one(c, address) : MISSING_GONE;
}

// A page within a row of others cannot be shown for want of mappings (`protect`). One at an end of the row takes none:
// so it comes back with all that lie before it, or behind it.
static enum missing_result thaw_row(uintptr_t address) {
    enum missing_result result = MISSING_DONE;
    uintptr_t at = address;
    while (is_away(table_find(at - FIRN_PAGE), at - FIRN_PAGE)) {
        at -= FIRN_PAGE;
    }
    for (; at <= address && result != MISSING_AGAIN; at += FIRN_PAGE) {
        result = thaw_if_away(at);
    }
    if (result != MISSING_AGAIN) {
        return result;
    }
    at = address;
    while (is_away(table_find(at + FIRN_PAGE), at + FIRN_PAGE)) {
        at += FIRN_PAGE;
    }
    for (result = MISSING_DONE; at >= address && result != MISSING_AGAIN; at -= FIRN_PAGE) {
        result = thaw_if_away(at);
    }
    return result;
}

enum missing_result thaw_page(struct chunk *c, uintptr_t address) {
    enum missing_result result = thaw_one(c, address);
    return result == MISSING_AGAIN && missing_engine() == FAULT_PROTECT ? thaw_row(address)
                                                                        : result;
}

static void note_time(uint64_t began_ns) {
    count(&figures.waited);
    uint64_t ns = clock_ns() - began_ns;
    unsigned bucket = 63 - (unsigned)__builtin_clzll(ns | 1);
    count(&figures.times[bucket < THAW_BUCKETS ? bucket : THAW_BUCKETS - 1]);
    if (ns > atomic_load_explicit(&figures.longest_ns, memory_order_relaxed)) {
        atomic_store_explicit(&figures.longest_ns, ns, memory_order_relaxed);
    }
}

// How many pages to bring back at once, after so many of the same chunk were asked for in a row. A heap's
// order is random within a chunk: who reads on touches all of it, but not in the order of addresses.
static unsigned fetch_pages(uint32_t asked) {
    return asked >= 32 ? 64 : asked >= 8 ? 16 : asked >= 3 ? 4 : 0;
}

// Under `protect`: the frozen pages from the one on, up to `end`, with one call for all to show them. Where the first
// one is that is not; `end` when it cannot be done.
static uintptr_t fetch_row(struct chunk *c, uintptr_t address, uintptr_t end) {
    uintptr_t at = address;
    while (at < end && table_page(c, at)->holds == HOLDS_BLOB &&
           page_state_move(at, PAGE_FROZEN, PAGE_THAWING)) {
        if (!veil_write(at, content_of(table_page(c, at), at))) {
            FIRN_ENSURE(page_state_move(at, PAGE_THAWING, PAGE_FROZEN));
            break;
        }
        at += FIRN_PAGE;
    }
    bool is_shown = at == address || veil_show(address, at - address);
    for (uintptr_t page = address; page < at; page += FIRN_PAGE) {
        if (is_shown) {
            settle(c, page);
            count(&figures.fetched);
        } else {
            FIRN_ENSURE(page_state_move(page, PAGE_THAWING, PAGE_FROZEN));
            missing_settle(page); // who asked asks again
        }
    }
    return is_shown ? at : end;
}

static void fetch(struct chunk *c, uintptr_t address, unsigned pages) {
    uintptr_t bytes = (uintptr_t)pages << FIRN_PAGE_SHIFT;
    uintptr_t from = bytes != 0 ? address & ~(bytes - 1) : address;
    bool is_veiling = missing_engine() == FAULT_PROTECT;
    for (uintptr_t at = from; at < from + bytes; at += FIRN_PAGE) {
        if (is_veiling) {
            at = fetch_row(c, at, from + bytes);
            continue;
        }
        if (table_page(c, at)->holds == HOLDS_BLOB && page_state_get(at) == PAGE_FROZEN) {
            if (thaw_page(c, at) != MISSING_DONE) {
                return;
            }
            count(&figures.fetched);
        }
    }
}

// The page was frozen, and is back: those around it, if it looks as if they would be asked for, too.
static void fetch_around(struct chunk *c, uintptr_t address, uint64_t now_ns) {
    c->asked = now_ns - c->asked_ns < ROW_NS ? c->asked + 1 : 1;
    c->asked_ns = now_ns;
    fetch(c, address, fetch_pages(c->asked));
}

// The same for a thread that brings its pages back itself, and waits meanwhile: only where it reads on. Touches at random
// do not come that close to each other.
static void fetch_beside(struct chunk *c, uintptr_t address) {
    enum { RECENT = 32, MANY = 8, PAGES = 16 };
    static struct chunk *touched[RECENT];
    static unsigned next;
    if (touched[next] != NULL) {
        touched[next]->recent--;
    }
    c->recent++;
    touched[next] = c;
    next = (next + 1) % RECENT;
    if (c->recent >= MANY) {
        fetch(c, address, PAGES);
    }
}

// Each page that comes back by itself parts a row. When few mappings are left rows get shorter instead.
static void fetch_for_mappings(struct chunk *c, uintptr_t address) {
    enum { SHORT_ROW = 16, PAGES = 64 };
    if (!missing_has_room(SHORT_ROW)) {
        fetch(c, address, PAGES);
    }
}

// Nothing is away here, and something is missing: it was given back, or never used. (Under `protect` it is only
// not away any more.)
static void give_zeros(int who, struct chunk *c, uintptr_t address) {
    if (missing_engine() == FAULT_PROTECT) {
        missing_wake(who, address);
        return;
    }
    // Where a system call would not wait, all of what was given back is touched at once: see cold.c, refill.
    uintptr_t step = missing_serves_calls() ? ZERO_BYTES : CHUNK_BYTES;
    uintptr_t end = (address & ~(step - 1)) + step;
    uintptr_t at = address + FIRN_PAGE;
    while (at < end && page_state_get(at) != PAGE_STAGED && page_state_get(at) != PAGE_FROZEN) {
        at += FIRN_PAGE;
    }
    enum missing_result result = missing_fill_zero(who, address, at - address);
    if (result == MISSING_NOWHERE) { // it reaches beyond what is registered
        result = missing_fill_zero(who, address, FIRN_PAGE);
    }
    if (result != MISSING_DONE) {
        missing_wake(who, address);
    }
    if (c != NULL && who == MISSING_SELF) {
        // How far the kernel got is not known where so much is asked for.
        uint32_t pages = missing_serves_calls() ? (uint32_t)((at - address) >> FIRN_PAGE_SHIFT) : 1;
        atomic_fetch_add_explicit(&c->filled, pages, memory_order_relaxed);
    }
    count(&figures.zeros);
}

static void serve(uintptr_t address) {
    struct chunk *c = table_find(address);
    uint64_t began_ns = clock_ns();
    if (!is_away(c, address)) {
        give_zeros(MISSING_SELF, c, address);
        return;
    }
    struct cold_page *p = table_page(c, address);
    bool is_frozen = p->holds == HOLDS_BLOB;
    enum missing_result result = thaw_page(c, address);
    if (result != MISSING_DONE) {
        // Whoever waits comes again, until the report of the fork has been read. The same for want of
        // memory, which the kernel will see to, and for a page released meanwhile.
        missing_wake(MISSING_SELF, address);
        return;
    }
    table_leave_alone(p, 1);
    if (is_frozen) {
        note_time(began_ns);
        fetch_around(c, address, began_ns);
    }
    fetch_for_mappings(c, address);
}

uint64_t thaw_epoch(void) {
    return atomic_load_explicit(&figures.thaws, memory_order_relaxed) +
           atomic_load_explicit(&figures.returns, memory_order_relaxed);
}

bool thaw_touched(struct chunk *c, uintptr_t page) {
    uint64_t began_ns = clock_ns();
    if (!is_away(c, page)) {
        return false;
    }
    struct cold_page *p = table_page(c, page);
    bool is_frozen = p->holds == HOLDS_BLOB;
    if (thaw_page(c, page) != MISSING_DONE) {
        mark_let_wait(c, page, 1);
        return true;
    }
    count(&figures.touched);
    table_leave_alone(p, 1);
    if (is_frozen) {
        note_time(began_ns);
        fetch_beside(c, page);
    }
    return true;
}

// ---- children -----------------------------------------------------------------------------------

static void add_child(int descriptor) {
    children[thaw_children()] = (struct child){descriptor, table_first(), 0};
    atomic_fetch_add_explicit(&child_count, 1, memory_order_release);
    count(&figures.forks);
}

static void remove_child(unsigned index) {
    unsigned last = thaw_children() - 1;
    missing_close_child(children[index].descriptor);
    children[index] = children[last];
    atomic_fetch_sub_explicit(&child_count, 1, memory_order_release);
}

static enum missing_result fill_one(const struct child *child, struct chunk *c, uintptr_t address) {
    if (!is_away(c, address)) {
        return MISSING_DONE;
    }
    return missing_fill(child->descriptor, address, content_of(table_page(c, address), address));
}

// Some more pages. False when the child needs no more.
static bool fill_some(struct child *child) {
    for (unsigned done = 0; child->chunk != NULL && done < FILL_PAGES;) {
        struct chunk *c = child->chunk;
        if (child->page == CHUNK_PAGES || table_away(c) == 0) {
            child->chunk = c->next;
            child->page = 0;
            continue;
        }
        uintptr_t address = c->base + ((uintptr_t)child->page << FIRN_PAGE_SHIFT);
        if (table_page(c, address)->holds != HOLDS_NOTHING) {
            enum missing_result result = fill_one(child, c, address);
            if (result == MISSING_AGAIN) {
                return true; // it forks
            }
            if (result == MISSING_GONE) {
                return false;
            }
            done++;
        }
        child->page++;
    }
    return child->chunk != NULL;
}

static void serve_child(const struct child *child, uintptr_t address) {
    struct chunk *c = table_find(address);
    if (is_away(c, address)) {
        if (fill_one(child, c, address) != MISSING_DONE) {
            missing_wake(child->descriptor, address);
        }
    } else {
        give_zeros(child->descriptor, c, address);
    }
}

// Everything the child has to say for now.
static void listen_to_child(unsigned index) {
    while (thaw_children() < CHILDREN_MOST) {
        struct missing_event e = missing_read(children[index].descriptor);
        if (e.kind == MISSING_FAULT) {
            serve_child(&children[index], e.address);
        } else if (e.kind == MISSING_FORK) {
            add_child(e.child);
        } else if (e.kind == MISSING_NOTHING) {
            return;
        }
    }
}

// ---- the thread ---------------------------------------------------------------------------------

static void listen(void) {
    for (unsigned i = 0; i < 64 && thaw_children() < CHILDREN_MOST; i++) {
        struct missing_event e = missing_read(MISSING_SELF);
        if (e.kind == MISSING_FAULT) {
            serve(e.address);
        } else if (e.kind == MISSING_FORK) {
            add_child(e.child);
        } else if (e.kind == MISSING_NOTHING) {
            return;
        }
    }
}

static void wait(void) {
    struct strain_poll strain = strain_poll();
    short events = missing_wait(strain.descriptor, strain.events);
    if (events != 0 && strain_is_short(events)) {
        hint_press();
    }
}

void thaw_run(void) {
    missing_enter();
    atomic_store_explicit(&thread, sys_thread_id(), memory_order_relaxed);
    for (;;) {
        if (thaw_children() == 0) {
            wait();
        }
        lock_acquire(&cold_lock);
        listen();
        for (unsigned i = thaw_children(); i-- > 0;) {
            listen_to_child(i);
            if (!fill_some(&children[i])) {
                remove_child(i);
            }
        }
        lock_release(&cold_lock);
    }
}

void thaw_figures(struct thaw_figures *out) {
    out->thaws = atomic_load_explicit(&figures.thaws, memory_order_relaxed);
    out->returns = atomic_load_explicit(&figures.returns, memory_order_relaxed);
    out->fetched = atomic_load_explicit(&figures.fetched, memory_order_relaxed);
    out->waited = thaw_waited();
    out->touched = atomic_load_explicit(&figures.touched, memory_order_relaxed);
    out->thread = atomic_load_explicit(&thread, memory_order_relaxed);
    out->zeros = atomic_load_explicit(&figures.zeros, memory_order_relaxed);
    out->forks = atomic_load_explicit(&figures.forks, memory_order_relaxed);
    out->longest_ns = atomic_load_explicit(&figures.longest_ns, memory_order_relaxed);
    for (unsigned i = 0; i < THAW_BUCKETS; i++) {
        out->times[i] = atomic_load_explicit(&figures.times[i], memory_order_relaxed);
    }
}
