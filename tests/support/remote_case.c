#include "tests/support/remote_case.h"

#include "hardening/link.h"
#include "src/cache/remote.h"
#include "src/heap/heap.h"
#include "src/slab/central.h"
#include "tests/support/small_case.h"

struct remote_case remote_case = {.site = 0x401000};

void remote_set_up(void) {
    struct remote_case *r = &remote_case;
    r->owner = small_attach();
    r->freer = small_attach();
    NEED(r->owner != NULL && r->freer != NULL && r->owner != r->freer);
    small_act_as(r->owner);
    unsigned have = 0;
    for (unsigned i = 0; i < 10000 && have < REMOTE_BLOCKS; i++) {
        unsigned char *p = heap_alloc(REMOTE_SIZE, r->site);
        NEED(p != NULL);
        if (have == 0 || small_span(p) == small_span(r->block[0])) {
            r->block[have++] = p;
        }
    }
    NEED(have == REMOTE_BLOCKS);
    r->span = small_span(r->block[0]);
    NEED(atomic_load(&r->span->owner) == r->owner);
    small_act_as(r->freer);
}

static void step_1_tag(struct freeing *f) {
    slot_wipe((uintptr_t)f->p, span_class(small_span(f->p))->bytes);
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
    f->must_queue = span_mark_pending(small_span(f->p));
}

static void step_4_queue(struct freeing *f) {
    if (f->must_queue) {
        remote_deliver(small_span(f->p));
    }
}

void remote_r_does(struct freeing *f, unsigned from, unsigned to) {
    static void (*const steps[R_STEPS])(struct freeing *) = {step_1_tag, step_2_set,
                                                             step_3_exchange, step_4_queue};
    for (unsigned i = from; i < to; i++) {
        steps[i](f);
    }
}

void remote_o_does(struct draining *d, unsigned step) {
    struct cache *owner = remote_case.owner;
    if (step == 0) {
        d->s = atomic_exchange(&owner->pending, NULL);
        d->next = d->s != NULL ? atomic_load(&d->s->pending_next) : NULL;
    } else if (d->s != NULL && step == 1) {
        span_unqueue(d->s);
    } else if (d->s != NULL && step == 2) {
        central_take_remote(d->s);
    } else if (d->s != NULL) {
        cache_settle(owner, d->s);
        NEED(d->next == NULL);
    }
}

bool remote_is_free(const unsigned char *p) {
    unsigned slot = small_slot(p);
    const struct span *s = small_span(p);
    return !span_is_live(s, slot) && !span_is_remote(s, slot);
}

void remote_ensure_drained(unsigned blocks) {
    const struct remote_case *r = &remote_case;
    small_act_as(r->owner);
    remote_drain(r->owner);
    NEED(atomic_load(&r->owner->pending) == NULL);
    NEED(span_pending(r->span) == 0);
    for (unsigned i = 0; i < REMOTE_BLOCKS; i++) {
        NEED(remote_is_free(r->block[i]) == (i < blocks));
    }
    small_check();
}

void remote_adopt(struct cache *c) {
    struct remote_case *r = &remote_case;
    small_act_as(c);
    for (unsigned i = 0; i < 10000 && (i == 0 || atomic_load(&r->span->owner) != c); i++) {
        r->adopted = heap_alloc(REMOTE_SIZE, r->site);
        NEED(r->adopted != NULL);
    }
    NEED(atomic_load(&r->span->owner) == c);
}
