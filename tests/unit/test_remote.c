// Frees by threads that do not own the span: the interleavings of remote.h, each forced by doing the
// steps of all the threads in one, in every order.
#include "src/cache/remote.h"

#include "hardening/link.h"
#include "src/heap/heap.h"
#include "src/slab/central.h"
#include "tests/support/small_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { SIZE = 64, BLOCKS = 6, R_STEPS = 4, O_STEPS = 4 };

static const uintptr_t site = 0x401000;
static struct cache *owner, *freer;
static unsigned char *block[BLOCKS]; // all in one span of the owner's
static struct span *span;

// Blocks of the owner, all in one span; `freer` acts.
static void set_up(void) {
    owner = small_attach();
    freer = small_attach();
    NEED(owner != NULL && freer != NULL && owner != freer);
    small_act_as(owner);
    unsigned have = 0;
    for (unsigned i = 0; i < 10000 && have < BLOCKS; i++) {
        unsigned char *p = heap_alloc(SIZE, site);
        NEED(p != NULL);
        if (have == 0 || small_span(p) == small_span(block[0])) {
            block[have++] = p;
        }
    }
    NEED(have == BLOCKS);
    span = small_span(block[0]);
    NEED(atomic_load(&span->owner) == owner);
    small_act_as(freer);
}

// ---- the steps --------------------------------------------------------------------------------

// R, on its way through the free of one block.
struct freeing {
    unsigned char *p;
    bool must_queue; // what step 3 found
};

static void step_1_tag(struct freeing *f) {
    if (FIRN_SAFE_LINK) {
        link_store((uintptr_t)f->p,
                   link_encode(small_slot(f->p), (uintptr_t)f->p, small_span(f->p)->secret));
    }
}

static void step_2_set(struct freeing *f) {
    unsigned slot = small_slot(f->p);
    uint64_t before = atomic_fetch_or(&small_span(f->p)->remote[slot / 64], span_bit(slot));
    NEED((before & span_bit(slot)) == 0);
}

static void step_3_exchange(struct freeing *f) {
    f->must_queue = atomic_exchange(&small_span(f->p)->pending, 1) == 0;
}

static void step_4_queue(struct freeing *f) {
    if (f->must_queue) {
        remote_deliver(small_span(f->p));
    }
}

static void (*const r_steps[R_STEPS])(struct freeing *) = {step_1_tag, step_2_set, step_3_exchange,
                                                           step_4_queue};

static void r_does(struct freeing *f, unsigned from, unsigned to) {
    for (unsigned i = from; i < to; i++) {
        r_steps[i](f);
    }
}

// O, on its way through a drain of its queue, as remote_drain does it.
struct draining {
    struct span *s;
    struct span *next;
};

static void o_does(struct draining *d, unsigned step) {
    switch (step) {
    case 0:
        d->s = atomic_exchange(&owner->pending, NULL);
        d->next = d->s != NULL ? atomic_load(&d->s->pending_next) : NULL;
        return;
    case 1:
        if (d->s != NULL) {
            span_unqueue(d->s);
        }
        return;
    case 2:
        if (d->s != NULL) {
            central_take_remote(d->s);
        }
        return;
    default:
        if (d->s != NULL) {
            cache_settle(owner, d->s);
            NEED(d->next == NULL);
        }
        return;
    }
}

// ---- what must be true at the end -------------------------------------------------------------

static bool is_free(const unsigned char *p) {
    unsigned slot = small_slot(p);
    const struct span *s = small_span(p);
    return !span_is_live(s, slot) && !span_is_remote(s, slot);
}

static void ensure_drained(unsigned blocks) {
    small_act_as(owner);
    remote_drain(owner);
    NEED(atomic_load(&owner->pending) == NULL);
    NEED(atomic_load(&span->pending) == 0);
    for (unsigned i = 0; i < BLOCKS; i++) {
        NEED(is_free(block[i]) == (i < blocks));
    }
    small_check();
}

// ---- orders of R and O ------------------------------------------------------------------------

// `order`: a bit a step, lowest first: whose turn it is.
static void one_order(void *context) {
    unsigned order = *(const unsigned *)context;
    struct freeing second = {.p = block[1]};
    struct draining d = {NULL, NULL};
    unsigned r = 0, o = 0;
    set_up();
    second.p = block[1];
    NEED(cache_free_remote(span, (uintptr_t)block[0])); // the span is queued
    for (unsigned i = 0; i < R_STEPS + O_STEPS; i++) {
        if ((order >> i & 1) != 0) {
            small_act_as(freer);
            r_steps[r++](&second);
        } else {
            small_act_as(owner);
            o_does(&d, o++);
        }
        NEED(!is_free(block[2]));
    }
    NEED(r == R_STEPS && o == O_STEPS);
    ensure_drained(2);
}

// Whatever the order of {2, 3} and {a, b}: either b sees the bit, or 3 queues the span again.
static void every_order_of_one_free_and_one_drain(void **state) {
    (void)state;
    unsigned orders = 0;
    for (unsigned order = 0; order < 1u << (R_STEPS + O_STEPS); order++) {
        if (__builtin_popcount(order) == R_STEPS) {
            assert_true(small_run(one_order, &order));
            orders++;
        }
    }
    assert_int_equal(orders, 70);
}

// Steps 2 to 4 of two frees and a, b and the taking of the queue: 9! / 3!^3 orders, in one heap.
static void one_order_of_three(const char turns[9]) {
    struct freeing f[2] = {{.p = block[1]}, {.p = block[2]}};
    struct draining d = {NULL, NULL};
    unsigned done[3] = {0, 0, 0};
    small_act_as(freer);
    NEED(cache_free_remote(span, (uintptr_t)block[0]));
    step_1_tag(&f[0]);
    step_1_tag(&f[1]);
    for (unsigned i = 0; i < 9; i++) {
        unsigned who = (unsigned)turns[i];
        if (who < 2) {
            r_steps[1 + done[who]++](&f[who]);
        } else {
            o_does(&d, done[2]++);
        }
    }
    o_does(&d, 3);
    ensure_drained(3);
    // Live again, for the next order.
    for (unsigned i = 0; i < 3; i++) {
        unsigned slot = small_slot(block[i]);
        span->free[slot / 64] &= ~span_bit(slot);
        span->free_count--;
        span_set_live(span, slot);
    }
    cache_settle(owner, span);
}

static unsigned permute(char turns[9], unsigned at, unsigned left[3]) {
    unsigned n = 0;
    if (at == 9) {
        one_order_of_three(turns);
        return 1;
    }
    for (unsigned who = 0; who < 3; who++) {
        if (left[who] > 0) {
            left[who]--;
            turns[at] = (char)who;
            n += permute(turns, at + 1, left);
            left[who]++;
        }
    }
    return n;
}

static void all_orders_of_three(void *context) {
    (void)context;
    char turns[9];
    unsigned left[3] = {3, 3, 3};
    set_up();
    NEED(permute(turns, 0, left) == 1680);
}

static void every_order_of_two_frees_and_one_drain(void **state) {
    (void)state;
    assert_true(small_run(all_orders_of_three, NULL));
}

// ---- the owner exits --------------------------------------------------------------------------

static void owner_exits(void) {
    small_act_as(owner);
    cache_detach(owner);
    NEED(atomic_load(&owner->pending) == CACHE_CLOSED);
    NEED(atomic_load(&span->owner) == NULL);
}

// A block of the same cell for `c`, which adopts the span. It may be one that was freed before.
static unsigned char *adopted;
static void adopt(struct cache *c) {
    small_act_as(c);
    adopted = heap_alloc(SIZE, site);
    NEED(adopted != NULL);
    NEED(atomic_load(&span->owner) == c);
}

// R is between steps when O exits. Who has the span afterwards has the block, too.
enum after { NOBODY, RECYCLED_IDLE, RECYCLED_ADOPTS, OTHER_ADOPTS, OTHER_AND_RECYCLED, AFTERS };
struct exit_case {
    unsigned before; // steps R has done
    enum after after;
};

static void one_exit(void *context) {
    const struct exit_case *e = context;
    struct cache *heir = NULL;
    set_up();
    struct freeing f = {.p = block[0]};
    r_does(&f, 0, e->before);
    owner_exits();
    if (e->after == OTHER_ADOPTS || e->after == OTHER_AND_RECYCLED) {
        adopt(heir = freer);
    }
    if (e->after == RECYCLED_IDLE || e->after == RECYCLED_ADOPTS ||
        e->after == OTHER_AND_RECYCLED) {
        NEED(small_attach() == owner);
    }
    if (e->after == RECYCLED_ADOPTS) {
        adopt(heir = owner);
    }
    small_act_as(freer);
    r_does(&f, e->before, R_STEPS);
    if (heir != NULL) {
        small_act_as(heir);
        remote_drain(heir);
    }
    NEED(is_free(block[0]) != (block[0] == adopted));
    NEED(!is_free(block[1]));
    NEED(atomic_load(&span->pending) == 0);
    small_check();
}

static void the_owner_may_exit_between_any_steps(void **state) {
    (void)state;
    for (unsigned before = 0; before <= R_STEPS; before++) {
        for (unsigned after = 0; after < AFTERS; after++) {
            struct exit_case e = {before, (enum after)after};
            if (!small_run(one_exit, &e)) {
                fail_msg("%u steps before, case %u", before, after);
            }
        }
    }
}

// R read the owner before O exited, and queues the span with a cache that has another thread now.
static void push_as_read(struct cache *read) {
    struct span *head = atomic_load(&read->pending);
    NEED(head != CACHE_CLOSED);
    atomic_store(&span->pending_next, head);
    NEED(atomic_compare_exchange_strong(&read->pending, &head, span));
}

static void one_stale_push(void *context) {
    const struct exit_case *e = context;
    struct cache *heir = NULL;
    set_up();
    struct freeing f = {.p = block[0]};
    r_does(&f, 0, 3);
    NEED(f.must_queue && atomic_load(&span->owner) == owner);
    owner_exits();
    NEED(small_attach() == owner);
    if (e->after == RECYCLED_ADOPTS) {
        adopt(heir = owner);
    } else if (e->after == OTHER_AND_RECYCLED) {
        adopt(heir = freer);
    }
    small_act_as(freer);
    push_as_read(owner);
    small_check(); // as it stands in the wrong queue, too
    small_act_as(owner);
    remote_drain(owner);
    if (heir != NULL && heir != owner) {
        small_act_as(heir);
        NEED(atomic_load(&heir->pending) == span);
        remote_drain(heir);
    }
    NEED(is_free(block[0]) != (block[0] == adopted));
    NEED(atomic_load(&span->pending) == 0);
    small_check();
}

static void a_recycled_cache_passes_on_what_is_not_its_own(void **state) {
    (void)state;
    static const enum after afters[] = {RECYCLED_IDLE, RECYCLED_ADOPTS, OTHER_AND_RECYCLED};
    for (unsigned i = 0; i < sizeof afters / sizeof *afters; i++) {
        struct exit_case e = {3, afters[i]};
        assert_true(small_run(one_stale_push, &e));
    }
}

// The same, but the cache with the new thread exits in its turn, with the span in its queue.
static void stale_push_then_exit(void *context) {
    (void)context;
    set_up();
    struct freeing f = {.p = block[0]};
    r_does(&f, 0, 3);
    owner_exits();
    NEED(small_attach() == owner);
    push_as_read(owner);
    owner_exits();
    NEED(is_free(block[0]));
    NEED(atomic_load(&span->pending) == 0);
    small_check();
}

static void a_closing_queue_passes_on_what_it_holds(void **state) {
    (void)state;
    assert_true(small_run(stale_push_then_exit, NULL));
}

// Everything freed by others after the owner is gone: the span is empty, and central has it.
static void free_all_after_exit(void *context) {
    (void)context;
    struct central_stats stats;
    set_up();
    owner_exits();
    small_act_as(freer);
    for (unsigned slot = 0; slot < span_class(span)->slots; slot++) {
        if (span_is_live(span, slot)) {
            NEED(cache_free_remote(span, span_base(span) + slot * (uintptr_t)SIZE));
        }
    }
    NEED(span_state(span) == SPAN_DIRTY);
    NEED(span_count_live(span) == 0);
    central_stats(root_cell_class(span->cell), &stats);
    NEED(stats.dirty_spans >= 1);
    small_check();
}

static void the_last_free_empties_an_ownerless_span(void **state) {
    (void)state;
    assert_true(small_run(free_all_after_exit, NULL));
}

// ---- forked child -----------------------------------------------------------------------------

// R alone is in the child: it delivers to an owner whose thread is not there.
static void in_child_of_fork(void *context) {
    unsigned before = *(const unsigned *)context;
    int status;
    set_up();
    struct freeing f = {.p = block[0]};
    r_does(&f, 0, before == R_STEPS ? before : 0);
    pid_t pid = fork();
    if (pid == 0) {
        NEED(atomic_load(&owner->is_dead) && !atomic_load(&freer->is_dead));
        heap_free(block[1], site);
        if (before == 0) {
            heap_free(block[0], site);
        }
        small_check(); // recovers, if that is still due
        NEED(is_free(block[0]) && is_free(block[1]) && !is_free(block[2]));
        NEED(atomic_load(&span->owner) == NULL);
        _exit(0);
    }
    NEED(waitpid(pid, &status, 0) == pid && status == 0);
    r_does(&f, before == R_STEPS ? before : 0, R_STEPS);
    ensure_drained(1);
}

static void a_dead_owners_span_is_recovered(void **state) {
    (void)state;
    for (unsigned before = 0; before <= R_STEPS; before += R_STEPS) {
        assert_true(small_run(in_child_of_fork, &before));
    }
}

// ---- double frees -----------------------------------------------------------------------------

enum who { OWNER, FREER, THIRD, DRAIN };

static void free_as(enum who who) {
    static struct cache *third;
    if (who == THIRD && third == NULL) {
        third = small_attach();
    }
    small_act_as(who == OWNER || who == DRAIN ? owner : who == FREER ? freer : third);
    if (who == DRAIN) {
        remote_drain(owner);
    } else {
        heap_free(block[0], site);
    }
}

static void free_twice(void *context) {
    const enum who *order = context;
    set_up();
    free_as(order[0]);
    if (order[1] == DRAIN) {
        free_as(DRAIN);
    }
    free_as(order[2]);
    remote_drain(owner);
}

static void a_second_free_is_found_whoever_does_it(void **state) {
    (void)state;
    if (!FIRN_CHECK_FREE) {
        skip();
    }
    for (unsigned first = OWNER; first <= FREER; first++) {
        for (unsigned second = OWNER; second <= THIRD; second++) {
            for (unsigned drained = 0; drained < 2; drained++) {
                enum who order[3] = {(enum who)first, drained ? DRAIN : OWNER, (enum who)second};
                if (!small_run_aborts(free_twice, order, "firn: double-free: free(")) {
                    fail_msg("first %u, second %u, drained %u", first, second, drained);
                }
            }
        }
    }
}

// Both threads saw the slot live; one of them sets the bit first.
static void race_for_the_bit(void *context) {
    (void)context;
    set_up();
    struct freeing f = {.p = block[0]};
    r_does(&f, 0, 2);
    NEED(!cache_free_remote(span, (uintptr_t)block[0]));
    r_does(&f, 2, R_STEPS);
    ensure_drained(1);
}

static void of_two_remote_frees_one_is_refused(void **state) {
    (void)state;
    if (!FIRN_CHECK_FREE) {
        skip();
    }
    assert_true(small_run(race_for_the_bit, NULL));
}

// The owner freed the block while R was on its way: the owner finds the bit on a slot not live.
static void local_free_overtakes(void *context) {
    (void)context;
    set_up();
    struct freeing f = {.p = block[0]};
    small_act_as(owner);
    heap_free(block[0], site);
    small_act_as(freer);
    r_does(&f, 0, R_STEPS);
    small_act_as(owner);
    remote_drain(owner);
}

static void a_remote_free_of_what_the_owner_freed_is_found(void **state) {
    (void)state;
    assert_true(small_run_aborts(local_free_overtakes, NULL, "firn: double-free: free("));
}

// ---- overwritten tags -------------------------------------------------------------------------

static void overwrite(void *context) {
    unsigned byte = *(const unsigned *)context;
    set_up();
    NEED(cache_free_remote(span, (uintptr_t)block[0]));
    block[0][byte] ^= 0x10;
    small_act_as(owner);
    remote_drain(owner);
}

static void a_write_after_a_remote_free_is_found(void **state) {
    (void)state;
    if (!FIRN_SAFE_LINK) {
        skip();
    }
    for (unsigned byte = 0; byte < 8; byte++) {
        assert_true(small_run_aborts(overwrite, &byte, "firn: corrupt-link: free("));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_order_of_one_free_and_one_drain),
        cmocka_unit_test(every_order_of_two_frees_and_one_drain),
        cmocka_unit_test(the_owner_may_exit_between_any_steps),
        cmocka_unit_test(a_recycled_cache_passes_on_what_is_not_its_own),
        cmocka_unit_test(a_closing_queue_passes_on_what_it_holds),
        cmocka_unit_test(the_last_free_empties_an_ownerless_span),
        cmocka_unit_test(a_dead_owners_span_is_recovered),
        cmocka_unit_test(a_second_free_is_found_whoever_does_it),
        cmocka_unit_test(of_two_remote_frees_one_is_refused),
        cmocka_unit_test(a_remote_free_of_what_the_owner_freed_is_found),
        cmocka_unit_test(a_write_after_a_remote_free_is_found),
    };
    return cmocka_run_group_tests(tests, small_start, NULL);
}
