#include "src/cold/refault.h"

static void begin(struct refault *r, uint64_t now_ms, uint64_t total) {
    for (unsigned i = 0; i < REFAULT_STEPS; i++) {
        r->totals[i] = total;
    }
    r->next = 0;
    r->step_ms = r->change_ms = now_ms;
    r->base = total;
    r->age = REFAULT_ONE;
}

uint64_t refault_last_minute(const struct refault *r, uint64_t total) {
    return r->age != 0 ? total - r->totals[r->next] : 0;
}

static void step(struct refault *r, uint64_t now_ms, uint64_t total) {
    for (unsigned i = 0; i < REFAULT_STEPS && now_ms - r->step_ms >= REFAULT_STEP_MS; i++) {
        r->totals[r->next] = total;
        r->next = (r->next + 1) % REFAULT_STEPS;
        r->step_ms += REFAULT_STEP_MS;
    }
    if (now_ms - r->step_ms >= REFAULT_STEP_MS) { // it slept for longer than what is known
        r->step_ms = now_ms;
    }
}

unsigned refault_note(struct refault *r, uint64_t now_ms, uint64_t total, uint64_t pages) {
    if (r->age == 0) {
        begin(r, now_ms, total);
    }
    step(r, now_ms, total);
    uint64_t allowed = pages / REFAULT_PARTS;
    allowed = allowed > REFAULT_FEW ? allowed : REFAULT_FEW;
    uint64_t minute = refault_last_minute(r, total), since = total - r->base;
    // What was the reason for one change is not that for the next.
    uint64_t many = minute < since ? minute : since;
    if (many > allowed) {
        r->age = r->age < REFAULT_MOST / 2 ? 2 * r->age : REFAULT_MOST;
        r->base = total;
        r->change_ms = now_ms;
    } else if (r->age > REFAULT_ONE && now_ms - r->change_ms >= REFAULT_SETTLE_MS) {
        unsigned less = r->age - r->age / 4;
        r->age = less > REFAULT_ONE ? less : REFAULT_ONE;
        r->change_ms = now_ms;
    }
    return r->age;
}
