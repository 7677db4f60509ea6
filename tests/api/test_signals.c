// "As if Firn were absent": a program's handlers, masks and default actions for SIGSEGV. The same
// scenarios run without Firn, with Firn, and with Firn's handler in SIGSEGV's place (engine `protect`,
// which the test build arms on request); what they report must be the same to the letter.
// firn-test: share=2,3
#include "tests/api/api.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations" // the old calls are what is tested

enum { PAGE = 4096, STACK = 65536, REPORT = 65536 };

static volatile char *wall; // a page that cannot be written
static char *altstack;
static volatile int calls;
static sigjmp_buf back;

static void report(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void report(const char *format, ...) {
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (n > 0 && write(STDOUT_FILENO, line, (size_t)n) != n) {
        _exit(99);
    }
}

static void open_wall(void) {
    mprotect((void *)wall, PAGE, PROT_READ | PROT_WRITE);
}

static void close_wall(void) {
    mprotect((void *)wall, PAGE, PROT_READ);
}

static void show_mask(const char *where, const sigset_t *set) {
    static const int shown[] = {SIGSEGV, SIGBUS, SIGSTKFLT, SIGUSR1, SIGUSR2, SIGTERM};
    report(" %s:", where);
    for (unsigned i = 0; i < sizeof shown / sizeof shown[0]; i++) {
        report("%d", sigismember(set, shown[i]));
    }
}

static void show_current(const char *where) {
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    show_mask(where, &now);
}

static struct sigaction action(void (*f)(int, siginfo_t *, void *), int flags) {
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_sigaction = f;
    a.sa_flags = SA_SIGINFO | flags;
    return a;
}

static void set(void (*f)(int, siginfo_t *, void *), int flags) {
    struct sigaction a = action(f, flags);
    if (sigaction(SIGSEGV, &a, NULL) != 0) {
        report(" sigaction failed");
    }
}

static void set_plain(void (*f)(int)) {
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = f;
    sigaction(SIGSEGV, &a, NULL);
}

static void block(int how, int number) {
    sigset_t s;
    sigemptyset(&s);
    sigaddset(&s, number);
    sigprocmask(how, &s, NULL);
}

static void mend(int number, siginfo_t *info, void *context) {
    (void)context;
    calls++;
    report(" signal %d code %d %s", number, info->si_code,
           info->si_addr == (void *)wall ? "at the wall" : "elsewhere");
    open_wall();
}

static void mend_plain(int number) {
    calls++;
    report(" signal %d", number);
    open_wall();
}

static void leave(int number, siginfo_t *info, void *context) {
    (void)number, (void)info, (void)context;
    calls++;
    siglongjmp(back, 1);
}

static void show(int number, siginfo_t *info, void *context) {
    ucontext_t *c = context;
    (void)number, (void)info;
    show_current("inside");
    show_mask("returning to", &c->uc_sigmask);
    open_wall();
}

static void where_am_i(int number, siginfo_t *info, void *context) {
    char here;
    (void)number, (void)info, (void)context;
    report(" on %s stack", &here >= altstack && &here < altstack + STACK ? "its" : "the usual");
    open_wall();
}

static void fault_again(int number, siginfo_t *info, void *context) {
    (void)number, (void)info, (void)context;
    if (calls++ == 0) {
        *wall = 2;
        report(" came back");
    }
    open_wall();
}

static void count_only(int number, siginfo_t *info, void *context) {
    (void)context;
    calls++;
    report(" signal %d code %d from %s", number, info->si_code,
           info->si_pid == getpid() ? "me" : "others");
}

// ---- scenarios ------------------------------------------------------------------------------------

static void default_action(void) {
    *wall = 1;
}

static void end_third(int number, siginfo_t *info, void *context) {
    (void)context;
    report(" signal %d code %d at %p", number, info->si_code, info->si_addr);
    _exit(calls++ > 1 ? 3 : 4);
}

static void far_address(void) {
    set(end_third, 0);
    *(volatile char *)8 = 1;
}

static void with_information(void) {
    set(mend, 0);
    *wall = 1;
    close_wall();
    *wall = 1;
}

static void without_information(void) {
    set_plain(mend_plain);
    *wall = 1;
}

static void keeps_errno(void) {
    set(mend, 0);
    errno = 123;
    *wall = 1;
    report(" errno %d", errno == 123 ? 0 : errno);
}

static void once(void) {
    struct sigaction now;
    set(mend, (int)SA_RESETHAND);
    *wall = 1;
    sigaction(SIGSEGV, NULL, &now);
    report(" then %s", now.sa_handler == SIG_DFL ? "default" : "a handler");
    close_wall();
    *wall = 1;
}

static void nested_deferred(void) {
    set(fault_again, 0);
    *wall = 1;
}

static void nested_allowed(void) {
    set(fault_again, SA_NODEFER);
    *wall = 1;
    report(" calls %d", calls);
}

static void jumps_out(void) {
    set(leave, 0);
    for (volatile int i = 0; i < 3; i++) {
        if (sigsetjmp(back, 1) == 0) {
            *wall = 1;
        }
        show_current("after");
    }
    report(" calls %d", calls);
}

static void jumps_out_blocked(void) {
    set(leave, 0);
    if (sigsetjmp(back, 0) == 0) { // the mask stays that of the handler
        *wall = 1;
    }
    show_current("after");
    *wall = 1;
}

static void masks(void) {
    struct sigaction a = action(show, 0);
    sigaddset(&a.sa_mask, SIGUSR1);
    sigaction(SIGSEGV, &a, NULL);
    block(SIG_BLOCK, SIGTERM);
    show_current("before");
    *wall = 1;
    show_current("after");
}

static void masks_open(void) {
    struct sigaction a = action(show, SA_NODEFER);
    sigfillset(&a.sa_mask);
    sigdelset(&a.sa_mask, SIGSEGV);
    sigaction(SIGSEGV, &a, NULL);
    *wall = 1;
    show_current("after");
}

static void change_context(int number, siginfo_t *info, void *context) {
    ucontext_t *c = context;
    (void)number, (void)info;
    sigaddset(&c->uc_sigmask, SIGUSR2);
    open_wall();
}

static void changes_what_is_restored(void) {
    set(change_context, 0);
    *wall = 1;
    show_current("after");
}

static void stacks(int flags) {
    stack_t s = {.ss_sp = altstack, .ss_size = STACK};
    sigaltstack(&s, NULL);
    set(where_am_i, flags);
    *wall = 1;
    s.ss_flags = SS_DISABLE;
    stack_t old;
    sigaltstack(&s, &old);
    report(" %d", old.ss_sp == altstack && old.ss_size == STACK);
}

static void usual_stack(void) {
    stacks(0);
}

static void own_stack(void) {
    stacks(SA_ONSTACK);
}

static void end_here(int number, siginfo_t *info, void *context) {
    char here;
    (void)info, (void)context;
    report(" signal %d on %s stack", number,
           &here >= altstack && &here < altstack + STACK ? "its" : "the usual");
    _exit(5);
}

static int deeper(volatile char *above) {
    volatile char frame[1024];
    frame[0] = *above;
    return frame[0] == 0 ? 0 : deeper(frame) + frame[0];
}

static void overflow(void) {
    stack_t s = {.ss_sp = altstack, .ss_size = STACK};
    struct rlimit limit = {1 << 20, 1 << 20};
    char first = 1;
    setrlimit(RLIMIT_STACK, &limit);
    sigaltstack(&s, NULL);
    set(end_here, SA_ONSTACK);
    report(" %d", deeper(&first));
}

static void overflow_unhandled(void) {
    struct rlimit limit = {1 << 20, 1 << 20};
    char first = 1;
    setrlimit(RLIMIT_STACK, &limit);
    set(end_here, 0);
    report(" %d", deeper(&first));
}

static void remembers(void) {
    struct sigaction a = action(mend, SA_RESTART | SA_NODEFER), b;
    sigaddset(&a.sa_mask, SIGSEGV);
    sigaddset(&a.sa_mask, SIGUSR2);
    sigaction(SIGSEGV, NULL, &b);
    report(" first %d", b.sa_handler == SIG_DFL);
    sigaction(SIGSEGV, &a, &b);
    report(" %d", b.sa_handler == SIG_DFL);
    sigaction(SIGSEGV, NULL, &b);
    report(" %d flags %x", b.sa_sigaction == mend, (unsigned)b.sa_flags & ~0x04000000u);
    show_mask("mask", &b.sa_mask);
    sigaction(SIGUSR1, &a, NULL);
    sigaction(SIGUSR1, NULL, &b);
    show_mask("other's", &b.sa_mask);
    sigfillset(&a.sa_mask);
    sigaction(SIGUSR1, &a, &b);
    show_mask("before", &b.sa_mask);
    sigaction(SIGUSR1, NULL, &b);
    show_mask("full", &b.sa_mask);
    errno = 0;
    report(" bad %d %d", sigaction(0, &a, NULL), errno);
    report(" bad %d %d", sigaction(65, NULL, &b), errno);
    report(" bad %d %d", sigaction(SIGKILL, &a, NULL), errno);
}

static void old_calls(void) {
    struct sigaction a;
    report(" %d", signal(SIGSEGV, mend_plain) == SIG_DFL);
    report(" %d", signal(SIGSEGV, SIG_IGN) == mend_plain);
    report(" %d", sysv_signal(SIGSEGV, mend_plain) == SIG_IGN);
    sigaction(SIGSEGV, NULL, &a);
    report(" %x", (unsigned)a.sa_flags & ~0x04000000u);
    report(" %d", sigset(SIGSEGV, SIG_HOLD) == mend_plain);
    show_current("held");
    report(" %d", sigset(SIGSEGV, mend_plain) == SIG_HOLD);
    show_current("let go");
    sigaction(SIGSEGV, NULL, &a);
    report(" %x", (unsigned)a.sa_flags & ~0x04000000u);
    siginterrupt(SIGSEGV, 0);
    sigaction(SIGSEGV, NULL, &a);
    report(" %x", (unsigned)a.sa_flags & ~0x04000000u);
    siginterrupt(SIGSEGV, 1);
    signal(SIGSEGV, mend_plain);
    sigaction(SIGSEGV, NULL, &a);
    report(" %x", (unsigned)a.sa_flags & ~0x04000000u);
    show_mask("mask", &a.sa_mask);
    sighold(SIGSEGV);
    show_current("held");
    sigrelse(SIGSEGV);
    errno = 0;
    report(" bad %d %d", signal(0, SIG_DFL) == SIG_ERR, errno);
    report(" bad %d %d", sigprocmask(77, &a.sa_mask, NULL), errno);
    report(" bad %d", pthread_sigmask(77, &a.sa_mask, NULL));
    *wall = 1;
}

static void sent(void) {
    set(count_only, 0);
    kill(getpid(), SIGSEGV);
    raise(SIGSEGV);
    report(" calls %d", calls);
}

static void sent_and_blocked(void) {
    set(count_only, 0);
    block(SIG_BLOCK, SIGSEGV);
    raise(SIGSEGV);
    report(" calls %d", calls);
    block(SIG_UNBLOCK, SIGSEGV);
    report(" calls %d", calls);
}

static void sent_by_default(void) {
    kill(getpid(), SIGSEGV);
    report(" survived");
}

static void faults_while_blocked(void) {
    set(mend, 0);
    block(SIG_BLOCK, SIGSEGV);
    show_current("blocked");
    *wall = 1;
}

static void ignored(void) {
    signal(SIGSEGV, SIG_IGN);
    raise(SIGSEGV);
    report(" survived");
    *wall = 1;
}

static void *in_thread(void *unused) {
    show_current("thread");
    set(mend, 0);
    block(SIG_UNBLOCK, SIGSEGV);
    *wall = 1;
    return unused;
}

static void threads(void) {
    sigset_t all, old;
    pthread_t t;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    show_current("all");
    pthread_create(&t, NULL, in_thread, NULL);
    pthread_join(t, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    show_current("old");
}

static void on_user(int number, siginfo_t *info, void *context) {
    (void)number, (void)info, (void)context;
    show_current("in USR1");
}

static void other_handlers(void) {
    struct sigaction a = action(on_user, 0);
    sigset_t wait;
    sigaddset(&a.sa_mask, SIGTERM);
    sigaction(SIGUSR1, &a, NULL);
    raise(SIGUSR1);
    show_current("after");
    block(SIG_BLOCK, SIGUSR1);
    raise(SIGUSR1);
    sigfillset(&wait);
    sigdelset(&wait, SIGUSR1);
    report(" %d", sigsuspend(&wait));
    show_current("after");
}

static void bsd_masks(void) {
    int segv = 1 << (SIGSEGV - 1);
    int (*get)(void) = NULL; // the linker warns of a plain call
    void *symbol = api_symbol("siggetmask");
    memcpy(&get, &symbol, sizeof symbol);
    report(" %d", sigblock(segv) == 0);
    report(" %d", get() == segv);
    report(" %d", sigsetmask(0) == segv);
    report(" %d", get());
}

static void forked(void) {
    set(mend, 0);
    pid_t child = fork();
    if (child == 0) {
        struct sigaction a;
        sigaction(SIGSEGV, NULL, &a);
        report(" inherits %d", a.sa_sigaction == mend);
        *wall = 1;
        signal(SIGSEGV, SIG_DFL);
        close_wall();
        *wall = 1;
    }
    int status;
    waitpid(child, &status, 0);
    report(" child %d", WIFSIGNALED(status) ? WTERMSIG(status) : -1);
    *wall = 1;
}

static void vforked(void) {
    struct sigaction a;
    set(mend, 0);
    pid_t child = vfork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        block(SIG_BLOCK, SIGSEGV);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    sigaction(SIGSEGV, NULL, &a);
    report(" mine %d", a.sa_sigaction == mend);
    show_current("mine");
    *wall = 1;
}

#define SCENARIO(name)                                                                             \
    { #name, name }
static const struct {
    const char *name;
    void (*run)(void);
} scenarios[] = {
    SCENARIO(default_action),
    SCENARIO(far_address),
    SCENARIO(with_information),
    SCENARIO(without_information),
    SCENARIO(keeps_errno),
    SCENARIO(once),
    SCENARIO(nested_deferred),
    SCENARIO(nested_allowed),
    SCENARIO(jumps_out),
    SCENARIO(jumps_out_blocked),
    SCENARIO(masks),
    SCENARIO(masks_open),
    SCENARIO(changes_what_is_restored),
    SCENARIO(usual_stack),
    SCENARIO(own_stack),
    SCENARIO(overflow),
    SCENARIO(overflow_unhandled),
    SCENARIO(remembers),
    SCENARIO(old_calls),
    SCENARIO(sent),
    SCENARIO(sent_and_blocked),
    SCENARIO(sent_by_default),
    SCENARIO(faults_while_blocked),
    SCENARIO(ignored),
    SCENARIO(threads),
    SCENARIO(other_handlers),
    SCENARIO(bsd_masks),
    SCENARIO(forked),
    SCENARIO(vforked),
};
enum { SCENARIOS = sizeof scenarios / sizeof scenarios[0] };

// ---- the two sides --------------------------------------------------------------------------------

static int perform(void) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    wall = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    altstack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (unsigned i = 0; i < SCENARIOS; i++) {
        report("%s:", scenarios[i].name);
        pid_t child = fork();
        if (child == 0) {
            alarm(10);
            scenarios[i].run();
            _exit(0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        report(WIFSIGNALED(status) ? " killed by %d\n" : " exit %d\n",
               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    return 0;
}

static bool collect(const char *self, const char *library, const char *armed, char *out) {
    char command[4096];
    snprintf(command, sizeof command,
             "LD_PRELOAD='%s' FIRN_TEST_ARM='%s' FIRN_TEST_CAPS=7f '%s' run", library, armed, self);
    FILE *f = popen(command, "r");
    size_t n = f != NULL ? fread(out, 1, REPORT - 1, f) : 0;
    out[n] = '\0';
    return f != NULL && pclose(f) == 0 && n > 0;
}

static int compare(const char *name, const char *expected, const char *found) {
    int bad = 0;
    for (unsigned i = 0; i < SCENARIOS; i++) {
        int e = (int)strcspn(expected, "\n"), f = (int)strcspn(found, "\n");
        bool is_same = e == f && memcmp(expected, found, (size_t)e) == 0 && e > 0;
        bad += !is_same;
        printf("%s %s, %s\n", is_same ? "ok" : "not ok", scenarios[i].name, name);
        if (!is_same) {
            printf("#   without Firn: %.*s\n#   with:         %.*s\n", e, expected, f, found);
        }
        expected += e + (expected[e] == '\n');
        found += f + (found[f] == '\n');
    }
    return bad;
}

int main(int argc, char **argv) {
    static char bare[REPORT], with[REPORT], armed[REPORT];
    if (argc > 1) {
        return perform();
    }
    api_require_firn("test_signals");
    const char *test_library = getenv("FIRN_TEST_LIB"), *library = getenv("FIRN_LIB");
    if (test_library == NULL || library == NULL || !collect(argv[0], "", "", bare) ||
        !collect(argv[0], library, "", with) || !collect(argv[0], test_library, "1", armed)) {
        printf("not ok signals: a side did not run\n");
        return 1;
    }
    printf("1..%d\n", 2 * SCENARIOS);
    return (compare("with Firn", bare, with) + compare("with its handler", bare, armed)) != 0;
}
