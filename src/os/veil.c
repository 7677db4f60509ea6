#include "src/os/veil.h"

#include "src/os/aside.h"
#include "src/os/caps.h"
#include "src/os/clock.h"
#include "src/os/futex.h"
#include "src/os/map.h"
#include "src/os/signals.h"
#include "src/os/sys.h"
#include "src/os/thread.h"
#include "src/os/threads.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    ASKED_MOST = 64, // pages that are asked for at the same time
    GATES = 64,
    POLL_NS = 1000000000
};

static int mem = -1;

// ---- content ------------------------------------------------------------------------------------

bool veil_read(uintptr_t page, void *out) {
    return syscall(SYS_pread64, mem, out, FIRN_PAGE, page) == FIRN_PAGE;
}

bool veil_write(uintptr_t page, const void *content) {
    return syscall(SYS_pwrite64, mem, content, FIRN_PAGE, page) == FIRN_PAGE;
}

static _Atomic uint32_t shown; // times that something was

bool veil_hide(uintptr_t address, size_t bytes) {
    return map_deny_all(address, bytes);
}

bool veil_show(uintptr_t address, size_t bytes) {
    bool is_done = map_allow_writes(address, bytes);
    atomic_fetch_add(&shown, 1);
    return is_done;
}

// Kernels can be told to let nobody past the protection (proc_mem.force_override), and sandboxes forbid more.
static bool try_on(uintptr_t page) {
    static char content[FIRN_PAGE];
    memset((void *)page, 1, FIRN_PAGE);
    memset(content, 2, sizeof content);
    bool is_passing = veil_hide(page, FIRN_PAGE) && veil_write(page, content);
    memset(content, 0, sizeof content);
    is_passing = is_passing && veil_read(page, content) && content[FIRN_PAGE - 1] == 2;
    // Where nothing is any more, too.
    map_purge(page, FIRN_PAGE);
    is_passing = is_passing && veil_write(page, content) && veil_show(page, FIRN_PAGE);
    return is_passing && *(char *)page == 2;
}

const char *veil_open(void) {
    mem = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/mem", O_RDWR | O_CLOEXEC);
    if (mem < 0) {
        return "no /proc/self/mem";
    }
    void *page = mmap(NULL, FIRN_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool is_passing = page != MAP_FAILED && try_on((uintptr_t)page);
    if (page != MAP_FAILED) {
        munmap(page, FIRN_PAGE);
    }
    if (!is_passing) {
        veil_close();
        return "/proc/self/mem does not reach pages that are closed";
    }
    return NULL;
}

void veil_close(void) {
    if (mem >= 0) {
        syscall(SYS_close, mem);
    }
    mem = -1;
}

// ---- who waits ----------------------------------------------------------------------------------

// Sequentially consistent, all of it: either who asks sees that the page is back, or that somebody woke him, or the
// thread sees the page in the table.
static _Atomic uintptr_t asked[ASKED_MOST];
static _Atomic uint32_t calls;
static struct { _Atomic uint32_t turn, waiting; } gates[GATES];

static int thread;          // Firn's
static _Atomic int sleeper; // the same; 0: it is at work

// It sleeps: where it wakes up matters more than all that it does then. The kernel takes an idle processor.
static void bring_thread_here(void) {
    enum { PROCESSORS = 1024, WORD_BITS = 64 };
    uint64_t set[PROCESSORS / WORD_BITS] = {0};
    int id = atomic_exchange(&sleeper, 0);
    int here = id != 0 && caps_has(CAP_FOLLOW) ? sched_getcpu() : -1;
    if (here >= 0 && here < PROCESSORS) {
        set[here / WORD_BITS] = (uint64_t)1 << here % WORD_BITS;
        syscall(SYS_sched_setaffinity, id, sizeof set, set);
    }
}

static unsigned gate_of(uintptr_t page) {
    return (unsigned)(page >> FIRN_PAGE_SHIFT) % GATES;
}

static bool post(uintptr_t page) {
    for (unsigned i = 0; i < ASKED_MOST; i++) {
        uintptr_t none = 0;
        if (atomic_load_explicit(&asked[i], memory_order_relaxed) == 0 &&
            atomic_compare_exchange_strong(&asked[i], &none, page)) {
            return true;
        }
    }
    return false;
}

void veil_ask(uintptr_t page) {
    const int saved = errno;
    const unsigned g = gate_of(page);
    uint32_t seen = atomic_load(&gates[g].turn);
    if (post(page)) {
        bring_thread_here();
        atomic_fetch_add(&calls, 1);
        futex_wake(&calls, 1);
        atomic_fetch_add(&gates[g].waiting, 1);
        futex_wait(&gates[g].turn, seen);
        atomic_fetch_sub(&gates[g].waiting, 1);
    } else {
        sys_yield();
    }
    errno = saved;
}

uintptr_t veil_next(void) {
    uintptr_t page = 0;
    for (unsigned i = 0; i < ASKED_MOST && page == 0; i++) {
        if (atomic_load_explicit(&asked[i], memory_order_relaxed) != 0) {
            page = atomic_exchange(&asked[i], 0);
        }
    }
    return page;
}

static bool is_any_asked(void) {
    bool is_any = false;
    for (unsigned i = 0; i < ASKED_MOST; i++) {
        is_any |= atomic_load(&asked[i]) != 0;
    }
    return is_any;
}

void veil_enter(void) {
    thread = sys_thread_id();
}

// No descriptor can be written to by those who ask, whose table is not ours: so the other one is looked at.
short veil_wait(int other, short events) {
    uint32_t seen = atomic_load(&calls);
    struct pollfd polled = {.fd = other, .events = events};
    const struct timespec now = {0, 0};
    if (is_any_asked()) {
        return 0;
    }
    atomic_store(&sleeper, thread);
    if (other >= 0) {
        futex_wait_for(&calls, seen, POLL_NS);
    } else {
        futex_wait(&calls, seen);
    }
    atomic_store(&sleeper, 0);
    bool is_up = other >= 0 && syscall(SYS_ppoll, &polled, 1, &now, NULL, 0) > 0;
    return is_up ? polled.revents : (short)0;
}

void veil_wake(uintptr_t page) {
    const unsigned g = gate_of(page);
    atomic_fetch_add(&gates[g].turn, 1);
    if (atomic_load(&gates[g].waiting) > 0) {
        futex_wake(&gates[g].turn, INT_MAX);
    }
}

void veil_reset(void) {
    atomic_store(&sleeper, 0);
    for (unsigned i = 0; i < ASKED_MOST; i++) {
        atomic_store(&asked[i], 0);
    }
    for (unsigned i = 0; i < GATES; i++) {
        atomic_store(&gates[i].waiting, 0);
    }
}

// ---- the handler --------------------------------------------------------------------------------

static uintptr_t range_base;
static size_t range_bytes;
static _Atomic(veil_bring_fn *) bring_fn; // release pairs with the handler's acquire

static FIRN_TLS struct signals_touch last_touch;

// signals_claim_fn
static bool claim(uintptr_t address) {
    veil_bring_fn *bring = atomic_load_explicit(&bring_fn, memory_order_acquire);
    if (bring == NULL || address - range_base >= range_bytes) {
        return false;
    }
    if (bring(address & ~(uintptr_t)(FIRN_PAGE - 1))) {
        last_touch.address = 0;
        return true;
    }
    return signals_is_late(&last_touch, address, atomic_load(&shown));
}

void veil_arm(uintptr_t base, size_t bytes, veil_bring_fn *bring) {
    range_base = base;
    range_bytes = bytes;
    atomic_store_explicit(&bring_fn, bring, memory_order_release);
    signals_arm(claim);
}

// ---- stacks -------------------------------------------------------------------------------------

// Also where the program's handlers run that ask for such a stack and never made one.
#define STACK_BYTES ((size_t)256 << 10)
static FIRN_TLS uintptr_t own_stack;

static void use_stack(uintptr_t stack) {
    const stack_t set = {.ss_sp = (void *)stack, .ss_size = STACK_BYTES};
    const stack_t none = {.ss_flags = SS_DISABLE};
    (void)syscall(SYS_sigaltstack, stack != 0 ? &set : &none, NULL);
}

static bool is_own(const stack_t *s) {
    return own_stack != 0 && (uintptr_t)s->ss_sp == own_stack;
}

// The lowest page is a guard.
void veil_enter_thread(void) {
    const int saved = errno;
    stack_t now;
    if (atomic_load_explicit(&bring_fn, memory_order_acquire) != NULL && own_stack == 0 &&
        syscall(SYS_sigaltstack, NULL, &now) == 0 && (now.ss_flags & SS_DISABLE) != 0) {
        own_stack = aside_make(STACK_BYTES);
        if (own_stack != 0) {
            (void)!map_deny_all(own_stack, FIRN_PAGE);
            use_stack(own_stack);
        }
    }
    errno = saved;
}

void veil_leave_thread(void) {
    const int saved = errno;
    stack_t now;
    if (own_stack != 0 && syscall(SYS_sigaltstack, NULL, &now) == 0 &&
        (now.ss_flags & SS_ONSTACK) == 0) {
        if (is_own(&now)) {
            use_stack(0);
        }
        aside_drop(own_stack, STACK_BYTES);
        own_stack = 0;
    }
    errno = saved;
}

void veil_hide_stack(const stack_t *set, stack_t *old) {
    if (old != NULL && is_own(old)) {
        *old = (stack_t){.ss_flags = SS_DISABLE};
    }
    if (set != NULL && (set->ss_flags & SS_DISABLE) != 0 && own_stack != 0) {
        use_stack(own_stack);
    }
}

// Two words for each module, of which the second is the block, and two such before them, the first of which says for how
// many there is room. The ABI says where the pointer is.
static uintptr_t *thread_vector(void) {
    return ((uintptr_t **)__builtin_thread_pointer())[1];
}

void veil_thread_vector(uintptr_t *address, size_t *bytes) {
    uintptr_t *vector = thread_vector();
    *address = (uintptr_t)(vector - 2);
    *bytes = (vector[-2] + 2) * 2 * sizeof *vector;
}

bool veil_thread_block(size_t module, uintptr_t *address) {
    const uintptr_t *vector = thread_vector();
    bool is_one = module <= vector[-2];
    *address = is_one ? vector[2 * module + 1] : 0;
    return is_one;
}

// ---- whether pages may go -----------------------------------------------------------------------

static _Atomic size_t mappings, splits; // counted at the last look, and what has come since

// Who has one of these mapped may have handed pages to it for good.
static const char *user_in(const char *line) {
    static const char *const users[][2] = {
        {"[io_uring]", "io_uring is in use"},  {"/[aio]", "aio is in use"},
        {"socket:[", "a socket is mapped"},    {" /dev/infiniband/", "a device is mapped"},
        {" /dev/vfio/", "a device is mapped"}, {" /dev/nvidia", "a device is mapped"},
        {" /dev/dri/", "a device is mapped"},  {" /dev/kfd", "a device is mapped"},
    };
    for (unsigned i = 0; i < sizeof users / sizeof users[0]; i++) {
        if (strstr(line, users[i][0]) != NULL) {
            return users[i][1];
        }
    }
    return NULL;
}

// Counts them; *count is 0 when it is not known.
static const char *look_at_mappings(size_t *count) {
    static char text[8192 + 1];
    const char *user = NULL;
    size_t have = 0;
    long got;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC);
    *count = 0;
    while (fd >= 0 && (got = syscall(SYS_read, fd, text + have, sizeof text - 1 - have)) > 0) {
        text[have + (size_t)got] = '\0';
        char *line = text, *end;
        for (; (end = strchr(line, '\n')) != NULL; line = end + 1) {
            *end = '\0';
            ++*count;
            user = user != NULL ? user : user_in(line);
        }
        have = strlen(line);
        have = have < sizeof text - 1 ? have : 0; // of a line as long as that the rest says nothing
        memmove(text, line, have);
    }
    if (fd >= 0) {
        syscall(SYS_close, fd);
    }
    return user;
}

const char *veil_refusal(void) {
    size_t count;
    const char *user = look_at_mappings(&count);
    atomic_store_explicit(&mappings, count, memory_order_relaxed);
    atomic_store_explicit(&splits, 0, memory_order_relaxed);
    if (count == 0) {
        return "no /proc/self/maps";
    }
    if (user != NULL) {
        return user;
    }
    if (!signals_is_ready()) {
        return "SIGSEGV is not Firn's, or was blocked";
    }
    return signals_is_blocked() ? "a thread blocks SIGSEGV" : NULL;
}

bool veil_has_room(size_t pages) {
    enum { PER_ROW = 2, EIGHTHS = 8 };
    size_t most = caps_limits()->max_map_count / 2;
    size_t used = atomic_load_explicit(&mappings, memory_order_relaxed) +
                  atomic_load_explicit(&splits, memory_order_relaxed) * PER_ROW;
    // 1 page while less than a quarter is used, then 2, 4, ... 64.
    size_t eighth = most > 0 ? used * EIGHTHS / most : EIGHTHS;
    return eighth < EIGHTHS && pages >= (size_t)1 << (eighth > 1 ? eighth - 1 : 0);
}

void veil_note_split(void) {
    atomic_fetch_add_explicit(&splits, 1, memory_order_relaxed);
}
