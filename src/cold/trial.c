#include "src/cold/trial.h"

enum { SECOND_MS = 1000 };

void trial_begin(struct trial *t, uint64_t look_ms, uint64_t returns) {
    uint64_t since = returns - t->returns;
    uint64_t bearable = TRIAL_RETURNS * look_ms / SECOND_MS;
    if (t->most == 0) {
        t->most = TRIAL_FIRST;
    } else if (since > (bearable > TRIAL_LEAST ? bearable : TRIAL_LEAST)) {
        t->most = t->most / 2 > TRIAL_LEAST ? t->most / 2 : TRIAL_LEAST;
    } else if (t->left == 0 && t->most < TRIAL_MOST) {
        t->most *= 2;
    }
    t->left = t->most;
    t->returns = returns;
}

uint64_t trial_take(struct trial *t, uint64_t wanted) {
    uint64_t taken = 0;
    for (; wanted != 0 && t->left > 0; wanted &= wanted - 1) {
        taken |= wanted & -wanted;
        t->left--;
    }
    return taken;
}
