#include "src/cold/trial.h"

void trial_begin(struct trial *t, const struct trial_limits *limits, uint64_t bearable,
                 uint64_t returns) {
    uint64_t since = returns - t->returns;
    if (t->most == 0) {
        t->most = limits->first;
    } else if (since > bearable) {
        t->most = t->most / 2 > limits->least ? t->most / 2 : limits->least;
    } else if (t->left == 0 && t->most < limits->most) {
        t->most *= 2;
    }
    t->left = t->most;
    t->returns = returns;
}

uint64_t trial_take(struct trial *t, struct trial *other, uint64_t wanted) {
    uint64_t taken = 0;
    for (; wanted != 0 && t->left > 0 && other->left > 0; wanted &= wanted - 1) {
        taken |= wanted & -wanted;
        t->left--;
        other->left--;
    }
    return taken;
}
