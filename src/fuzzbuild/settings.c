// Options. Runs during the first allocation of the process: no stdio, no allocation, no locale.
#include "src/fuzzbuild/settings.h"

#include "src/base/compiler.h"
#include "src/base/text.h"
#include "src/os/sys.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

// One word that an option takes, and what it stands for.
struct settings_word {
    const char *name;
    uint64_t value;
};

// A key takes one of its words, or a number from `least` to `most` (unless most is 0).
struct settings_key {
    const char *name;
    size_t offset;
    uint64_t least, most;
    struct settings_word words[2];
    const char *expects;
};

struct settings settings_now = {
    .quarantine = UINT64_C(1) << 30,
    .max_size = UINT64_MAX,
    .max_total = UINT64_C(1) << 30,
    .revoke = 256,
    .fill_most = UINT64_C(1) << 20,
    .align = 1,
    .depth = 16,
    .fill = 0xcc,
    .free_fill = 0xcc,
    .segv = 1,
};

#define SETTINGS_AT(field) offsetof(struct settings, field)

static const struct settings_key keys[] = {
    {"place", SETTINGS_AT(is_left), 0, 0, {{"left", 1}, {"right", 0}}, "left or right"},
    {"align", SETTINGS_AT(align), 1, 16, {{0}}, "1, 2, 4, 8 or 16"},
    {"quarantine", SETTINGS_AT(quarantine), 0, UINT64_MAX, {{0}}, "bytes"},
    {"max_size", SETTINGS_AT(max_size), 0, UINT64_MAX, {{0}}, "bytes"},
    {"max_total", SETTINGS_AT(max_total), 0, UINT64_MAX, {{0}}, "bytes"},
    {"on_limit", SETTINGS_AT(is_limit_fatal), 0, 0, {{"null", 0}, {"abort", 1}}, "null or abort"},
    {"calloc_overflow",
     SETTINGS_AT(is_overflow_null),
     0,
     0,
     {{"null", 1}, {"abort", 0}},
     "null or abort"},
    {"revoke",
     SETTINGS_AT(revoke),
     0,
     UINT32_MAX,
     {{"all", SETTINGS_REVOKE_ALL}},
     "all, or a number of frees"},
    {"leaks", SETTINGS_AT(leaks), 0, 1, {{"abort", 2}}, "0, 1 or abort"},
    {"depth", SETTINGS_AT(depth), 1, SETTINGS_DEPTH_MOST, {{0}}, "1 to 32"},
    {"fill", SETTINGS_AT(fill), 0, 255, {{"off", SETTINGS_NO_FILL}}, "0 to 255, or off"},
    {"free_fill", SETTINGS_AT(free_fill), 0, 255, {{0}}, "0 to 255"},
    {"fill_most", SETTINGS_AT(fill_most), 0, UINT64_MAX, {{0}}, "bytes"},
    {"segv", SETTINGS_AT(segv), 0, 1, {{0}}, "0 or 1"},
    {"verbose", SETTINGS_AT(verbose), 0, 1, {{0}}, "0 or 1"},
    {"abort_conf", SETTINGS_AT(abort_conf), 0, 1, {{0}}, "0 or 1"},
};
enum { KEYS = sizeof(keys) / sizeof(keys[0]) };

static void settings_set(size_t offset, uint64_t value) {
    memcpy((char *)&settings_now + offset, &value, sizeof(value));
}

// Text from the environment is shown shortened and without control characters.
static void settings_quote(struct text *line, const char *s, size_t n) {
    text_char(line, '\'');
    for (size_t i = 0; i < n && i < 48; i++) {
        text_char(line, s[i] >= ' ' && s[i] <= '~' ? s[i] : '?');
    }
    text_str(line, n > 48 ? "...'" : "'");
}

static void settings_complain(const char *what, const char *s, size_t n, const char *expects) {
    char buffer[256];
    struct text line = text_on(buffer, sizeof(buffer));
    text_str(&line, "firn: ");
    text_str(&line, what);
    settings_quote(&line, s, n);
    text_str(&line, " ignored; ");
    text_str(&line, expects);
    text_char(&line, '\n');
    sys_write(2, line.data, line.length);
}

static void settings_complain_key(const char *key, size_t n) {
    unsigned best_distance = ~0u;
    size_t best = 0;
    char hint[64];
    for (size_t i = 0; i < KEYS; i++) {
        unsigned distance = text_distance(key, n, keys[i].name, strlen(keys[i].name));
        if (distance < best_distance) {
            best = i;
            best_distance = distance;
        }
    }
    struct text line = text_on(hint, sizeof(hint));
    text_str(&line, "closest is '");
    text_str(&line, keys[best].name);
    text_char(&line, '\'');
    settings_complain("FIRN_OPTIONS: unknown option ", key, n, hint);
}

static bool settings_read_value(const struct settings_key *key, const char *s, size_t n,
                                uint64_t *out) {
    for (unsigned i = 0; i < 2; i++) {
        const char *word = key->words[i].name;
        if (word != NULL && strlen(word) == n && memcmp(word, s, n) == 0) {
            *out = key->words[i].value;
            return true;
        }
    }
    if (key->most == 0 || !text_parse_size(s, n, out) || *out < key->least || *out > key->most) {
        return false;
    }
    return key->offset != SETTINGS_AT(align) || (*out & (*out - 1)) == 0;
}

static bool settings_parse_item(const char *item, size_t n) {
    const char *equals = memchr(item, '=', n);
    size_t key_bytes = equals != NULL ? (size_t)(equals - item) : n;
    const char *value = equals != NULL ? equals + 1 : "1";
    size_t value_bytes = equals != NULL ? n - key_bytes - 1 : 1;
    for (size_t i = 0; i < KEYS; i++) {
        if (strlen(keys[i].name) != key_bytes || memcmp(keys[i].name, item, key_bytes) != 0) {
            continue;
        }
        uint64_t number;
        if (!settings_read_value(&keys[i], value, value_bytes, &number)) {
            char what[64], expects[64];
            struct text w = text_on(what, sizeof(what));
            struct text e = text_on(expects, sizeof(expects));
            text_str(&w, "FIRN_OPTIONS: ");
            text_str(&w, keys[i].name);
            text_str(&w, ": value ");
            text_str(&e, "expected ");
            text_str(&e, keys[i].expects);
            settings_complain(what, value, value_bytes, expects);
            return false;
        }
        settings_set(keys[i].offset, number);
        return true;
    }
    settings_complain_key(item, key_bytes);
    return false;
}

unsigned settings_parse(const char *text) {
    unsigned complaints = 0;
    const char *item = text != NULL ? text : "";
    while (*item != '\0') {
        size_t n = strcspn(item, ":,");
        if (n > 0 && !settings_parse_item(item, n)) {
            complaints++;
        }
        item += n + (item[n] != '\0');
    }
    return complaints;
}

// libdislocator's variables, so that a campaign can change the preload and nothing else. They come
// first: FIRN_OPTIONS has the last word. Like there, a variable counts as set whatever its value.
static unsigned settings_read_aliases(void) {
    uint64_t megabytes;
    const char *limit = sys_environment("AFL_LD_LIMIT_MB");
    if (sys_environment("AFL_LD_HARD_FAIL") != NULL) {
        settings_now.is_limit_fatal = 1;
    }
    if (sys_environment("AFL_LD_NO_CALLOC_OVER") != NULL) {
        settings_now.is_overflow_null = 1;
    }
    if (sys_environment("AFL_ALIGNED_ALLOC") != NULL) {
        settings_now.align = 16;
    }
    if (sys_environment("AFL_LD_VERBOSE") != NULL) {
        settings_now.verbose = 1;
    }
    if (limit != NULL) {
        size_t n = strlen(limit);
        if (!text_parse_size(limit, n, &megabytes) || megabytes == 0 ||
            megabytes > UINT64_MAX >> 20) {
            settings_complain("AFL_LD_LIMIT_MB: value ", limit, n, "expected megabytes");
            return 1;
        }
        settings_now.max_total = megabytes << 20;
    }
    return 0;
}

static unsigned settings_read_seed(void) {
    const char *seed = sys_environment("FIRN_SEED");
    if (seed != NULL && !text_parse_size(seed, strlen(seed), &settings_now.seed)) {
        settings_complain("FIRN_SEED: value ", seed, strlen(seed), "expected a decimal number");
        return 1;
    }
    return 0;
}

void settings_read(void) {
    unsigned complaints = settings_read_seed() + settings_read_aliases() +
                          settings_parse(sys_environment("FIRN_OPTIONS"));
    if (complaints > 0 && settings_now.abort_conf) {
        static const char last[] = "firn: FIRN_OPTIONS: abort_conf=1 ends the process\n";
        sys_write(2, last, sizeof(last) - 1);
        abort();
    }
}
