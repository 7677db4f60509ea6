// A program that installs a seccomp filter late, as sshd's child does, and allocates on: no call of Firn's
// may be one that the filter ends the process for.
#include "tests/api/api.h"
#include "tests/support/child.h"
#include "tests/support/filter.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

// Enough allocations for hundreds of guarded samples at level 3, dozens at level 1.
enum { ROUNDS = 300000, LIVE = 512 };

static void *live[LIVE];

static void need(bool is_true, int code) {
    if (!is_true) {
        _exit(code);
    }
}

static void churn(unsigned rounds) {
    unsigned seed = 1;
    for (unsigned i = 0; i < rounds; i++) {
        seed = seed * 1103515245 + 12345;
        unsigned at = (seed >> 8) % LIVE;
        size_t size = (seed >> 17) % 100 == 0 ? 3000 + (seed >> 4) % 300000 : (seed >> 20) % 500;
        free(live[at]);
        live[at] = malloc(size);
        need(live[at] != NULL, 20);
        memset(live[at], 1, size < 4096 ? size : 4096);
    }
}

static void grow(void) {
    char *p = NULL;
    for (size_t n = 1; n <= (size_t)16 << 20; n *= 2) {
        p = realloc(p, n);
        need(p != NULL, 21);
        p[n - 1] = 1;
    }
    free(p);
}

struct plan {
    enum filter_kind kind;
    enum filter_way way;
    unsigned before; // allocations before the filter
};

static void run(void *context) {
    const struct plan *plan = context;
    churn(plan->before);
    need(filter_install(plan->kind, plan->way), 22);
    churn(ROUNDS);
    grow();
    usleep(1100000); // what was freed is due to be given back
    churn(ROUNDS / 10);
    malloc_trim(0);
    churn(ROUNDS / 10);
}

static void survives(const struct plan *plan) {
    struct child c;
    child_run(&c, run, (void *)(uintptr_t)plan);
    if (!child_exited(&c, 0)) {
        print_error("status %x: %s\n", (unsigned)c.status, c.said);
    }
    assert_true(child_exited(&c, 0));
}

static void openssh(void **state) {
    (void)state;
    survives(&(struct plan){FILTER_OPENSSH, FILTER_BY_PRCTL, 0});
    survives(&(struct plan){FILTER_OPENSSH, FILTER_BY_SECCOMP, ROUNDS / 10});
}

// libc's syscall, which Firn replaces: six arguments, the answer, errno.
static void syscall_is_libcs(void **state) {
    (void)state;
    const int fd = memfd_create("six", MFD_CLOEXEC);
    assert_true(fd >= 0 && ftruncate(fd, 12288) == 0 && pwrite(fd, "x", 1, 8192) == 1);
    char *p = (char *)syscall(SYS_mmap, NULL, 4096ul, PROT_READ, MAP_PRIVATE, fd, 8192l);
    assert_true(p != MAP_FAILED && p[0] == 'x' && p[1] == 0);
    assert_int_equal(syscall(SYS_munmap, p, 4096ul), 0);
    errno = 0;
    assert_int_equal(syscall(SYS_close, -1), -1);
    assert_int_equal(errno, EBADF);
    errno = 0;
    assert_int_equal(syscall(-1L), -1);
    assert_int_equal(errno, ENOSYS);
    char name[17] = "";
    assert_int_equal(prctl(PR_SET_NAME, "prctl"), 0);
    assert_int_equal(syscall(SYS_prctl, PR_GET_NAME, name, 0, 0, 0), 0);
    assert_string_equal(name, "prctl");
    errno = 0;
    assert_int_equal(prctl(-1, 0, 0, 0, 0), -1);
    assert_int_equal(errno, EINVAL);
    close(fd);
}

int main(void) {
    api_require_firn("sandbox");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(syscall_is_libcs),
        cmocka_unit_test(openssh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
