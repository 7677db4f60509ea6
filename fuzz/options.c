// FIRN_OPTIONS: any text at all, against a second reading of the rules in options.h.
//
// Input: the text, to its end or its first NUL. What must hold: the options in force and the number
// of complaints are as the rules say; every complaint is one printable line of bounded length; with
// abort_conf the process ends exactly when there was one.
//
// A new option gets a line in expect_item: until then its key counts as unknown here.
#include "src/front/options.h"

#include "fuzz/fuzz.h"
#include "fuzz/world.h"

#include <stdbool.h>
#include <string.h>

enum { TEXT_MOST = 4096, LINE_MOST = 256 };

struct expectation {
    struct options options;
    unsigned complaints;
};

static bool is_word(const char *s, size_t n, const char *word) {
    return n == strlen(word) && memcmp(s, word, n) == 0;
}

// A decimal with an optional suffix, at most `most`.
static bool read_number(const char *s, size_t n, uint64_t most, uint64_t *out) {
    static const char suffixes[] = "kKmMgG";
    const char *suffix = n > 0 ? memchr(suffixes, s[n - 1], 6) : NULL;
    unsigned shift = suffix != NULL ? 10 * (1 + (unsigned)(suffix - suffixes) / 2) : 0;
    __uint128_t v = 0;
    n -= suffix != NULL;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9') {
            return false;
        }
        v = v * 10 + (unsigned)(s[i] - '0');
        v = v >> 64 != 0 ? (__uint128_t)1 << 64 : v; // far above any limit, and stays there
    }
    v <<= shift;
    *out = (uint64_t)v;
    return n > 0 && v <= most;
}

static bool expect_item(struct options *o, const char *item, size_t n) {
    const char *equals = memchr(item, '=', n);
    size_t key = equals != NULL ? (size_t)(equals - item) : n;
    const char *value = equals != NULL ? equals + 1 : "1";
    size_t length = equals != NULL ? n - key - 1 : 1;
    uint64_t number = 0;
    bool is_good = false;
    if (is_word(item, key, "stats")) {
        is_good = is_word(value, length, "exit");
        o->stats_exit = is_good || o->stats_exit;
    } else if (is_word(item, key, "verbose")) {
        is_good = read_number(value, length, 1, &number);
        o->verbose = is_good ? number : o->verbose;
    } else if (is_word(item, key, "abort_conf")) {
        is_good = read_number(value, length, 1, &number);
        o->abort_conf = is_good ? number : o->abort_conf;
    } else if (is_word(item, key, "off")) {
        is_good = read_number(value, length, 1, &number);
        o->is_off = is_good ? number : o->is_off;
    } else if (is_word(item, key, "purge_delay")) {
        is_good = read_number(value, length, 600000, &number);
        o->purge_delay_ms = is_good ? (uint32_t)number : o->purge_delay_ms;
    }
    return is_good;
}

static void expect(struct expectation *e, const char *text) {
    size_t start = 0;
    for (size_t i = 0;; i++) {
        if (text[i] != ':' && text[i] != ',' && text[i] != '\0') {
            continue;
        }
        if (i > start && !expect_item(&e->options, text + start, i - start)) {
            e->complaints++;
        }
        if (text[i] == '\0') {
            return;
        }
        start = i + 1;
    }
}

// As many lines as complaints, and one more at the end of the process.
static void check_words(const char *said, size_t n, unsigned lines) {
    static const char start[] = "firn: FIRN_OPTIONS: ";
    size_t at = 0;
    while (lines > 0 && n < 64 << 10) {
        const char *end = memchr(said + at, '\n', n - at);
        FUZZ_ENSURE(end != NULL);
        size_t length = (size_t)(end - said) - at;
        FUZZ_ENSURE(length < LINE_MOST && length > sizeof(start));
        FUZZ_ENSURE(memcmp(said + at, start, sizeof(start) - 1) == 0);
        for (size_t i = 0; i < length; i++) {
            FUZZ_ENSURE(said[at + i] >= ' ' && said[at + i] <= '~');
        }
        at += length + 1;
        lines--;
    }
    FUZZ_ENSURE(at == n || n >= 64 << 10);
}

struct parse {
    const char *text;
    unsigned complaints;
};

static void parse(void *context) {
    struct parse *p = context;
    p->complaints = options_apply(p->text, "FIRN_OPTIONS");
    options_judge(p->complaints);
}

int firn_fuzz_options(const uint8_t *data, size_t size) {
    static char text[TEXT_MOST + 1];
    size_t n = size < TEXT_MOST ? size : TEXT_MOST;
    memcpy(text, data, n);
    text[n] = '\0';
    // Options stay in force: back to the defaults, but for stats, which cannot be taken back.
    FUZZ_ENSURE(options_apply("abort_conf=0,verbose=0,off=0,purge_delay=1000", "FIRN_OPTIONS") ==
                0);
    struct expectation e = {.options = *options_get()};
    expect(&e, text);
    struct parse p = {text, 0};
    struct world_death death;
    size_t said_bytes;
    world_listen();
    bool has_died = world_dies(parse, &p, &death);
    const char *said = world_heard(&said_bytes);
    const struct options *o = options_get();
    FUZZ_ENSURE(has_died == (e.complaints > 0 && e.options.abort_conf));
    FUZZ_ENSURE(has_died ? death.is_abort : p.complaints == e.complaints);
    check_words(said, said_bytes, e.complaints + has_died);
    FUZZ_ENSURE(o->stats_exit == e.options.stats_exit && o->verbose == e.options.verbose);
    FUZZ_ENSURE(o->abort_conf == e.options.abort_conf && o->is_off == e.options.is_off);
    FUZZ_ENSURE(o->purge_delay_ms == e.options.purge_delay_ms && o->purge_delay_ms <= 600000);
    return 0;
}
