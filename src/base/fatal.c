// The end of a process that misused its heap. Everything here must work while the heap is broken,
// locks are held and the stack may be an alternate one of a few KiB.
//
// The kernel is reached through syscall(2): libc's write(2) is a cancellation point, and may be
// interposed by the program or by Firn itself.
#include "src/base/fatal.h"

#include "src/base/text.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TEXT_BYTES = 1536, PATH_BYTES = 256 };

struct fatal_row {
    const char *slug;
    const char *expected;
    const char *advice;
};

static const struct fatal_row rows[FATAL_COUNT] = {
#define FATAL(id, slug, expected, advice) [FATAL_##id] = {slug, expected, advice},
#include "src/base/fatal.def"
#undef FATAL
};

// Both are set at start and read on the way out, perhaps by another thread: release and acquire,
// so that what the function relies on is visible to its caller.
static _Atomic(fatal_locate_fn *) locator;
static _Atomic(fatal_detail_fn *) detailer;

// Process id in the upper half, thread id in the lower one, of the thread that is dying; 0: none.
// The process id makes a child that was forked in that moment free to die on its own.
static _Atomic uint64_t dying;

void fatal_set_locator(fatal_locate_fn *locate) {
    atomic_store_explicit(&locator, locate, memory_order_release);
}

void fatal_set_detail(fatal_detail_fn *detail) {
    atomic_store_explicit(&detailer, detail, memory_order_release);
}

const char *fatal_slug(enum fatal_id id) {
    return rows[id].slug;
}

// P-FATAL: no handler, mask or option of the program survives this.
static FIRN_NORETURN void die(void) {
    struct sigaction action;
    sigset_t set;
    memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_DFL;
    sigaction(SIGABRT, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGABRT);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    syscall(SYS_tgkill, syscall(SYS_getpid), syscall(SYS_gettid), SIGABRT);
    // Reached only where the signal cannot end us: process 1 of a container, or another thread that
    // installed a handler in between. Neither may go on with a broken heap.
    __builtin_trap();
}

// True for the thread that reports. A second thread waits here for the first to end the process;
// the first one, coming back because reporting itself failed, dies at once.
static bool claim_report(void) {
    uint64_t self = (uint64_t)syscall(SYS_getpid) << 32 | (uint32_t)syscall(SYS_gettid);
    uint64_t seen = 0;
    while (!atomic_compare_exchange_strong_explicit(&dying, &seen, self, memory_order_acq_rel,
                                                    memory_order_acquire)) {
        if (seen == self) {
            return false;
        }
        if (seen >> 32 == self >> 32) {
            pause();
        }
    }
    return true;
}

// A path is the program's to choose: it must not be able to forge further lines.
static void text_printable(struct text *t, const char *s) {
    for (; *s != '\0'; s++) {
        bool is_control = (unsigned char)*s < 0x20 || *s == 0x7f;
        text_char(t, is_control ? '?' : *s);
    }
}

static void text_caller(struct text *t, uintptr_t caller) {
    fatal_locate_fn *locate = atomic_load_explicit(&locator, memory_order_acquire);
    char path[PATH_BYTES] = "?";
    uintptr_t offset = caller;
    if (locate != NULL && caller != 0) {
        offset = locate(caller, path, sizeof(path));
    }
    text_printable(t, path);
    text_char(t, '+');
    text_hex(t, offset);
}

static void text_size(struct text *t, size_t size, size_t none, const char *word) {
    if (size == none) {
        text_str(t, word);
    } else {
        text_dec(t, size);
    }
}

static void text_first_line(struct text *t, enum fatal_id id, const struct fatal_info *info) {
    text_str(t, "firn: ");
    text_str(t, rows[id].slug);
    text_str(t, ": ");
    text_str(t, info->api);
    text_char(t, '(');
    text_hex(t, info->address);
    text_str(t, "): class=");
    if (info->class_bytes == FATAL_CLASS_LARGE) {
        text_str(t, "large");
    } else {
        text_size(t, info->class_bytes, FATAL_CLASS_NONE, "none");
    }
    text_str(t, " size=");
    text_size(t, info->size, FATAL_SIZE_UNKNOWN, "?");
    text_str(t, " found: ");
    text_str(t, info->found);
    text_str(t, "; expected: ");
    text_str(t, rows[id].expected);
    text_str(t, "; caller=");
    text_caller(t, info->caller);
    text_char(t, '\n');
}

static void text_more(struct text *t, enum fatal_id id, const struct fatal_info *info) {
    fatal_detail_fn *detail = atomic_load_explicit(&detailer, memory_order_acquire);
    text_str(t, "firn:   hint: ");
    text_str(t, rows[id].advice);
    text_char(t, '\n');
    if (detail != NULL) {
        size_t room = t->capacity - t->length;
        size_t written = detail(id, info, t->data + t->length, room);
        t->length += written < room ? written : room - 1;
    }
}

void fatal(enum fatal_id id, const struct fatal_info *info) {
    if (claim_report()) {
        char buffer[TEXT_BYTES];
        struct text t = text_on(buffer, sizeof(buffer));
        text_first_line(&t, id, info);
        text_more(&t, id, info);
        if (t.length == sizeof(buffer) - 1) {
            buffer[t.length - 1] = '\n'; // cut short: still a line
        }
        while (syscall(SYS_write, STDERR_FILENO, buffer, t.length) < 0 && errno == EINTR) {
        }
    }
    die();
}

void fatal_internal(const char *what, const char *file, int line) {
    char found[192];
    struct text t = text_on(found, sizeof(found));
    struct fatal_info info = {.api = "firn",
                              .class_bytes = FATAL_CLASS_NONE,
                              .size = FATAL_SIZE_UNKNOWN,
                              .found = found,
                              .caller = FIRN_CALLER()};
    text_str(&t, file);
    text_char(&t, ':');
    text_dec(&t, (uint64_t)line);
    text_str(&t, " not ");
    text_str(&t, what);
    fatal(FATAL_INTERNAL, &info);
}
