// FIRN_OPTIONS=key=value:key=value  (separators ':' and ','; a bare key means key=1)
//
// Parsed once at start, before anything is allocated: from /etc/firn.conf (front/policy.h), then from the
// environment (never when AT_SECURE), which counts more. A key nobody knows, or a value out of range, is reported on stderr in one line that names the
// closest key (or the range), and is ignored; with abort_conf=1 it ends the process instead.
// No option goes below what the built level promises, but for off, which leaves the program to libc's malloc, and, refused
// at level 3, large_only, which leaves small requests to it, and cold_store=swap, which leaves idle pages to the kernel.
#ifndef FIRN_FRONT_OPTIONS_H
#define FIRN_FRONT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OPTIONS_REPORT_BYTES = 256 };

enum option_cold { OPTION_COLD_OFF, OPTION_COLD_ON, OPTION_COLD_AUTO };

enum option_store { OPTION_STORE_FIRN, OPTION_STORE_SWAP };

// The order of enum fault_engine.
enum option_fault {
    OPTION_FAULT_AUTO,
    OPTION_FAULT_EVENT,
    OPTION_FAULT_SIGNAL,
    OPTION_FAULT_PROTECT
};

struct options {
    bool stats_exit;         // stats=exit: print a summary at exit
    bool stats_signal;       // stats_signal=on: a line on SIGUSR2
    bool verbose;            // verbose=1: one line at start
    bool abort_conf;         // abort_conf=1: bad options end the process
    bool is_off;             // off: Firn stands aside (heap/aside.h)
    uint32_t sample;         // sample=N: one allocation in N; 0: not named, as the level says
    uint32_t purge_delay_ms; // purge_delay=MS: 0..600000, default 1000
    enum option_cold cold;   // cold=off|on|auto: whether idle pages are frozen; auto: by event only
    enum option_store cold_store; // cold_store=firn|swap: where to
    unsigned seal;                // seal=off|mac|aead: 0, 1 or 2; the level may ask for more
    uint64_t cold_max_bytes;      // cold_max=BYTES: what frozen pages may be packed to; 0: no cap
    uint32_t cold_after_s;        // cold_after=SECONDS: the age at which; 1..86400, default 120
    enum option_fault fault;      // fault=auto|event|signal|protect: the engine
    bool mesh_auto;               // mesh=auto: compact without being asked; mesh=off
    unsigned mesh_pace;      // mesh_pace=N: percent of a processor for that; 1..100, default 25
    size_t mesh_budget;      // mesh_budget=N: mappings it may use; 0: as many as the kernel leaves
    size_t large_only_bytes; // large_only=BYTES: smaller requests go to the next malloc; 0: none do
    uint32_t sweep_ms;       // sweep=MS: of the sweep at exit; 0: none
    // report=FILE, report=fd:N, report=syslog: where reports go (os/sink); "": standard error. A path
    // cannot contain a separator.
    char report[OPTIONS_REPORT_BYTES];
};

// The options in force; defaults before options_parse.
const struct options *options_get(void);
// Parses `text` (NULL: nothing); `origin` says in complaints, which go to fd 2, where it comes from. Returns their
// number.
unsigned options_apply(const char *text, const char *origin);
// After all texts: ends the process if there were complaints and abort_conf=1 asks for that.
void options_judge(unsigned complaints);

#endif
