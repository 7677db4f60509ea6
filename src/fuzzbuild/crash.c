#include "src/fuzzbuild/crash.h"

#include "src/base/compiler.h"
#include "src/fuzzbuild/access.h"
#include "src/fuzzbuild/blocks.h"
#include "src/fuzzbuild/settings.h"
#include "src/fuzzbuild/space.h"
#include "src/fuzzbuild/vector.h"
#include "src/fuzzbuild/verdict.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

// glibc's own names for what is interposed here, so that no dlsym is needed.
int __sigaction(int signal, const struct sigaction *action, struct sigaction *old);
int gsignal(int signal);
__sighandler_t ssignal(int signal, __sighandler_t handler);

enum {
    STACK_BYTES = 64 << 10,
    TRAP_PROTECTION = 13,
    TRAP_PAGE = 14,
    ERROR_WRITE = 2,
};

static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
enum { SIGNALS = sizeof(signals) / sizeof(signals[0]) };

// What the program asked for; sa_handler SIG_DFL when nothing.
static struct sigaction theirs[SIGNALS];
static _Alignas(16) char stack[STACK_BYTES];

static struct sigaction *their_action(int signal) {
    for (unsigned i = 0; i < SIGNALS; i++) {
        if (signals[i] == signal) {
            return &theirs[i];
        }
    }
    return NULL;
}

static bool is_handled(const struct sigaction *a) {
    return (a->sa_flags & SA_SIGINFO) != 0 ||
           (a->sa_handler != SIG_DFL && a->sa_handler != SIG_IGN);
}

// Returning from the handler then repeats the fault, at its own place, with nobody to catch it. A
// signal that somebody sent does not repeat by itself.
static void let_die(int signal, bool is_sent) {
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_DFL;
    __sigaction(signal, &action, NULL);
    if (is_sent) {
        gsignal(signal);
    }
}

// As the kernel would: mask first, one shot if asked. The mask goes back with the context.
static void pass_on(int signal, siginfo_t *info, void *context) {
    struct sigaction *slot = their_action(signal);
    struct sigaction action = *slot;
    if ((action.sa_flags & (int)SA_RESETHAND) != 0) {
        memset(slot, 0, sizeof(*slot));
    }
    sigset_t mask = action.sa_mask;
    if ((action.sa_flags & SA_NODEFER) == 0) {
        sigaddset(&mask, signal);
    }
    pthread_sigmask(SIG_BLOCK, &mask, NULL);
    if ((action.sa_flags & SA_SIGINFO) != 0) {
        action.sa_sigaction(signal, info, context);
    } else {
        action.sa_handler(signal);
    }
}

static struct verdict_fault fault_from(const siginfo_t *info, const ucontext_t *context) {
    const greg_t *r = context->uc_mcontext.gregs;
    struct verdict_fault f = {
        .address = (uintptr_t)info->si_addr,
        .pc = (uintptr_t)r[REG_RIP],
        .bp = (uintptr_t)r[REG_RBP],
        .sp = (uintptr_t)r[REG_RSP],
        .is_write = (r[REG_ERR] & ERROR_WRITE) != 0,
        .has_address = r[REG_TRAPNO] == TRAP_PAGE,
    };
    // A jump into the heap: the instruction itself cannot be read.
    f.size = f.pc == f.address ? 0 : access_size(f.pc);
    return f;
}

// A vector move that fails only because its block lies at no multiple of 16: at malloc's usual alignment
// it would have been right. True if it was done. False, with `f` saying where, if it reaches memory
// outside a live block; false, `f` untouched, if it is something else.
static bool mend_misaligned(ucontext_t *context, struct verdict_fault *f) {
    struct vector_move move;
    struct slot s;
    if (context->uc_mcontext.gregs[REG_TRAPNO] != TRAP_PROTECTION ||
        !vector_decode(context, &move) || !space_find(move.address, &s)) {
        return false;
    }
    const struct block *b = space_block(s.id);
    uintptr_t start = blocks_start_of(&s, b), end = start + b->size;
    bool is_live = b->state == BLOCK_LIVE && move.address >= start && move.address < end;
    if (is_live && move.address + VECTOR_BYTES <= end) {
        return (move.address - start) % VECTOR_BYTES == 0 && vector_emulate(context, &move);
    }
    f->address = is_live ? end : move.address;
    f->has_address = true;
    f->is_write = move.is_store;
    f->size = VECTOR_BYTES;
    return false;
}

static void handle(int signal, siginfo_t *info, void *opaque) {
    int saved = errno;
    ucontext_t *context = opaque;
    greg_t *pc = &context->uc_mcontext.gregs[REG_RIP];
    if (*pc == (greg_t)(uintptr_t)access_peek_load) {
        *pc = (greg_t)(uintptr_t)access_peek_failed;
        return;
    }
    bool is_sent = info->si_code <= 0;
    if (!is_sent) {
        struct verdict_fault f = fault_from(info, context);
        if (mend_misaligned(context, &f)) {
            errno = saved;
            return;
        }
        if (f.has_address && space_contains(f.address) && verdict_heap_fault(&f)) {
            let_die(signal, false);
            return;
        }
        if (!is_handled(their_action(signal)) && settings_get()->segv) {
            verdict_wild_fault(signal, &f);
        }
    }
    if (is_handled(their_action(signal))) {
        pass_on(signal, info, context);
    } else if (!is_sent || their_action(signal)->sa_handler != SIG_IGN) {
        let_die(signal, is_sent);
    }
    errno = saved;
}

void crash_install(void) {
    struct sigaction action;
    const stack_t own = {.ss_sp = stack, .ss_size = sizeof(stack)};
    sigaltstack(&own, NULL);
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = handle;
    // Not deferred: reading around a fault may fault itself (access_peek).
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (unsigned i = 0; i < SIGNALS; i++) {
        __sigaction(signals[i], &action, &theirs[i]);
    }
}

FIRN_EXPORT int sigaction(int signal, const struct sigaction *action, struct sigaction *old) {
    struct sigaction *slot = their_action(signal);
    if (slot == NULL) {
        return __sigaction(signal, action, old);
    }
    struct sigaction before = *slot;
    if (action != NULL) {
        *slot = *action;
    }
    if (old != NULL) {
        *old = before;
    }
    return 0;
}

FIRN_EXPORT __sighandler_t signal(int number, __sighandler_t handler) {
    struct sigaction *slot = their_action(number);
    if (slot == NULL) {
        return ssignal(number, handler);
    }
    __sighandler_t before = slot->sa_handler;
    memset(slot, 0, sizeof(*slot));
    slot->sa_handler = handler;
    slot->sa_flags = SA_RESTART;
    return before;
}

// A persistent-mode target stops itself between two inputs.
FIRN_EXPORT int raise(int number) {
    if (number == SIGSTOP) {
        blocks_next_input();
    }
    return gsignal(number);
}
