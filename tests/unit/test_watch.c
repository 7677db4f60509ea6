// The watcher in the place of SIGSEGV's default action: what it sees, and that nothing else changes.
// firn-test: share=2
#include "src/os/watch.h"

#include "src/base/compiler.h"
#include "src/os/signals.h"
#include "tests/support/small_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static volatile char *hole; // an inaccessible page
static volatile bool is_write_expected;

static void see(const struct watch_fault *fault) {
    if (fault->address == (uintptr_t)hole + 5) {
        _exit(fault->is_write == is_write_expected && fault->pc != 0 ? 42 : 43);
    }
}

static void handle(int number) {
    (void)number;
    _exit(44);
}

static void fresh(void) {
    signal(SIGSEGV, SIG_DFL); // cmocka has its own
}

// How a child ends that does this.
static int end_of(void (*body)(void)) {
    pid_t child = fork();
    if (child == 0) {
        fresh();
        body();
        _exit(0);
    }
    int status = -1;
    assert_true(child > 0 && waitpid(child, &status, 0) == child);
    return status;
}

static void write_there(void) {
    is_write_expected = true;
    NEED(watch_install(see) && watch_install(see));
    hole[5] = 1;
}

static void read_there(void) {
    NEED(watch_install(see));
    (void)hole[5];
}

static void write_elsewhere(void) {
    NEED(watch_install(see));
    hole[6] = 1;
}

static void send_it(void) {
    NEED(watch_install(see));
    raise(SIGSEGV);
}

static void with_a_handler_before(void) {
    signal(SIGSEGV, handle);
    NEED(!watch_install(see));
    hole[5] = 1;
}

static void with_a_handler_after(void) {
    NEED(watch_install(see));
    signal(SIGSEGV, handle);
    NEED(!watch_install(see));
    hole[5] = 1;
}

static struct sigaction with(void (*handler)(int)) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    return action;
}

static void with_a_handler_for_a_while(void) {
    const struct sigaction mine = with(handle), standard = with(SIG_DFL);
    struct sigaction old;
    is_write_expected = true;
    NEED(watch_install(see));
    NEED(signals_action(SIGSEGV, &mine, NULL) == 0);
    NEED(signals_action(SIGSEGV, &standard, &old) == 0 && old.sa_handler == handle);
    NEED(signals_action(SIGSEGV, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
    hole[5] = 1;
}

static void ignored_for_a_while(void) {
    const struct sigaction nothing = with(SIG_IGN), standard = with(SIG_DFL);
    NEED(watch_install(see));
    NEED(signals_action(SIGSEGV, &nothing, NULL) == 0);
    NEED(signals_action(SIGSEGV, &standard, NULL) == 0);
    hole[6] = 1;
}

static void ignored(void) {
    signal(SIGSEGV, SIG_IGN);
    NEED(!watch_install(see));
    raise(SIGSEGV);
    _exit(45);
}

static void ends(void **state) {
    (void)state;
    hole = mmap(NULL, FIRN_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(hole != MAP_FAILED);
    int status = end_of(write_there);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    status = end_of(read_there);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    status = end_of(write_elsewhere);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    status = end_of(send_it);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    status = end_of(with_a_handler_before);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 44);
    status = end_of(with_a_handler_after);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 44);
    status = end_of(with_a_handler_for_a_while);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    status = end_of(ignored_for_a_while);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    status = end_of(ignored);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 45);
}

// A program that asks sees the default action.
static void ask(void *context) {
    struct sigaction old;
    (void)context;
    fresh();
    NEED(watch_install(see));
    memset(&old, 0x55, sizeof old);
    NEED(signals_action(SIGSEGV, NULL, &old) == 0);
    NEED(old.sa_handler == SIG_DFL && (old.sa_flags & SA_SIGINFO) == 0);
    struct sigaction mine;
    memset(&mine, 0, sizeof mine);
    mine.sa_handler = handle;
    NEED(signals_action(SIGSEGV, &mine, &old) == 0 && old.sa_handler == SIG_DFL);
    NEED(signals_action(SIGSEGV, NULL, &old) == 0 && old.sa_handler == handle);
}

static void nobody_notices(void **state) {
    (void)state;
    assert_true(small_run(ask, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends),
        cmocka_unit_test(nobody_notices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
