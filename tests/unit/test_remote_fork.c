// Frees by other threads and forks: what a child does about threads that it does not have, in every
// state they can be in.
#include "src/cache/remote.h"

#include "src/heap/heap.h"
#include "src/slab/central.h"
#include "tests/support/remote_case.h"
#include "tests/support/small_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct remote_case *const t = &remote_case;

// R alone is in the child: it delivers to an owner whose thread is not there.
static void in_child_of_fork(void *context) {
    unsigned before = *(const unsigned *)context;
    int status;
    remote_set_up();
    struct freeing f = {.p = t->block[0]};
    remote_r_does(&f, 0, before == R_STEPS ? before : 0);
    pid_t pid = fork();
    if (pid == 0) {
        NEED(atomic_load(&t->owner->is_dead) && !atomic_load(&t->freer->is_dead));
        heap_free(t->block[1], t->site);
        if (before == 0) {
            heap_free(t->block[0], t->site);
        }
        small_check(); // recovers, if that is still due
        NEED(remote_is_free(t->block[0]) && remote_is_free(t->block[1]) &&
             !remote_is_free(t->block[2]));
        NEED(atomic_load(&t->span->owner) == NULL);
        _exit(0);
    }
    NEED(waitpid(pid, &status, 0) == pid && status == 0);
    remote_r_does(&f, before == R_STEPS ? before : 0, R_STEPS);
    remote_ensure_drained(1);
}

static void a_dead_owners_span_is_recovered(void **state) {
    (void)state;
    for (unsigned before = 0; before <= R_STEPS; before += R_STEPS) {
        assert_true(small_run(in_child_of_fork, &before));
    }
}

// R was between steps 3 and 4 when O forked. R is not in the child, and will never queue the span: other
// threads of the child must not rely on it.
static void child_of_a_free_under_way(void *context) {
    int status;
    (void)context;
    remote_set_up();
    struct freeing f = {.p = t->block[0]};
    remote_r_does(&f, 0, 3);
    NEED(f.must_queue);
    small_act_as(t->owner);
    pid_t pid = fork();
    if (pid == 0) {
        NEED(atomic_load(&t->freer->is_dead) && !atomic_load(&t->owner->is_dead));
        NEED(small_attach() != NULL);
        heap_free(t->block[1], t->site);
        remote_ensure_drained(2);
        _exit(0);
    }
    NEED(waitpid(pid, &status, 0) == pid && status == 0);
    small_act_as(t->freer);
    remote_r_does(&f, 3, R_STEPS);
    remote_ensure_drained(1);
}

static void a_free_under_way_in_the_parent_does_not_block_the_child(void **state) {
    (void)state;
    assert_true(small_run(child_of_a_free_under_way, NULL));
}

// In the child R and S free blocks of a dead thread's span. It is recovered and adopted between R's
// steps 3 and 4: the span must not be queued by both.
static void child_recovers_between_steps(void *context) {
    int status;
    (void)context;
    remote_set_up();
    pid_t pid = fork();
    if (pid == 0) {
        struct freeing r = {.p = t->block[0]}, s = {.p = t->block[1]};
        remote_r_does(&r, 0, 3);
        central_rebuild_if_due(root_cell_class(t->span->cell));
        NEED(atomic_load(&t->span->owner) == NULL);
        t->owner = small_attach();
        NEED(t->owner != NULL);
        remote_adopt(t->owner);
        small_act_as(t->freer);
        remote_r_does(&s, 0, R_STEPS);
        remote_r_does(&r, 3, R_STEPS);
        small_check();
        small_act_as(t->owner);
        alarm(10); // a span queued twice is drained for ever
        remote_drain(t->owner);
        NEED(!span_is_remote(t->span, small_slot(t->block[0])) && remote_is_free(t->block[1]));
        NEED(span_pending(t->span) == 0);
        small_check();
        _exit(0);
    }
    NEED(waitpid(pid, &status, 0) == pid && status == 0);
}

static void a_recovered_span_is_queued_once(void **state) {
    (void)state;
    assert_true(small_run(child_recovers_between_steps, NULL));
}

// What others had queued for the thread that forks is still queued for it in the child, once.
static void child_of_the_owner(void *context) {
    int status;
    (void)context;
    remote_set_up();
    NEED(cache_free_remote(t->span, (uintptr_t)t->block[0]));
    NEED(atomic_load(&t->owner->pending) == t->span);
    small_act_as(t->owner);
    pid_t pid = fork();
    if (pid == 0) {
        small_check();
        NEED(small_attach() != NULL);
        heap_free(t->block[1], t->site);
        NEED(atomic_load(&t->owner->pending) == t->span &&
             atomic_load(&t->span->pending_next) == NULL);
        remote_ensure_drained(2);
        _exit(0);
    }
    NEED(waitpid(pid, &status, 0) == pid && status == 0);
    remote_ensure_drained(1);
}

static void a_queue_is_inherited(void **state) {
    (void)state;
    assert_true(small_run(child_of_the_owner, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dead_owners_span_is_recovered),
        cmocka_unit_test(a_free_under_way_in_the_parent_does_not_block_the_child),
        cmocka_unit_test(a_recovered_span_is_queued_once),
        cmocka_unit_test(a_queue_is_inherited),
    };
    return cmocka_run_group_tests(tests, small_start, NULL);
}
