#include "src/fuzzbuild/report.h"

#include "src/fuzzbuild/access.h"
#include "src/fuzzbuild/settings.h"
#include "src/fuzzbuild/verdict.h"
#include "src/os/sys.h"
#include "src/os/walk.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

// glibc's own names for what crash.c interposes.
int __sigaction(int signal, const struct sigaction *action, struct sigaction *old);
int gsignal(int signal);

enum { TEXT_BYTES = 32 << 10, PATH_BYTES = 512, ADDRESS_DIGITS = 12 };

static char buffer[TEXT_BYTES];
static struct text report;
static _Atomic int owner; // thread id of the reporter, 0: nobody

unsigned verdict_thread(void) {
    static _Atomic unsigned threads;
    static FIRN_TLS unsigned number; // plus one
    if (FIRN_UNLIKELY(number == 0)) {
        number = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) + 1;
    }
    return number - 1;
}

void verdict_die(void) {
    struct sigaction action;
    sigset_t set;
    memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_DFL;
    __sigaction(SIGABRT, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGABRT);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    gsignal(SIGABRT);
    __builtin_trap();
}

struct text *report_begin(const char *bug) {
    int self = sys_thread_id(), nobody = 0;
    if (!atomic_compare_exchange_strong_explicit(&owner, &nobody, self, memory_order_acquire,
                                                 memory_order_acquire)) {
        if (nobody == self) {
            verdict_die();
        }
        for (;;) {
            pause(); // the first one ends the process
        }
    }
    report = text_on(buffer, sizeof(buffer));
    text_str(&report, "=================================================================\n");
    report_prefix(&report);
    text_str(&report, "ERROR: AddressSanitizer: ");
    text_str(&report, bug != NULL ? bug : "");
    return &report;
}

void report_prefix(struct text *t) {
    text_str(t, "==");
    text_dec(t, (uint64_t)sys_process_id());
    text_str(t, "==");
}

void report_address(struct text *t, uintptr_t address) {
    static const char digits[] = "0123456789abcdef";
    unsigned n = ADDRESS_DIGITS;
    while (n < 16 && address >> (4 * n) != 0) {
        n++;
    }
    text_str(t, "0x");
    while (n-- > 0) {
        text_char(t, digits[address >> (4 * n) & 15]);
    }
}

static void put_place(struct text *t, uintptr_t pc) {
    char path[PATH_BYTES];
    uintptr_t offset = sys_locate(pc, path, sizeof(path));
    text_char(t, '(');
    text_str(t, path);
    text_char(t, '+');
    text_hex(t, offset);
    text_char(t, ')');
}

// Return addresses are shown one less, inside the call: what addr2line needs to name its line.
static void put_frames(struct text *t, const uintptr_t *frames, size_t n, bool is_first_exact) {
    for (size_t i = 0; i < n; i++) {
        uintptr_t pc = frames[i] - (i > 0 || !is_first_exact);
        text_str(t, "    #");
        text_dec(t, i);
        text_char(t, ' ');
        text_hex(t, pc);
        text_char(t, ' ');
        put_place(t, pc);
        text_char(t, '\n');
    }
    text_char(t, '\n');
}

static bool is_in_libc(uintptr_t pc) {
    char path[PATH_BYTES], libc[PATH_BYTES];
    uintptr_t known = (uintptr_t)sigprocmask;
    sys_locate(pc, path, sizeof(path));
    sys_locate(known, libc, sizeof(libc));
    return strcmp(path, libc) == 0;
}

void report_context(struct text *t, uintptr_t pc, uintptr_t fp, uintptr_t sp) {
    uintptr_t frames[TRACE_MOST + 1];
    size_t n = trace_walk_context(pc, fp, frames, TRACE_MOST);
    uintptr_t caller;
    if (is_in_libc(pc) && access_peek(sp, &caller) && walk_is_return_address(caller) &&
        (n < 2 || frames[1] != caller)) {
        memmove(frames + 2, frames + 1, (n - 1) * sizeof(frames[0]));
        frames[1] = caller;
        n++;
    }
    put_frames(t, frames, n, true);
}

void report_walk(struct text *t, struct trace_origin from) {
    uintptr_t frames[TRACE_MOST];
    if (from.pc != 0) {
        put_frames(t, frames, trace_walk(from, frames, TRACE_MOST), false);
    }
}

void report_recorded(struct text *t, uint32_t trace) {
    const uintptr_t *frames = NULL;
    size_t n = trace_get(trace, &frames);
    put_frames(t, frames, n, false);
}

void report_flush(struct text *t) {
    sys_write(2, t->data, t->length);
    t->length = 0;
}

void report_end(struct text *t, const char *bug, uintptr_t pc) {
    text_str(t, "SUMMARY: AddressSanitizer: ");
    text_str(t, bug);
    text_char(t, ' ');
    if (pc != 0) {
        put_place(t, pc);
    }
    text_str(t, "\nFirn: libfirn-fuzz, FIRN_SEED=");
    text_dec(t, settings_get()->seed);
    text_str(t, ", found the error above\n");
    report_prefix(t);
    text_str(t, "ABORTING\n");
    report_flush(t);
}
