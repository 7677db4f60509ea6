// Page states: the table is the one of the design, every pair of states is tried against it, and
// concurrent movers agree on who moved a page.
#include "src/meta/page_state.h"

#include "src/meta/root.h"
#include "src/os/caps.h"
#include "tests/support/child.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { THREADS = 4, ROUNDS = 20000, TABLE_PAGES = 1024 };

static uintptr_t base;

static int start(void **state) {
    (void)state;
    caps_probe(~0u);
    if (!root_start()) {
        return 1;
    }
    base = FIRN_ROOT.data.base;
    return 0;
}

// The drawing of the design, by names, so that a slip in the table's bits shows.
static const char *const legal[] = {
    "fresh resident",   "resident fresh", "resident tracked", "resident meshing", "tracked fresh",
    "tracked resident", "tracked staged", "tracked meshing",  "staged fresh",     "staged frozen",
    "staged thawing",   "frozen fresh",   "frozen thawing",   "thawing resident", "thawing frozen",
    "thawing staged",   "thawing meshed", "meshing fresh",    "meshing resident", "meshing meshed",
    "meshed meshing",   "meshed staged",  "meshed frozen",
};

static bool is_in_drawing(enum page_state from, enum page_state to) {
    char edge[64];
    snprintf(edge, sizeof edge, "%s %s", page_state_name(from), page_state_name(to));
    for (size_t i = 0; i < sizeof legal / sizeof legal[0]; i++) {
        if (strcmp(edge, legal[i]) == 0) {
            return true;
        }
    }
    return false;
}

// A way from PAGE_FRESH to each state, along legal edges.
static void bring_to(uintptr_t page, enum page_state to) {
    static const enum page_state before[PAGE_STATES] = {
        [PAGE_RESIDENT] = PAGE_FRESH, [PAGE_TRACKED] = PAGE_RESIDENT,
        [PAGE_STAGED] = PAGE_TRACKED, [PAGE_FROZEN] = PAGE_STAGED,
        [PAGE_THAWING] = PAGE_STAGED, [PAGE_MESHING] = PAGE_RESIDENT,
        [PAGE_MESHED] = PAGE_MESHING,
    };
    assert_true(page_state_prepare(page, FIRN_PAGE));
    if (to != PAGE_FRESH) {
        bring_to(page, before[to]);
        assert_true(page_state_move(page, before[to], to));
    }
}

static void table_is_the_drawing(void **state) {
    (void)state;
    size_t edges = 0;
    for (unsigned from = 0; from < PAGE_STATES; from++) {
        for (unsigned to = 0; to < PAGE_STATES; to++) {
            bool is_edge = page_state_is_edge((enum page_state)from, (enum page_state)to);
            assert_int_equal(is_edge, is_in_drawing((enum page_state)from, (enum page_state)to));
            edges += is_edge;
        }
        assert_false(page_state_is_edge((enum page_state)from, (enum page_state)from));
    }
    assert_int_equal(edges, sizeof legal / sizeof legal[0]);
}

struct attempt {
    uintptr_t page;
    enum page_state from, to;
};

static void attempt_move(void *context) {
    const struct attempt *a = context;
    if (page_state_move(a->page, a->from, a->to)) {
        _exit(1);
    }
}

// From every state along every edge, legal or not, and from the wrong state along every legal one.
static void every_move_is_judged(void **state) {
    (void)state;
    uintptr_t page = base + ((uintptr_t)1 << 30);
    for (unsigned i = 0; i < PAGE_STATES * PAGE_STATES * PAGE_STATES; i++, page += FIRN_PAGE) {
        enum page_state now = (enum page_state)(i % PAGE_STATES);
        struct attempt a = {page, (enum page_state)(i / PAGE_STATES % PAGE_STATES),
                            (enum page_state)(i / PAGE_STATES / PAGE_STATES)};
        bring_to(page, now);
        if (page_state_is_edge(a.from, a.to)) {
            assert_int_equal(page_state_move(page, a.from, a.to), now == a.from);
            assert_int_equal(page_state_get(page), now == a.from ? a.to : now);
        } else if (now == a.from) {
            struct child c;
            child_run(&c, attempt_move, &a);
            assert_true(child_died_of(&c, SIGABRT));
            assert_non_null(strstr(c.said, "firn: internal-error: "));
            assert_non_null(strstr(c.said, "not is_legal"));
            assert_int_equal(page_state_get(page), now);
        }
    }
}

static void pages_nobody_prepared_are_fresh(void **state) {
    (void)state;
    uintptr_t end = base + FIRN_ROOT.data.bytes;
    assert_int_equal(page_state_get(base + FIRN_ROOT.data.bytes / 3), PAGE_FRESH);
    assert_int_equal(page_state_get(0), PAGE_FRESH);
    assert_int_equal(page_state_get(base - 1), PAGE_FRESH);
    assert_int_equal(page_state_get(end), PAGE_FRESH);
    assert_int_equal(page_state_get(UINTPTR_MAX), PAGE_FRESH);
    bring_to(end - FIRN_PAGE, PAGE_MESHED);
    assert_int_equal(page_state_get(end - 1), PAGE_MESHED);
    assert_int_equal(page_state_get(end - FIRN_PAGE - 1), PAGE_FRESH);
}

static void ranges_move_whole_or_not(void **state) {
    (void)state;
    // Across the border of two tables.
    uintptr_t first = base + ((uintptr_t)2 << 30) - 4 * FIRN_PAGE;
    assert_true(page_state_prepare(first, 8 * FIRN_PAGE));
    assert_true(page_state_move_range(first, 8 * FIRN_PAGE, PAGE_FRESH, PAGE_RESIDENT));
    assert_true(page_state_move(first + 6 * FIRN_PAGE, PAGE_RESIDENT, PAGE_TRACKED));
    assert_false(page_state_move_range(first, 8 * FIRN_PAGE, PAGE_RESIDENT, PAGE_MESHING));
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(page_state_get(first + i * FIRN_PAGE),
                         i == 6 ? PAGE_TRACKED : PAGE_RESIDENT);
    }
    assert_true(page_state_move(first + 6 * FIRN_PAGE, PAGE_TRACKED, PAGE_RESIDENT));
    assert_true(page_state_move_range(first, 8 * FIRN_PAGE, PAGE_RESIDENT, PAGE_MESHING));
    assert_int_equal(page_state_get(first + 7 * FIRN_PAGE), PAGE_MESHING);
}

static uintptr_t contested;
static atomic_uint holders, wins;
static atomic_bool was_shared;

// MESHING is held by one at a time.
static void *contend(void *unused) {
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (page_state_move(contested, PAGE_RESIDENT, PAGE_MESHING)) {
            if (atomic_fetch_add(&holders, 1) != 0) {
                was_shared = true;
            }
            wins++;
            atomic_fetch_sub(&holders, 1);
            if (!page_state_move(contested, PAGE_MESHING, PAGE_RESIDENT)) {
                was_shared = true;
            }
        }
    }
    return unused;
}

static void one_mover_wins(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    contested = base + ((uintptr_t)5 << 30);
    bring_to(contested, PAGE_RESIDENT);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, contend, NULL), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_false(was_shared);
    assert_true(wins > 0);
    assert_int_equal(page_state_get(contested), PAGE_RESIDENT);
}

static void *prepare_many(void *unused) {
    for (uintptr_t i = 0; i < 64; i++) {
        if (!page_state_prepare(base + ((uintptr_t)9 << 30) + i * TABLE_PAGES * FIRN_PAGE,
                                FIRN_PAGE)) {
            was_shared = true;
        }
    }
    return unused;
}

static void tables_are_made_once(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, prepare_many, NULL), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_false(was_shared);
    bring_to(base + ((uintptr_t)9 << 30), PAGE_MESHED);
    assert_null(prepare_many(NULL));
    assert_int_equal(page_state_get(base + ((uintptr_t)9 << 30)), PAGE_MESHED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_the_drawing),
        cmocka_unit_test(every_move_is_judged),
        cmocka_unit_test(pages_nobody_prepared_are_fresh),
        cmocka_unit_test(ranges_move_whole_or_not),
        cmocka_unit_test(one_mover_wins),
        cmocka_unit_test(tables_are_made_once),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
