// FIRN_OPTIONS: what is accepted, and the exact words for what is not. Each text is parsed in a
// child, because options stay in force for the life of a process.
#include "src/front/options.h"

#include "src/base/config.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct outcome {
    int status; // of the child, as from waitpid
    unsigned complaints;
    struct options options;
    char said[2048];
};

static void read_all(int fd, char *buffer, size_t capacity) {
    size_t n = 0;
    ssize_t got;
    while (n + 1 < capacity && (got = read(fd, buffer + n, capacity - 1 - n)) > 0) {
        n += (size_t)got;
    }
    buffer[n] = '\0';
}

static struct outcome parse(const char *text) {
    struct outcome o;
    int words[2], result[2];
    memset(&o, 0, sizeof(o));
    assert_int_equal(pipe(words), 0);
    assert_int_equal(pipe(result), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(words[1], 2);
        o.complaints = options_apply(text, "FIRN_OPTIONS");
        options_judge(o.complaints);
        o.options = *options_get();
        _exit(write(result[1], &o, sizeof(o)) == (ssize_t)sizeof(o) ? 0 : 99);
    }
    close(words[1]);
    close(result[1]);
    char said[sizeof(o.said)];
    read_all(words[0], said, sizeof(said));
    ssize_t got = read(result[0], &o, sizeof(o));
    assert_int_equal(waitpid(child, &o.status, 0), child);
    assert_true(got == (ssize_t)sizeof(o) || o.status != 0);
    memcpy(o.said, said, sizeof(said));
    close(words[0]);
    close(result[0]);
    return o;
}

static void expect_ok(const char *text, struct options want) {
    struct outcome o = parse(text);
    assert_int_equal(o.status, 0);
    assert_string_equal(o.said, "");
    assert_int_equal(o.complaints, 0);
    assert_int_equal(o.options.stats_exit, want.stats_exit);
    assert_int_equal(o.options.stats_signal, want.stats_signal);
    assert_int_equal(o.options.verbose, want.verbose);
    assert_int_equal(o.options.abort_conf, want.abort_conf);
    assert_int_equal(o.options.sample, want.sample);
    assert_int_equal(o.options.sweep_ms, want.sweep_ms != 0 ? want.sweep_ms : FIRN_SWEEP);
    assert_int_equal(o.options.purge_delay_ms, want.purge_delay_ms);
    assert_string_equal(o.options.report, want.report);
    assert_int_equal(o.options.cold, want.cold);
    assert_int_equal(o.options.seal, want.seal);
    assert_int_equal(o.options.fault, want.fault);
    assert_int_equal(o.options.cold_max_bytes, want.cold_max_bytes);
    assert_int_equal(o.options.cold_after_s, want.cold_after_s != 0 ? want.cold_after_s : 120);
    assert_int_equal(o.options.mesh_auto, want.mesh_auto);
    assert_int_equal(o.options.mesh_pace, want.mesh_pace == 0 ? 25 : want.mesh_pace);
    assert_int_equal(o.options.mesh_budget, want.mesh_budget);
    assert_int_equal(o.options.large_only_bytes, want.large_only_bytes);
    assert_int_equal(o.options.cold_store, want.cold_store);
}

static const struct options defaults = {.purge_delay_ms = 1000};

// One complaint, these words, and nothing changed.
static void expect_complaint(const char *text, const char *words) {
    struct outcome o = parse(text);
    assert_int_equal(o.status, 0);
    assert_string_equal(o.said, words);
    assert_int_equal(o.complaints, 1);
    assert_int_equal(o.options.stats_exit, defaults.stats_exit);
    assert_int_equal(o.options.verbose, defaults.verbose);
    assert_int_equal(o.options.abort_conf, defaults.abort_conf);
    assert_int_equal(o.options.sample, defaults.sample);
    assert_int_equal(o.options.purge_delay_ms, defaults.purge_delay_ms);
}

static void test_nothing_is_defaults(void **state) {
    (void)state;
    expect_ok(NULL, defaults);
    expect_ok("", defaults);
    expect_ok(":", defaults);
    expect_ok(",:,,::", defaults);
}

static void test_every_key(void **state) {
    (void)state;
    expect_ok("stats=exit", (struct options){.stats_exit = true, .purge_delay_ms = 1000});
    expect_ok("stats_signal=on", (struct options){.stats_signal = true, .purge_delay_ms = 1000});
    expect_ok("stats_signal=on:stats_signal=off", defaults);
    expect_complaint("stats_signal=1",
                     "firn: FIRN_OPTIONS: stats_signal: value '1' ignored; expected on or off\n");
    expect_ok("verbose=1", (struct options){.verbose = true, .purge_delay_ms = 1000});
    expect_ok("abort_conf=1", (struct options){.abort_conf = true, .purge_delay_ms = 1000});
    expect_ok("purge_delay=0", (struct options){.purge_delay_ms = 0});
    expect_ok("purge_delay=600000", (struct options){.purge_delay_ms = 600000});
    expect_ok("purge_delay=1k", (struct options){.purge_delay_ms = 1024});
}

static void test_meshing(void **state) {
    (void)state;
    struct options want = {.purge_delay_ms = 1000, .mesh_auto = true, .mesh_pace = 100};
    want.mesh_budget = 4000;
    expect_ok("mesh=auto:mesh_pace=100:mesh_budget=4000", want);
    expect_ok("mesh=auto,mesh=off", defaults);
    expect_complaint("mesh=on",
                     "firn: FIRN_OPTIONS: mesh: value 'on' ignored; expected auto or off\n");
    expect_complaint("mesh_pace=0",
                     "firn: FIRN_OPTIONS: mesh_pace: value '0' ignored; expected 1 to 100\n");
}

// What hands blocks to a weaker allocator, or pages to the kernel, is refused where the level is the point.
static void test_what_is_weaker(void **state) {
    (void)state;
    const bool is_refused = FIRN_LEVEL >= 3;
    struct options want = {.purge_delay_ms = 1000, .large_only_bytes = 65536};
    if (is_refused) {
        expect_complaint("large_only=64k",
                         "firn: FIRN_OPTIONS: large_only: refused at level 3, which promises its "
                         "checks for all of the heap; ignored\n");
    } else {
        expect_ok("large_only=64k", want);
        expect_ok("large_only=64k:large_only=0", defaults);
    }
    if (is_refused) {
        expect_complaint("cold_store=swap",
                         "firn: FIRN_OPTIONS: cold_store: refused at level 3, which promises its "
                         "checks for all of the heap; ignored\n");
    } else {
        want = (struct options){.purge_delay_ms = 1000, .cold_store = OPTION_STORE_SWAP};
        expect_ok("cold_store=swap", want);
    }
    expect_ok("cold_store=firn", defaults);
    expect_ok("large_only=0", defaults);
    expect_complaint("large_only=4095", "firn: FIRN_OPTIONS: large_only: value '4095' ignored; "
                                        "expected 0, or 4096 to 65536G\n");
}

static void test_bare_key_means_one(void **state) {
    (void)state;
    expect_ok("verbose", (struct options){.verbose = true, .purge_delay_ms = 1000});
    expect_ok("purge_delay", (struct options){.purge_delay_ms = 1});
}

static void test_separators_and_order(void **state) {
    (void)state;
    const struct options all = {.stats_exit = true,
                                .verbose = true,
                                .abort_conf = true,
                                .sample = 500,
                                .purge_delay_ms = 5,
                                .report = "syslog"};
    expect_ok("stats=exit:verbose=1:abort_conf=1:sample=500:purge_delay=5:report=syslog", all);
    expect_ok("stats=exit,verbose,abort_conf,purge_delay=5,sample=500,report=syslog", all);
    expect_ok("sample=500:purge_delay=5,abort_conf::verbose:report=syslog,stats=exit,", all);
    expect_ok("verbose=1:verbose=0", defaults);
    expect_ok("purge_delay=7:purge_delay=8", (struct options){.purge_delay_ms = 8});
}

static void test_words(void **state) {
    (void)state;
    struct options want = {.purge_delay_ms = 1000, .cold = OPTION_COLD_ON, .cold_after_s = 5};
    expect_ok("cold=on:cold_after=5", want);
    want.cold = OPTION_COLD_AUTO;
    expect_ok("cold=on,cold=auto,cold_after=5", want);
    expect_ok("cold=on:cold=off", defaults);
    want = (struct options){.purge_delay_ms = 1000, .seal = 2, .cold_max_bytes = 1 << 20};
    expect_ok("seal=mac:seal=aead:cold_max=1m", want);
    want = (struct options){.purge_delay_ms = 1000, .fault = OPTION_FAULT_SIGNAL};
    expect_ok("fault=event:fault=signal", want);
    expect_complaint("fault=uffd",
                     "firn: FIRN_OPTIONS: fault: value 'uffd' ignored; expected auto, event, "
                     "signal or protect\n");
    expect_complaint("seal=gcm",
                     "firn: FIRN_OPTIONS: seal: value 'gcm' ignored; expected off, mac or aead\n");
    static const char *const bad[] = {"", "o", "onn", "off on", "ON", " "};
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[64], words[128];
        snprintf(text, sizeof text, "cold=%s", bad[i]);
        snprintf(words, sizeof words,
                 "firn: FIRN_OPTIONS: cold: value '%s' ignored; expected off, on or auto\n",
                 bad[i]);
        expect_complaint(text, words);
    }
    expect_complaint("cold",
                     "firn: FIRN_OPTIONS: cold: value '1' ignored; expected off, on or auto\n");
    expect_complaint("cold_after=0",
                     "firn: FIRN_OPTIONS: cold_after: value '0' ignored; expected 1 to 86400\n");
}

// P-SAMPLE: none turns samples off. (In these builds no level promises any; see GNUmakefile.)
static void test_samples_only_become_more(void **state) {
    (void)state;
    expect_ok("sample=100", (struct options){.sample = 100, .purge_delay_ms = 1000});
    expect_ok("sample=1000000", (struct options){.sample = 1000000, .purge_delay_ms = 1000});
    expect_complaint("sample=0",
                     "firn: FIRN_OPTIONS: sample: value '0' ignored; expected 100 to 1000000\n");
    expect_complaint("sample=99",
                     "firn: FIRN_OPTIONS: sample: value '99' ignored; expected 100 to 1000000\n");
    expect_complaint("sample", "firn: FIRN_OPTIONS: sample: value '1' ignored; expected 100 to "
                               "1000000\n");
}

static void test_report_target(void **state) {
    (void)state;
    expect_ok("report=/var/log/firn",
              (struct options){.purge_delay_ms = 1000, .report = "/var/log/firn"});
    // The one value with a separator in it.
    expect_ok("report=fd:2", (struct options){.purge_delay_ms = 1000, .report = "fd:2"});
    expect_ok("purge_delay=0,report=fd:17:verbose",
              (struct options){.verbose = true, .report = "fd:17"});
    expect_ok("report=fd", (struct options){.purge_delay_ms = 1000, .report = "fd"});
    expect_complaint("report", "firn: FIRN_OPTIONS: report: value '1' ignored; expected a file, "
                               "fd:N or syslog\n");
    expect_complaint("report=", "firn: FIRN_OPTIONS: report: value '' ignored; expected a file, "
                                "fd:N or syslog\n");
    char text[300] = "report=";
    memset(text + 7, 'p', OPTIONS_REPORT_BYTES);
    expect_complaint(text, "firn: FIRN_OPTIONS: report: value "
                           "'pppppppppppppppppppppppppppppppppppppppppppppppp...' ignored; "
                           "expected a file, fd:N or syslog\n");
    text[7 + OPTIONS_REPORT_BYTES - 1] = '\0';
    struct outcome o = parse(text);
    assert_int_equal(o.complaints, 0);
    assert_string_equal(o.options.report, text + 7);
    expect_complaint("reprot=x", "firn: FIRN_OPTIONS: unknown option 'reprot' ignored; closest is "
                                 "'report'\n");
}

static void test_unknown_key_names_the_closest(void **state) {
    (void)state;
    expect_complaint(
        "purge_dely=5",
        "firn: FIRN_OPTIONS: unknown option 'purge_dely' ignored; closest is 'purge_delay'\n");
    expect_complaint(
        "verbsoe", "firn: FIRN_OPTIONS: unknown option 'verbsoe' ignored; closest is 'verbose'\n");
    expect_complaint("stat=exit",
                     "firn: FIRN_OPTIONS: unknown option 'stat' ignored; closest is 'stats'\n");
    expect_complaint(
        "abortconf=1",
        "firn: FIRN_OPTIONS: unknown option 'abortconf' ignored; closest is 'abort_conf'\n");
    expect_complaint("=1", "firn: FIRN_OPTIONS: unknown option '' ignored; closest is 'off'\n");
}

static void test_keys_are_exact(void **state) {
    (void)state;
    expect_complaint(
        "Verbose=1",
        "firn: FIRN_OPTIONS: unknown option 'Verbose' ignored; closest is 'verbose'\n");
    expect_complaint(
        "verbose =1",
        "firn: FIRN_OPTIONS: unknown option 'verbose ' ignored; closest is 'verbose'\n");
}

static void test_bad_values_name_the_range(void **state) {
    (void)state;
    static const char *const bad[] = {
        "600001", "-1", "", "x", "1x", "0x10", "4294967296", "18446744073709551616", " 1", "1 "};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char text[64], words[160];
        snprintf(text, sizeof(text), "purge_delay=%s", bad[i]);
        snprintf(words, sizeof(words),
                 "firn: FIRN_OPTIONS: purge_delay: value '%s' ignored; expected 0 to 600000\n",
                 bad[i]);
        expect_complaint(text, words);
    }
    expect_complaint("verbose=2",
                     "firn: FIRN_OPTIONS: verbose: value '2' ignored; expected 0 or 1\n");
    expect_complaint("verbose=yes",
                     "firn: FIRN_OPTIONS: verbose: value 'yes' ignored; expected 0 or 1\n");
    expect_complaint("abort_conf=2",
                     "firn: FIRN_OPTIONS: abort_conf: value '2' ignored; expected 0 or 1\n");
    expect_complaint("stats=exi",
                     "firn: FIRN_OPTIONS: stats: value 'exi' ignored; expected exit\n");
    expect_complaint("stats=exit=",
                     "firn: FIRN_OPTIONS: stats: value 'exit=' ignored; expected exit\n");
    expect_complaint("stats", "firn: FIRN_OPTIONS: stats: value '1' ignored; expected exit\n");
}

static void test_off(void **state) {
    (void)state;
    assert_true(parse("off").options.is_off);
    assert_true(parse("verbose:off=1").options.is_off);
    assert_false(parse("off:off=0").options.is_off);
    expect_complaint("off=yes", "firn: FIRN_OPTIONS: off: value 'yes' ignored; expected 0 or 1\n");
}

// A level can be asked for, not changed.
static void test_level(void **state) {
    (void)state;
    static const char *const names[] = {"bare", "light", "default", "strict"};
    static const char *const libraries[] = {"-bare", "-light", "", "-strict"};
    for (unsigned level = 0; level < 8; level++) {
        char text[32], words[160];
        if (level < 4) {
            snprintf(text, sizeof text, "level=%u", level);
        } else {
            snprintf(text, sizeof text, "level=%s", names[level - 4]);
        }
        snprintf(words, sizeof words,
                 "firn: FIRN_OPTIONS: level: this process has level %d; preload libfirn%s.so, or "
                 "start it with firn run\n",
                 FIRN_LEVEL, libraries[level % 4]);
        if ((int)(level % 4) <= FIRN_LEVEL) {
            expect_ok(text, defaults);
        } else {
            expect_complaint(text, words);
        }
    }
    expect_complaint("level=4",
                     "firn: FIRN_OPTIONS: level: value '4' ignored; expected 0 to 3, bare, "
                     "light, default or strict\n");
}

static void test_the_rest_still_counts(void **state) {
    (void)state;
    struct outcome o = parse("nonsense:purge_delay=x,verbose=1:purge_delay=3");
    assert_int_equal(o.status, 0);
    assert_int_equal(o.complaints, 2);
    assert_true(o.options.verbose);
    assert_int_equal(o.options.purge_delay_ms, 3);
}

static void test_hostile_text_is_tamed(void **state) {
    (void)state;
    expect_complaint("verbose=\x1b[2J\n",
                     "firn: FIRN_OPTIONS: verbose: value '?[2J?' ignored; expected 0 or 1\n");
    char text[4096];
    memset(text, 'q', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    struct outcome o = parse(text);
    assert_int_equal(o.complaints, 1);
    static const char start[] =
        "firn: FIRN_OPTIONS: unknown option 'qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq...'"
        " ignored; closest is '";
    assert_memory_equal(o.said, start, sizeof(start) - 1);
}

static void test_abort_conf_ends_the_process(void **state) {
    (void)state;
    static const char want[] =
        "firn: FIRN_OPTIONS: unknown option 'verbos' ignored; closest is 'verbose'\n"
        "firn: FIRN_OPTIONS: abort_conf=1 ends the process\n";
    static const char *const texts[] = {"abort_conf=1:verbos", "verbos,abort_conf"};
    for (size_t i = 0; i < 2; i++) {
        struct outcome o = parse(texts[i]);
        assert_true(WIFSIGNALED(o.status));
        assert_int_equal(WTERMSIG(o.status), SIGABRT);
        assert_string_equal(o.said, want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_defaults),
        cmocka_unit_test(test_every_key),
        cmocka_unit_test(test_what_is_weaker),
        cmocka_unit_test(test_bare_key_means_one),
        cmocka_unit_test(test_meshing),
        cmocka_unit_test(test_separators_and_order),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_samples_only_become_more),
        cmocka_unit_test(test_report_target),
        cmocka_unit_test(test_unknown_key_names_the_closest),
        cmocka_unit_test(test_keys_are_exact),
        cmocka_unit_test(test_bad_values_name_the_range),
        cmocka_unit_test(test_off),
        cmocka_unit_test(test_level),
        cmocka_unit_test(test_the_rest_still_counts),
        cmocka_unit_test(test_hostile_text_is_tamed),
        cmocka_unit_test(test_abort_conf_ends_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
