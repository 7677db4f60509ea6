// The end of a process that misused its heap. Everything here must work while the heap is broken,
// locks are held and the stack may be an alternate one of a few KiB.
//
// The kernel is reached through syscall(2): libc's write(2) is a cancellation point, and may be
// interposed by the program or by Firn itself.
#include "src/base/fatal.h"

#include "include/firn/firn.h"
#include "src/base/report_text.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// A report without stacks has about 1 KiB: a pipe then takes it in one piece (PIPE_BUF). The last
// lines have room of their own, so that a long stack does not push out what to do.
enum { TEXT_BYTES = 8192, REST_BYTES = 1024, HANDLER_SECONDS = 10 };

FIRN_TLS struct fatal_call firn_call;

// Set at start, or by the program, and read on the way out, perhaps by another thread: release and
// acquire, so that what the function relies on is visible to its caller.
static _Atomic(fatal_locate_fn *) locator;
static _Atomic(fatal_detail_fn *) detailer;
static _Atomic(fatal_recall_fn *) recalls[FATAL_RECALLS];
static _Atomic(fatal_write_fn *) writer;
static void (*_Atomic handler)(const struct firn_report *);
static _Atomic(fatal_locate_fn *) quiet_locator; // not NULL: a filter is in place

// Process id in the upper half, thread id in the lower one, of the thread that is dying; 0: none.
// The process id makes a child that was forked in that moment free to die on its own. Under a filter
// of system calls, which may forbid to ask for them, the address of a variable of the thread's.
static _Atomic uint64_t dying;

// P-REPORT: the reporting thread's alone.
enum fatal_stage { STAGE_COMPOSING, STAGE_WRITING, STAGE_HANDLING };
static _Atomic int stage;
static char buffer[TEXT_BYTES];
static struct text report;
static struct report_source source;
static size_t ahead; // bytes of the first line, if it was written before everything else; else 0

void fatal_set_locator(fatal_locate_fn *locate) {
    atomic_store_explicit(&locator, locate, memory_order_release);
}

void fatal_set_detail(fatal_detail_fn *detail) {
    atomic_store_explicit(&detailer, detail, memory_order_release);
}

bool fatal_add_recall(fatal_recall_fn *recall) {
    for (unsigned i = 0; i < FATAL_RECALLS; i++) {
        fatal_recall_fn *none = NULL;
        if (atomic_compare_exchange_strong_explicit(&recalls[i], &none, recall,
                                                    memory_order_release, memory_order_relaxed) ||
            none == recall) {
            return true;
        }
    }
    return false;
}

void fatal_set_writer(fatal_write_fn *write_report) {
    atomic_store_explicit(&writer, write_report, memory_order_release);
}

void fatal_set_handler(void (*function)(const struct firn_report *)) {
    atomic_store_explicit(&handler, function, memory_order_release);
}

const char *fatal_slug(enum fatal_id id) {
    return report_text_slug(id);
}

void fatal_note_filter(fatal_locate_fn *locate) {
    atomic_store_explicit(&quiet_locator, locate, memory_order_release);
}

static fatal_locate_fn *filtered(void) {
    return atomic_load_explicit(&quiet_locator, memory_order_acquire);
}

static uint64_t self_id(void) {
    if (filtered() != NULL) {
        return (uintptr_t)&firn_call;
    }
    return (uint64_t)syscall(SYS_getpid) << 32 | (uint32_t)syscall(SYS_gettid);
}

// P-FATAL: from here on SIGABRT ends the process, whatever the program wanted it to do.
static void arm_abort(void) {
    struct sigaction action;
    sigset_t set;
    memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_DFL;
    sigaction(SIGABRT, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGABRT);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static FIRN_NORETURN void die(void) {
    arm_abort();
    syscall(SYS_tgkill, syscall(SYS_getpid), syscall(SYS_gettid), SIGABRT);
    // Reached only where the signal cannot end us: process 1 of a container, or another thread that
    // installed a handler in between. Neither may go on with a broken heap.
    __builtin_trap();
}

// For some seconds, until the thread that reports has ended the process. A filter may end it for `pause`
// before the report is out.
static FIRN_NORETURN void wait_quietly(void) {
    for (unsigned i = 0; i < 1u << 28; i++) {
        __builtin_ia32_pause();
    }
    __builtin_trap();
}

// True for the thread that reports. A second thread waits here for the first to end the process;
// the first one, coming back because reporting itself failed, gets false.
static bool claim_report(void) {
    uint64_t self = self_id();
    uint64_t seen = 0;
    while (!atomic_compare_exchange_strong_explicit(&dying, &seen, self, memory_order_acq_rel,
                                                    memory_order_acquire)) {
        if (seen == self) {
            return false;
        }
        if (filtered() != NULL) {
            wait_quietly();
        }
        if (seen >> 32 == self >> 32) {
            pause();
        }
    }
    return true;
}

static void put(const char *text, size_t n) {
    while (syscall(SYS_write, STDERR_FILENO, text, n) < 0 && errno == EINTR) {
    }
}

// `rest` is where the lines begin that report_text_rest makes.
static void deliver(size_t rest) {
    fatal_write_fn *write_report = atomic_load_explicit(&writer, memory_order_acquire);
    atomic_store_explicit(&stage, STAGE_WRITING, memory_order_relaxed);
    const char *note = write_report != NULL ? write_report(report.data, report.length) : "";
    if (ahead != 0 && rest > ahead) { // the others are out
        put(report.data + ahead, rest - ahead);
    }
    if (note != NULL && (ahead == 0 || note[0] != '\0')) {
        const size_t from = ahead != 0 ? report.length : 0;
        text_str(&report, note);
        put(report.data + from, report.length - from);
    }
}

// Composing came to an end, one way or another.
static void finish(bool is_whole) {
    report.capacity = TEXT_BYTES;
    report_text_mend(&report);
    if (!is_whole) {
        text_str(&report, "firn:   note: the heap is too damaged to describe the block\n");
    }
    const size_t rest = report.length;
    report_text_rest(&report, &source);
    report_text_mend(&report);
    deliver(rest);
}

// P-REPORT: what a filter may end the process for comes after what has to be said.
static void write_ahead(enum fatal_id id, const struct fatal_info *info) {
    source.id = id;
    source.info = info;
    source.locate = filtered();
    report = text_on(buffer, TEXT_BYTES);
    report_text_first_line(&report, &source);
    const size_t first = report.length;
    report_text_rest(&report, &source);
    ahead = syscall(SYS_write, STDERR_FILENO, report.data, report.length) > 0 ? first : 0;
}

// What made composing, or the program's handler, fault or come here again.
static FIRN_NORETURN void give_up(void) {
    if (atomic_load_explicit(&stage, memory_order_relaxed) == STAGE_COMPOSING) {
        finish(false);
    }
    die();
}

static void on_fault(int number) {
    (void)number;
    while (atomic_load_explicit(&dying, memory_order_acquire) != self_id()) {
        pause(); // some other thread's fault: the process ends in a moment
    }
    give_up();
}

// Nothing of the program runs any more in this thread but its report handler: a signal handler that
// interrupted here could misuse the heap again, and a handler for faults could go on somewhere else.
static void seclude(void) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    struct sigaction action;
    sigset_t blocked;
    sigfillset(&blocked);
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_fault;
    action.sa_flags = SA_ONSTACK;
    for (unsigned i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        sigdelset(&blocked, faults[i]);
    }
    // First: a filter that answers the rest with a signal then ends the process, and calls no handler.
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    for (unsigned i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        sigaction(faults[i], &action, NULL);
    }
}

static void gather(enum fatal_id id, const struct fatal_info *info) {
    static char name[17];
    syscall(SYS_prctl, PR_GET_NAME, name, 0, 0, 0);
    source.id = id;
    source.info = info;
    source.locate = filtered();
    if (source.locate == NULL) {
        source.locate = atomic_load_explicit(&locator, memory_order_acquire);
    }
    source.detail = atomic_load_explicit(&detailer, memory_order_acquire);
    for (unsigned i = 0; i < FATAL_RECALLS; i++) {
        source.recalls[i] = atomic_load_explicit(&recalls[i], memory_order_acquire);
    }
    source.process = (int)syscall(SYS_getpid);
    source.thread = (int)syscall(SYS_gettid);
    source.thread_name = name;
    source.module[0] = '\0';
    report = text_on(buffer, TEXT_BYTES - REST_BYTES);
}

// A handler that never ends, waits for another dying thread, or leaves by longjmp: the process ends
// all the same.
static void arm_watchdog(void) {
    struct sigevent event;
    struct itimerspec when;
    int timer;
    memset(&event, 0, sizeof(event));
    memset(&when, 0, sizeof(when));
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGABRT;
    when.it_value.tv_sec = HANDLER_SECONDS;
    if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) == 0) {
        syscall(SYS_timer_settime, timer, 0, &when, NULL);
    }
}

static void call_handler(void) {
    void (*function)(const struct firn_report *) =
        atomic_load_explicit(&handler, memory_order_acquire);
    const struct fatal_info *info = source.info;
    if (function == NULL) {
        return;
    }
    const struct firn_report view = {
        .struct_bytes = sizeof(view),
        .word = report_text_slug(source.id),
        .function = info->api,
        .address = info->address,
        .class_bytes = info->class_bytes,
        .size = info->size,
        .found = info->found,
        .expected = report_text_expected(source.id),
        .hint = report_text_advice(source.id),
        .caller = info->caller,
        .module = source.module,
        .module_offset = source.offset,
        .thread = source.thread,
        .text = report.data,
        .text_bytes = report.length,
    };
    atomic_store_explicit(&stage, STAGE_HANDLING, memory_order_relaxed);
    arm_abort();
    arm_watchdog();
    function(&view);
}

static _Atomic(fatal_open_fn *) opener;

void fatal_set_opener(fatal_open_fn *open_function) {
    atomic_store_explicit(&opener, open_function, memory_order_release);
}

static void open_error(void) {
    fatal_open_fn *function = atomic_load_explicit(&opener, memory_order_acquire);
    if (function != NULL) {
        function();
    }
}

void fatal(enum fatal_id id, const struct fatal_info *info) {
    if (!claim_report()) {
        give_up();
    }
    atomic_store_explicit(&stage, STAGE_COMPOSING, memory_order_relaxed);
    if (filtered() != NULL) {
        write_ahead(id, info);
    }
    seclude();
    open_error();
    gather(id, info);
    report_text_first_line(&report, &source);
    report_text_block(&report, &source);
    finish(true);
    call_handler();
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
