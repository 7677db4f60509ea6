// When a page counts as idle: how often it is looked at, for how long it must not have been touched, and what
// changes that: pages that come back too often (refault.h), and want of memory.
//
// All of it is the freezing thread's, but for age_figures.
#ifndef FIRN_COLD_AGE_H
#define FIRN_COLD_AGE_H

#include <stdbool.h>
#include <stdint.h>

// Before the thread runs, or at any time in tests.
void age_configure(uint64_t after_ms);

uint64_t age_look_ms(void); // between two looks
// A page that was not written at so many looks may be set aside.
bool age_is_idle(unsigned looks, uint64_t now_ms);
// And is frozen when nobody has touched it until then.
uint64_t age_due_ms(uint64_t now_ms);
// Where nothing is set aside: whether a page that was not written at so many looks may go.
bool age_is_over(unsigned looks, uint64_t now_ms);

// What is set aside falls due between two looks: for how long the thread may sleep.
uint64_t age_step_ms(uint64_t now_ms);

// At each look: pages that somebody had to wait for, since the start, and pages that are there.
void age_note(uint64_t now_ms, uint64_t waited, uint64_t pages);
// Memory is short: for a while pages go that were idle for one look.
void age_press(uint64_t now_ms);

struct age_figures {
    uint64_t last_minute; // pages that somebody waited for
    uint64_t idle_ms;     // the age at which pages go now
    uint64_t presses;
};
void age_figures(struct age_figures *out);

#endif
