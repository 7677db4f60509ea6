#include "src/front/cold_text.h"

#include "src/base/compiler.h"
#include "src/cold/cold.h"
#include "src/os/keep.h"
#include "src/os/signals.h"
#include "src/os/sys.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

enum { NS_A_MS = 1000000, BYTES_A_KIB = 1024 };

static void say(struct text *t, const char *before, uint64_t value) {
    text_str(t, before);
    text_dec(t, value);
}

// Stored bytes a byte, in hundredths.
static void say_ratio(struct text *t, const char *before, uint64_t stored, uint64_t raw) {
    uint64_t percent = raw != 0 ? (stored * 100 + raw / 2) / raw : 0;
    say(t, before, percent / 100);
    text_char(t, '.');
    text_dec(t, percent / 10 % 10);
    text_dec(t, percent % 10);
}

static void say_pages(struct text *t, const struct cold_stats *c) {
    text_str(t, "firn:   cold: engine=");
    text_str(t, c->engine);
    say(t, " chunks=", c->chunks);
    say(t, " away=", c->away);
    say(t, " staged=", c->staged);
    say(t, " frozen=", c->frozen);
    say(t, " zero=", c->zeros);
    say(t, " poor=", c->poor);
    say(t, " spared=", c->spared);
    say(t, " refused=", c->refused);
    say(t, " full=", c->full);
}

static void say_conditions(struct text *t, const struct cold_stats *c) {
    if (c->lesser != NULL) {
        text_str(t, "\nfirn:   cold: no better engine: ");
        text_str(t, c->lesser);
    }
    if (c->paused != NULL) {
        text_str(t, "\nfirn:   cold: nothing goes for now: ");
        text_str(t, c->paused);
    }
}

static void say_thaws(struct text *t, const struct cold_stats *c) {
    say(t, "\nfirn:   cold: thaws=", c->thaws);
    say(t, " ahead=", c->fetched);
    say(t, " returns=", c->returns);
    say(t, " zeros=", c->filled);
    say(t, " forks=", c->forks);
    say(t, " p50_ns=", c->thaw_p50_ns);
    say(t, " p99_ns=", c->thaw_p99_ns);
    say(t, " max_ns=", c->thaw_longest_ns);
    say(t, " refaults=", c->refaults);
    say(t, " idle_ms=", c->idle_ms);
    say(t, " pressed=", c->presses);
}

// Buckets that have none are left out; each is named by its upper end.
static void say_times(struct text *t, const struct cold_stats *c) {
    bool any = false;
    for (unsigned i = 0; i < COLD_TIMES; i++) {
        if (c->thaw_times[i] != 0) {
            text_str(t, any ? " " : "\nfirn:   cold: thaws below ns: ");
            text_dec(t, (uint64_t)2 << i);
            say(t, "=", c->thaw_times[i]);
            any = true;
        }
    }
}

static void say_store(struct text *t, const struct cold_stats *c) {
    uint64_t packed = c->packed_pages << FIRN_PAGE_SHIFT;
    say(t, "\nfirn:   cold: one_byte_pages=", c->uniform_pages);
    say(t, " packed_pages=", c->packed_pages);
    say_ratio(t, " packed_ratio=", c->stored_bytes, packed);
    say(t, " stored_bytes=", c->stored_bytes);
    say(t, " store_bytes=", c->store_bytes);
    text_str(t, " seal=");
    text_str(t, c->seal);
    say(t, " freezing_ms=", c->freeze_cpu_ns / NS_A_MS);
    say(t, " thawing_ms=", c->thaw_cpu_ns / NS_A_MS);
    text_char(t, '\n');
}

static bool is_swapping(const struct cold_stats *c) {
    return strcmp(c->engine, "swap") == 0;
}

static void say_swap(struct text *t, const struct cold_stats *c) {
    say(t, "firn:   cold: engine=swap chunks=", c->chunks);
    say(t, " away=", c->away);
    say(t, " out=", c->frozen);
    say(t, " back=", c->thaws);
    say(t, " refused=", c->refused);
    say(t, " full=", c->full);
    say(t, " refaults=", c->refaults);
    say(t, " idle_ms=", c->idle_ms);
    say(t, " pressed=", c->presses);
    say(t, " cpu_ms=", c->freeze_cpu_ns / NS_A_MS);
    if (c->held != NULL) {
        text_str(t, "\nfirn:   cold: nothing goes now: ");
        text_str(t, c->held);
    }
    text_str(t, "\nfirn:   cold: pages in swap are neither sealed nor encrypted by Firn\n");
}

void cold_text_table(struct text *t) {
    struct cold_stats c;
    cold_stats(&c);
    if (c.reason != NULL) {
        text_str(t, "firn:   cold: off, ");
        text_str(t, c.reason);
        text_char(t, '\n');
    } else if (is_swapping(&c)) {
        say_swap(t, &c);
    } else if (strcmp(c.engine, "none") != 0) {
        say_pages(t, &c);
        say_conditions(t, &c);
        say_thaws(t, &c);
        say_times(t, &c);
        say_store(t, &c);
    }
}

// ---- the signal -----------------------------------------------------------------------------------

static void say_line(struct text *t) {
    struct cold_stats c;
    cold_stats(&c);
    uint64_t raw = (is_swapping(&c) ? c.away : c.uniform_pages + c.packed_pages) << FIRN_PAGE_SHIFT;
    say(t, "firn: pid=", (uint64_t)sys_process_id());
    text_str(t, " cold=");
    text_str(t, c.engine);
    const char *why = c.reason != NULL ? c.reason : c.held != NULL ? c.held : c.paused;
    if (why != NULL) {
        text_str(t, " (");
        text_str(t, why);
        text_char(t, ')');
    }
    say(t, " frozen_kib=", raw / BYTES_A_KIB);
    say(t, " stored_kib=", c.store_bytes / BYTES_A_KIB);
    say_ratio(t, " ratio=", c.store_bytes, raw);
    say(t, " freezes=", c.frozen);
    say(t, " thaws=", c.thaws);
    say(t, " p50_ns=", c.thaw_p50_ns);
    say(t, " p99_ns=", c.thaw_p99_ns);
    say(t, " max_ns=", c.thaw_longest_ns);
    say(t, " refaults=", c.refaults);
    say(t, " skipped=", c.poor + c.spared + c.refused + c.full);
    say(t, " cpu_ms=", (c.freeze_cpu_ns + c.thaw_cpu_ns) / NS_A_MS);
    text_char(t, '\n');
}

static struct keep error = KEEP_NONE; // standard error, as it was at start

// Nothing but atomic loads, system calls and the stack.
static void on_signal(int number) {
    const int saved = errno;
    char buffer[512];
    struct text t = text_on(buffer, sizeof buffer);
    (void)number;
    say_line(&t);
    int fd = keep_descriptor(&error);
    if (fd >= 0) {
        sys_write(fd, t.data, t.length);
    }
    errno = saved;
}

void cold_text_on_signal(void) {
    const int saved = errno;
    struct sigaction now;
    if (signals_action(SIGUSR2, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) == 0 &&
        now.sa_handler == SIG_DFL) {
        struct sigaction ours;
        keep_copy(&error, 2);
        memset(&ours, 0, sizeof ours);
        ours.sa_handler = on_signal;
        ours.sa_flags = SA_RESTART | SA_ONSTACK;
        (void)signals_action(SIGUSR2, &ours, NULL);
    }
    errno = saved;
}
