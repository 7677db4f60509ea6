#include "src/cold/age.h"

#include "src/cold/refault.h"

#include <stdatomic.h>

enum {
    LOOKS = 4,      // in the age at which a page is frozen
    IDLE_LOOKS = 2, // without a write, before a page is staged
    LEAST_MS = 100, // between two looks
    PRESSED_MS = 10000,
    PRESSED_DUE_MS = 1000 // in the staging area, at most
};

static uint64_t look_ms = 30000;
static uint64_t pressed_ms; // until then
static struct refault refaults;
static _Atomic bool is_new; // what came back under another age says nothing
static struct { _Atomic uint64_t last_minute, idle_ms, presses; } figures;

static unsigned factor(void) {
    return refaults.age != 0 ? refaults.age : REFAULT_ONE;
}

static void publish(void) {
    atomic_store_explicit(&figures.idle_ms, LOOKS * look_ms * factor() / REFAULT_ONE,
                          memory_order_relaxed);
}

void age_configure(uint64_t after_ms) {
    look_ms = after_ms / LOOKS > LEAST_MS ? after_ms / LOOKS : LEAST_MS;
    atomic_store_explicit(&is_new, true, memory_order_relaxed);
    publish();
}

uint64_t age_look_ms(void) {
    return look_ms;
}

static bool is_pressed(uint64_t now_ms) {
    return now_ms < pressed_ms;
}

bool age_is_idle(unsigned looks, uint64_t now_ms) {
    return is_pressed(now_ms) ? looks > 0 : looks * REFAULT_ONE >= IDLE_LOOKS * factor();
}

bool age_is_over(unsigned looks, uint64_t now_ms) {
    return is_pressed(now_ms) ? looks > 0 : looks * REFAULT_ONE >= LOOKS * factor();
}

uint64_t age_due_ms(uint64_t now_ms) {
    uint64_t ms = (LOOKS - IDLE_LOOKS) * look_ms * factor() / REFAULT_ONE;
    return now_ms + (is_pressed(now_ms) && ms > PRESSED_DUE_MS ? PRESSED_DUE_MS : ms);
}

uint64_t age_step_ms(uint64_t now_ms) {
    uint64_t step = look_ms / 4 > 20 ? look_ms / 4 : 20;
    return is_pressed(now_ms) && step > PRESSED_DUE_MS / 4 ? PRESSED_DUE_MS / 4 : step;
}

void age_note(uint64_t now_ms, uint64_t waited, uint64_t pages) {
    if (atomic_exchange_explicit(&is_new, false, memory_order_relaxed)) {
        refaults.age = 0;
    }
    (void)refault_note(&refaults, now_ms, waited, pages);
    atomic_store_explicit(&figures.last_minute, refault_last_minute(&refaults, waited),
                          memory_order_relaxed);
    publish();
}

void age_press(uint64_t now_ms) {
    pressed_ms = now_ms + PRESSED_MS;
    atomic_fetch_add_explicit(&figures.presses, 1, memory_order_relaxed);
}

void age_figures(struct age_figures *out) {
    out->last_minute = atomic_load_explicit(&figures.last_minute, memory_order_relaxed);
    out->idle_ms = atomic_load_explicit(&figures.idle_ms, memory_order_relaxed);
    out->presses = atomic_load_explicit(&figures.presses, memory_order_relaxed);
}
