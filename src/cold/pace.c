#include "src/cold/pace.h"

#include "src/os/clock.h"
#include "src/os/thread.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    IDLE_FACTOR = 3, // times its share of a processor, while the program is idle
    MS = 1000000     // ns
};
#define SECOND ((uint64_t)1000 * MS)

static unsigned percent = 10;

void pace_configure(unsigned cpu_percent) {
    percent = cpu_percent;
}

static struct {
    uint64_t from_ns, cpu_ns;    // pace is kept since then
    uint64_t seen_ns, others_ns; // the last look at the rest of the process
    unsigned share;              // in percent
} pace;

void pace_start(void) {
    pace.from_ns = pace.seen_ns = clock_ns();
    pace.cpu_ns = clock_thread_ns();
    pace.others_ns = clock_process_ns() - pace.cpu_ns;
    pace.share = percent;
}

// An idle program loses nothing to this thread. One that has used a twentieth of a processor in the last
// second is not idle.
static void look_at_others(uint64_t now, uint64_t cpu) {
    if (now < pace.seen_ns + SECOND) {
        return;
    }
    uint64_t others = clock_process_ns() - cpu;
    bool is_idle = (others - pace.others_ns) * 20 < now - pace.seen_ns;
    pace.share = is_idle ? percent * IDLE_FACTOR : percent;
    pace.seen_ns = now;
    pace.others_ns = others;
}

// What was not used is not saved up for longer than a second.
void pace_keep(void) {
    uint64_t now = clock_ns();
    uint64_t cpu = clock_thread_ns();
    look_at_others(now, cpu);
    uint64_t due = pace.from_ns + (cpu - pace.cpu_ns) * 100 / pace.share;
    if (due > now + 2 * MS) {
        thread_sleep(due - now);
    }
    if (now > pace.from_ns + SECOND) {
        pace.from_ns = due > now ? due : now;
        pace.cpu_ns = cpu;
    }
}
