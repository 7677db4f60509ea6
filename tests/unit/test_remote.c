// Frees by threads that do not own the span: the interleavings of remote.h, each forced by doing the
// steps of all the threads in one, in every order.
#include "src/cache/remote.h"

#include "hardening/link.h"
#include "src/cache/quarantine.h"
#include "src/heap/heap.h"
#include "src/slab/central.h"
#include "tests/support/remote_case.h"
#include "tests/support/small_case.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

static struct remote_case *const t = &remote_case;

// ---- orders of R and O ------------------------------------------------------------------------

// `order`: a bit a step, lowest first: whose turn it is.
static void one_order(void *context) {
    unsigned order = *(const unsigned *)context;
    struct freeing second = {.p = t->block[1]};
    struct draining d = {NULL, NULL};
    unsigned r = 0, o = 0;
    remote_set_up();
    second.p = t->block[1];
    NEED(cache_free_remote(t->span, (uintptr_t)t->block[0])); // the span is queued
    for (unsigned i = 0; i < R_STEPS + O_STEPS; i++) {
        if ((order >> i & 1) != 0) {
            small_act_as(t->freer);
            remote_r_does(&second, r, r + 1);
            r++;
        } else {
            small_act_as(t->owner);
            remote_o_does(&d, o++);
        }
        NEED(!remote_is_free(t->block[2]));
    }
    NEED(r == R_STEPS && o == O_STEPS);
    remote_ensure_drained(2);
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
    struct freeing f[2] = {{.p = t->block[1]}, {.p = t->block[2]}};
    struct draining d = {NULL, NULL};
    unsigned done[3] = {0, 0, 0};
    small_act_as(t->freer);
    NEED(cache_free_remote(t->span, (uintptr_t)t->block[0]));
    remote_r_does(&f[0], 0, 1);
    remote_r_does(&f[1], 0, 1);
    for (unsigned i = 0; i < 9; i++) {
        unsigned who = (unsigned)turns[i];
        if (who < 2) {
            remote_r_does(&f[who], 1 + done[who], 2 + done[who]);
            done[who]++;
        } else {
            remote_o_does(&d, done[2]++);
        }
    }
    remote_o_does(&d, 3);
    remote_ensure_drained(3);
    // Live again, for the next order.
    quarantine_flush(t->owner);
    for (unsigned i = 0; i < 3; i++) {
        unsigned slot = small_slot(t->block[i]);
        t->span->free[slot / 64] &= ~span_bit(slot);
        t->span->free_count--;
        span_set_live(t->span, slot);
    }
    cache_settle(t->owner, t->span);
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
    remote_set_up();
    NEED(permute(turns, 0, left) == 1680);
}

static void every_order_of_two_frees_and_one_drain(void **state) {
    (void)state;
    assert_true(small_run(all_orders_of_three, NULL));
}

// The same through remote_drain itself: R frees when O has exchanged the word and checks what was in it.
static bool is_done;

static bool free_another(const struct span *s, unsigned slot, uintptr_t address) {
    NEED(s == t->span && slot == small_slot(t->block[0]) && address == (uintptr_t)t->block[0]);
    if (!is_done) {
        is_done = true;
        NEED(cache_free_remote(t->span, (uintptr_t)t->block[1]));
    }
    return true;
}

static bool nobody_is_dead(const struct cache *c) {
    (void)c;
    return false;
}

static void free_amid_drain(void *context) {
    (void)context;
    remote_set_up();
    NEED(cache_free_remote(t->span, (uintptr_t)t->block[0]));
    small_act_as(t->owner);
    central_set_hooks(nobody_is_dead, free_another);
    remote_drain(t->owner);
    NEED(is_done);
    central_set_hooks(nobody_is_dead, NULL);
    remote_ensure_drained(2);
}

static void a_free_amid_a_drain_queues_the_span_again(void **state) {
    (void)state;
    assert_true(small_run(free_amid_drain, NULL));
}

// ---- the owner exits --------------------------------------------------------------------------

static void owner_exits(void) {
    small_act_as(t->owner);
    cache_detach(t->owner);
    NEED(atomic_load(&t->owner->pending) == CACHE_CLOSED);
    NEED(atomic_load(&t->span->owner) == NULL);
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
    remote_set_up();
    struct freeing f = {.p = t->block[0]};
    remote_r_does(&f, 0, e->before);
    owner_exits();
    if (e->after == OTHER_ADOPTS || e->after == OTHER_AND_RECYCLED) {
        remote_adopt(heir = t->freer);
    }
    if (e->after == RECYCLED_IDLE || e->after == RECYCLED_ADOPTS ||
        e->after == OTHER_AND_RECYCLED) {
        NEED(small_attach() == t->owner);
    }
    if (e->after == RECYCLED_ADOPTS) {
        remote_adopt(heir = t->owner);
    }
    small_act_as(t->freer);
    remote_r_does(&f, e->before, R_STEPS);
    if (heir != NULL) {
        small_act_as(heir);
        remote_drain(heir);
    }
    NEED(remote_is_free(t->block[0]) != (t->block[0] == t->adopted));
    NEED(!remote_is_free(t->block[1]));
    NEED(span_pending(t->span) == 0);
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
    atomic_store(&t->span->pending_next, head);
    NEED(atomic_compare_exchange_strong(&read->pending, &head, t->span));
}

static void one_stale_push(void *context) {
    const struct exit_case *e = context;
    struct cache *heir = NULL;
    remote_set_up();
    struct freeing f = {.p = t->block[0]};
    remote_r_does(&f, 0, 3);
    NEED(f.must_queue && atomic_load(&t->span->owner) == t->owner);
    owner_exits();
    NEED(small_attach() == t->owner);
    if (e->after == RECYCLED_ADOPTS) {
        remote_adopt(heir = t->owner);
    } else if (e->after == OTHER_AND_RECYCLED) {
        remote_adopt(heir = t->freer);
    }
    small_act_as(t->freer);
    push_as_read(t->owner);
    small_check(); // as it stands in the wrong queue, too
    small_act_as(t->owner);
    remote_drain(t->owner);
    if (heir != NULL && heir != t->owner) {
        small_act_as(heir);
        NEED(atomic_load(&heir->pending) == t->span);
        remote_drain(heir);
    }
    NEED(remote_is_free(t->block[0]) != (t->block[0] == t->adopted));
    NEED(span_pending(t->span) == 0);
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
    remote_set_up();
    struct freeing f = {.p = t->block[0]};
    remote_r_does(&f, 0, 3);
    owner_exits();
    NEED(small_attach() == t->owner);
    push_as_read(t->owner);
    owner_exits();
    NEED(remote_is_free(t->block[0]));
    NEED(span_pending(t->span) == 0);
    small_check();
}

static void a_closing_queue_passes_on_what_it_holds(void **state) {
    (void)state;
    assert_true(small_run(stale_push_then_exit, NULL));
}

// A stale push that comes after the last drain, and before the queue is closed.
static void push_before_close(void *context) {
    (void)context;
    remote_set_up();
    struct freeing f = {.p = t->block[0]};
    remote_r_does(&f, 0, 3);
    owner_exits();
    NEED(small_attach() == t->owner);
    push_as_read(t->owner);
    remote_close(t->owner);
    NEED(atomic_load(&t->owner->pending) == CACHE_CLOSED);
    NEED(remote_is_free(t->block[0]));
    NEED(span_pending(t->span) == 0);
    small_check();
}

static void closing_passes_on_what_came_last(void **state) {
    (void)state;
    assert_true(small_run(push_before_close, NULL));
}

// Everything freed by others after the owner is gone: the span is empty, and central has it.
static void free_all_after_exit(void *context) {
    (void)context;
    struct central_stats stats;
    remote_set_up();
    owner_exits();
    small_act_as(t->freer);
    for (unsigned slot = 0; slot < span_class(t->span)->slots; slot++) {
        if (span_is_live(t->span, slot)) {
            NEED(cache_free_remote(t->span, span_base(t->span) +
                                                slot * (uintptr_t)span_class(t->span)->bytes));
        }
    }
    NEED(span_state(t->span) == SPAN_DIRTY);
    NEED(span_count_live(t->span) == 0);
    central_stats(root_cell_class(t->span->cell), &stats);
    NEED(stats.dirty_spans >= 1);
    small_check();
}

static void the_last_free_empties_an_ownerless_span(void **state) {
    (void)state;
    assert_true(small_run(free_all_after_exit, NULL));
}

// ---- double frees -----------------------------------------------------------------------------

enum who { OWNER, FREER, THIRD, DRAIN };

static void free_as(enum who who) {
    static struct cache *third;
    if (who == THIRD && third == NULL) {
        third = small_attach();
    }
    small_act_as(who == OWNER || who == DRAIN ? t->owner : who == FREER ? t->freer : third);
    if (who == DRAIN) {
        remote_drain(t->owner);
    } else {
        heap_free(t->block[0], t->site);
    }
}

static void free_twice(void *context) {
    const enum who *order = context;
    remote_set_up();
    free_as(order[0]);
    if (order[1] == DRAIN) {
        free_as(DRAIN);
    }
    free_as(order[2]);
    remote_drain(t->owner);
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
    remote_set_up();
    struct freeing f = {.p = t->block[0]};
    remote_r_does(&f, 0, 2);
    NEED(!cache_free_remote(t->span, (uintptr_t)t->block[0]));
    remote_r_does(&f, 2, R_STEPS);
    remote_ensure_drained(1);
}

static void of_two_remote_frees_one_is_refused(void **state) {
    (void)state;
    if (!FIRN_CHECK_FREE) {
        skip();
    }
    assert_true(small_run(race_for_the_bit, NULL));
}

// The same through cache_free_remote itself: its write of the tag faults, and in the handler the other
// thread frees the block.
static void free_in_handler(int signal_number) {
    (void)signal_number;
    uintptr_t page = (uintptr_t)t->block[0] & ~(uintptr_t)(FIRN_PAGE - 1);
    NEED(!is_done);
    is_done = true;
    NEED(mprotect((void *)page, FIRN_PAGE, PROT_READ | PROT_WRITE) == 0);
    NEED(cache_free_remote(t->span, (uintptr_t)t->block[0]));
}

static void free_amid_free(void *context) {
    (void)context;
    remote_set_up();
    uintptr_t page = (uintptr_t)t->block[0] & ~(uintptr_t)(FIRN_PAGE - 1);
    signal(SIGSEGV, free_in_handler);
    NEED(mprotect((void *)page, FIRN_PAGE, PROT_READ) == 0);
    NEED(!cache_free_remote(t->span, (uintptr_t)t->block[0]));
    NEED(is_done);
    remote_ensure_drained(1);
}

static void of_two_frees_at_once_one_is_refused(void **state) {
    (void)state;
    if (!FIRN_CHECK_FREE || !FIRN_SAFE_LINK) {
        skip();
    }
    assert_true(small_run(free_amid_free, NULL));
}

// The second of two frees leaves the block alone: the owner may have handed it out again.
static void write_nothing(void *context) {
    (void)context;
    remote_set_up();
    NEED(cache_free_remote(t->span, (uintptr_t)t->block[0]));
    link_store((uintptr_t)t->block[0], 0x1234);
    NEED(!cache_free_remote(t->span, (uintptr_t)t->block[0]));
    NEED(link_load((uintptr_t)t->block[0]) == 0x1234);
}

static void a_refused_free_writes_nothing(void **state) {
    (void)state;
    if (!FIRN_CHECK_FREE) {
        skip();
    }
    assert_true(small_run(write_nothing, NULL));
}

// The owner freed the block while R was on its way: the owner finds the bit on a slot not live.
static void local_free_overtakes(void *context) {
    (void)context;
    remote_set_up();
    struct freeing f = {.p = t->block[0]};
    small_act_as(t->owner);
    heap_free(t->block[0], t->site);
    small_act_as(t->freer);
    remote_r_does(&f, 0, R_STEPS);
    small_act_as(t->owner);
    remote_drain(t->owner);
}

static void a_remote_free_of_what_the_owner_freed_is_found(void **state) {
    (void)state;
    assert_true(small_run_aborts(local_free_overtakes, NULL, "firn: double-free: "));
}

// ---- overwritten tags -------------------------------------------------------------------------

static void overwrite(void *context) {
    unsigned byte = *(const unsigned *)context;
    remote_set_up();
    NEED(cache_free_remote(t->span, (uintptr_t)t->block[0]));
    t->block[0][byte] ^= 0x10;
    small_act_as(t->owner);
    remote_drain(t->owner);
}

static void a_write_after_a_remote_free_is_found(void **state) {
    (void)state;
    if (!FIRN_SAFE_LINK) {
        skip();
    }
    for (unsigned byte = 0; byte < 8; byte++) {
        assert_true(small_run_aborts(overwrite, &byte, "firn: corrupt-link: "));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_order_of_one_free_and_one_drain),
        cmocka_unit_test(every_order_of_two_frees_and_one_drain),
        cmocka_unit_test(a_free_amid_a_drain_queues_the_span_again),
        cmocka_unit_test(the_owner_may_exit_between_any_steps),
        cmocka_unit_test(a_recycled_cache_passes_on_what_is_not_its_own),
        cmocka_unit_test(a_closing_queue_passes_on_what_it_holds),
        cmocka_unit_test(closing_passes_on_what_came_last),
        cmocka_unit_test(the_last_free_empties_an_ownerless_span),
        cmocka_unit_test(a_second_free_is_found_whoever_does_it),
        cmocka_unit_test(of_two_remote_frees_one_is_refused),
        cmocka_unit_test(of_two_frees_at_once_one_is_refused),
        cmocka_unit_test(a_refused_free_writes_nothing),
        cmocka_unit_test(a_remote_free_of_what_the_owner_freed_is_found),
        cmocka_unit_test(a_write_after_a_remote_free_is_found),
    };
    return cmocka_run_group_tests(tests, small_start, NULL);
}
