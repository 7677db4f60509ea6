// FIRN_OPTIONS. Runs during the first allocation of the process, perhaps inside ld.so: no stdio, no
// allocation, no locale. A misspelt option must never be silent: whoever sets one relies on it.
#include "src/front/options.h"

#include "src/base/compiler.h"
#include "src/base/config.h"
#include "src/base/text.h"
#include "src/os/sys.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

// One key. `words` are the values of an option that takes a word, separated by spaces; `max` is 0 for one
// that takes any text; else a number from `min` to `max`.
struct option_key {
    const char *name;
    const char *words;
    uint64_t min, max;
    const char *expects; // completes "expected ..."; NULL: min to max
};

// The order of option_keys.
enum option_index {
    OPTION_STATS,
    OPTION_STATS_SIGNAL,
    OPTION_VERBOSE,
    OPTION_ABORT_CONF,
    OPTION_PURGE_DELAY,
    OPTION_REPORT,
    OPTION_SAMPLE,
    OPTION_COLD,
    OPTION_COLD_AFTER,
    OPTION_COLD_MAX,
    OPTION_COLD_STORE,
    OPTION_SEAL,
    OPTION_FAULT,
    OPTION_MESH,
    OPTION_MESH_PACE,
    OPTION_MESH_BUDGET,
    OPTION_SWEEP,
    OPTION_LARGE_ONLY,
    OPTION_OFF,
    OPTION_LEVEL,
    OPTIONS
};

static const struct option_key option_keys[OPTIONS] = {
    [OPTION_STATS] = {"stats", "exit", 0, 0, "exit"},
    [OPTION_STATS_SIGNAL] = {"stats_signal", "off on", 0, 0, "on or off"},
    [OPTION_VERBOSE] = {"verbose", NULL, 0, 1, "0 or 1"},
    [OPTION_ABORT_CONF] = {"abort_conf", NULL, 0, 1, "0 or 1"},
    [OPTION_PURGE_DELAY] = {"purge_delay", NULL, 0, 600000, NULL},
    [OPTION_REPORT] = {"report", NULL, 0, 0, "a file, fd:N or syslog"},
    // More often than the level promises, never less.
    [OPTION_SAMPLE] = {"sample", NULL, 100, FIRN_SAMPLE_RATE > 0 ? FIRN_SAMPLE_RATE : 1000000,
                       NULL},
    // The order of enum option_cold.
    [OPTION_COLD] = {"cold", "off on auto", 0, 0, "off, on or auto"},
    [OPTION_COLD_AFTER] = {"cold_after", NULL, 1, 86400, NULL},
    [OPTION_COLD_MAX] = {"cold_max", NULL, 0, (uint64_t)1 << 46, NULL},
    // The order of enum option_store.
    [OPTION_COLD_STORE] = {"cold_store", "firn swap", 0, 0, "firn or swap"},
    [OPTION_SEAL] = {"seal", "off mac aead", 0, 0, "off, mac or aead"},
    // The order of enum option_fault.
    [OPTION_FAULT] = {"fault", "auto event signal protect", 0, 0, "auto, event, signal or protect"},
    [OPTION_MESH] = {"mesh", "off auto", 0, 0, "auto or off"},
    [OPTION_MESH_PACE] = {"mesh_pace", NULL, 1, 100, NULL},
    [OPTION_MESH_BUDGET] = {"mesh_budget", NULL, 0, 1000000000, NULL},
    [OPTION_SWEEP] = {"sweep", NULL, FIRN_SWEEP, 10000, NULL},
    [OPTION_LARGE_ONLY] = {"large_only", NULL, 4096, (uint64_t)1 << 46, "0, or 4096 to 65536G"},
    [OPTION_OFF] = {"off", NULL, 0, 1, "0 or 1"},
    // A level's number is its place modulo four.
    [OPTION_LEVEL] = {"level", "0 1 2 3 bare light default strict", 0, 0,
                      "0 to 3, bare, light, default or strict"},
};

static struct options options_now = {.purge_delay_ms = 1000,
                                     .cold_after_s = 120,
                                     .mesh_auto = FIRN_MESH_AUTO,
                                     .mesh_pace = 25,
                                     .sweep_ms = FIRN_SWEEP};

const struct options *options_get(void) {
    return &options_now;
}

enum { OPTIONS_LINE_BYTES = 640 };

static void options_say(struct text *line) {
    text_char(line, '\n');
    sys_write(2, line->data, line->length);
}

// Text from the environment is shown shortened.
static struct text options_line(char *buffer, const char *origin) {
    struct text line = text_on(buffer, OPTIONS_LINE_BYTES);
    text_str(&line, "firn: ");
    text_str(&line, origin);
    text_str(&line, ": ");
    return line;
}

static void options_complain_key(const char *origin, const char *key, size_t n) {
    unsigned best = OPTIONS;
    unsigned best_distance = ~0u;
    for (unsigned i = 0; i < OPTIONS; i++) {
        const char *name = option_keys[i].name;
        const unsigned distance = text_distance(key, n, name, strlen(name));
        if (distance < best_distance) {
            best = i;
            best_distance = distance;
        }
    }
    char buffer[OPTIONS_LINE_BYTES];
    struct text line = options_line(buffer, origin);
    text_str(&line, "unknown option ");
    text_quote(&line, key, n);
    text_str(&line, " ignored; closest is '");
    text_str(&line, option_keys[best].name);
    text_char(&line, '\'');
    options_say(&line);
}

static void options_complain_value(const char *origin, const struct option_key *key,
                                   const char *value, size_t n) {
    char buffer[OPTIONS_LINE_BYTES];
    struct text line = options_line(buffer, origin);
    text_str(&line, key->name);
    text_str(&line, ": value ");
    text_quote(&line, value, n);
    text_str(&line, " ignored; expected ");
    if (key->expects != NULL) {
        text_str(&line, key->expects);
    } else {
        text_dec(&line, key->min);
        text_str(&line, " to ");
        text_dec(&line, key->max);
    }
    options_say(&line);
}

// What a library checks is fixed when it is built: an option can only ask whether that is enough.
static bool options_check_level(const char *origin, uint64_t word) {
    static const char *const libraries[] = {"libfirn-bare.so", "libfirn-light.so", "libfirn.so",
                                            "libfirn-strict.so"};
    const unsigned level = word % 4;
    if (level <= FIRN_LEVEL) {
        return true;
    }
    char buffer[OPTIONS_LINE_BYTES];
    struct text line = options_line(buffer, origin);
    text_str(&line, "level: this process has level ");
    text_dec(&line, FIRN_LEVEL);
    text_str(&line, "; preload ");
    text_str(&line, libraries[level]);
    text_str(&line, ", or start it with firn run");
    options_say(&line);
    return false;
}

// What hands blocks or pages to something weaker: whoever asks for level 3 does not want that by a line of
// configuration.
static bool options_check_strict(const char *origin, const struct option_key *key) {
    if (FIRN_LEVEL < 3) {
        return true;
    }
    char buffer[OPTIONS_LINE_BYTES];
    struct text line = options_line(buffer, origin);
    text_str(&line, key->name);
    text_str(&line, ": refused at level 3, which promises its checks for all of the heap; ignored");
    options_say(&line);
    return false;
}

// *out: which of the words it is.
static bool options_find_word(const char *words, const char *value, size_t n, uint64_t *out) {
    *out = 0;
    for (const char *at = words; *at != '\0'; ++*out) {
        const size_t bytes = strcspn(at, " ");
        if (bytes == n && memcmp(at, value, n) == 0) {
            return true;
        }
        at += bytes + strspn(at + bytes, " ");
    }
    return false;
}

static bool options_read_value(const struct option_key *key, const char *value, size_t n,
                               uint64_t *out) {
    if (key->words != NULL) {
        return options_find_word(key->words, value, n, out);
    }
    if (key->max == 0) {
        return n > 0 && n < OPTIONS_REPORT_BYTES;
    }
    bool is_off = key == &option_keys[OPTION_LARGE_ONLY];
    return text_parse_size(value, n, out) && *out <= key->max &&
           (*out >= key->min || (is_off && *out == 0));
}

static void options_set(unsigned index, uint64_t value, const char *text, size_t n) {
    switch (index) {
    case OPTION_STATS:
        options_now.stats_exit = true;
        break;
    case OPTION_STATS_SIGNAL:
        options_now.stats_signal = value != 0;
        break;
    case OPTION_VERBOSE:
        options_now.verbose = value != 0;
        break;
    case OPTION_ABORT_CONF:
        options_now.abort_conf = value != 0;
        break;
    case OPTION_REPORT:
        memcpy(options_now.report, text, n);
        options_now.report[n] = '\0';
        break;
    case OPTION_SAMPLE:
        options_now.sample = (uint32_t)value;
        break;
    case OPTION_COLD:
        options_now.cold = (enum option_cold)value;
        break;
    case OPTION_COLD_AFTER:
        options_now.cold_after_s = (uint32_t)value;
        break;
    case OPTION_COLD_MAX:
        options_now.cold_max_bytes = value;
        break;
    case OPTION_COLD_STORE:
        options_now.cold_store = (enum option_store)value;
        break;
    case OPTION_SEAL:
        options_now.seal = (unsigned)value;
        break;
    case OPTION_FAULT:
        options_now.fault = (enum option_fault)value;
        break;
    case OPTION_MESH:
        options_now.mesh_auto = value != 0;
        break;
    case OPTION_MESH_PACE:
        options_now.mesh_pace = (unsigned)value;
        break;
    case OPTION_MESH_BUDGET:
        options_now.mesh_budget = (size_t)value;
        break;
    case OPTION_SWEEP:
        options_now.sweep_ms = (uint32_t)value;
        break;
    case OPTION_LARGE_ONLY:
        options_now.large_only_bytes = (size_t)value;
        break;
    case OPTION_OFF:
        options_now.is_off = value != 0;
        break;
    case OPTION_LEVEL:
        break;
    default:
        options_now.purge_delay_ms = (uint32_t)value;
        break;
    }
}

// One "key=value" or "key". True if it was understood.
static bool options_parse_item(const char *origin, const char *item, size_t n) {
    const char *equals = memchr(item, '=', n);
    const size_t key_bytes = equals != NULL ? (size_t)(equals - item) : n;
    const char *value = equals != NULL ? equals + 1 : "1";
    const size_t value_bytes = equals != NULL ? n - key_bytes - 1 : 1;
    for (unsigned i = 0; i < OPTIONS; i++) {
        const struct option_key *key = &option_keys[i];
        if (key_bytes != strlen(key->name) || memcmp(item, key->name, key_bytes) != 0) {
            continue;
        }
        uint64_t number = 0;
        const bool is_bare_text = equals == NULL && key->max == 0;
        if (is_bare_text || !options_read_value(key, value, value_bytes, &number)) {
            options_complain_value(origin, key, value, value_bytes);
            return false;
        }
        const bool is_weaker = i == OPTION_LARGE_ONLY || i == OPTION_COLD_STORE;
        if (is_weaker && number != 0 && !options_check_strict(origin, key)) {
            return false;
        }
        options_set(i, number, value, value_bytes);
        return i != OPTION_LEVEL || options_check_level(origin, number);
    }
    options_complain_key(origin, item, key_bytes);
    return false;
}

// Up to the next separator, but for the one in "report=fd:N".
static size_t options_item_bytes(const char *item) {
    static const char descriptor[] = "report=fd:";
    const size_t prefix = sizeof(descriptor) - 1;
    const bool is_descriptor = strncmp(item, descriptor, prefix) == 0;
    return is_descriptor ? prefix + strcspn(item + prefix, ":,") : strcspn(item, ":,");
}

unsigned options_apply(const char *text, const char *origin) {
    unsigned complaints = 0;
    const char *item = text != NULL ? text : "";
    while (*item != '\0') {
        const size_t n = options_item_bytes(item);
        if (n > 0 && !options_parse_item(origin, item, n)) {
            complaints++;
        }
        item += n + (item[n] != '\0');
    }
    return complaints;
}

// Judged last, so that it works wherever it stands in the list.
void options_judge(unsigned complaints) {
    if (complaints > 0 && options_now.abort_conf) {
        static const char last[] = "firn: FIRN_OPTIONS: abort_conf=1 ends the process\n";
        sys_write(2, last, sizeof(last) - 1);
        abort();
    }
}
