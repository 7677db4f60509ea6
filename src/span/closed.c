#include "src/span/closed.h"

enum {
    CLOSED_RUNS = 256,
    CLOSED_BYTES = 256 << 20,
    CLOSED_BYTES_SCARCE = 4 << 20, // besides an eighth of what is live
    CLOSED_SHARE_SCARCE = 8
};

void closed_put(struct closed *closed, struct run *run) {
    run->state = RUN_CLOSED;
    run->older = closed->newest;
    run->newer = NULL;
    if (closed->newest != NULL) {
        closed->newest->newer = run;
    } else {
        closed->oldest = run;
    }
    closed->newest = run;
    closed->runs++;
    closed->bytes += run_body_bytes(run);
}

struct run *closed_take(struct closed *closed) {
    struct run *run = closed->oldest;
    if (run == NULL) {
        return NULL;
    }
    closed->oldest = run->newer;
    if (run->newer != NULL) {
        run->newer->older = NULL;
    } else {
        closed->newest = NULL;
    }
    run->newer = NULL;
    run->state = RUN_BUSY;
    closed->runs--;
    closed->bytes -= run_body_bytes(run);
    return run;
}

bool closed_is_over(const struct closed *closed, size_t live_bytes, bool is_scarce) {
    size_t most =
        is_scarce ? CLOSED_BYTES_SCARCE + live_bytes / CLOSED_SHARE_SCARCE : (size_t)CLOSED_BYTES;
    return closed->runs > CLOSED_RUNS || closed->bytes > most;
}
