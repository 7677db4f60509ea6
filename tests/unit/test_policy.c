// P-POLICY, /etc/firn.conf: which lines hold for which program, and the exact words for what is wrong.
#include "src/front/policy.h"

#include "tests/support/child.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char file[600], folder[512];

static void matches(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *path;
        bool is_match;
    } rows[] = {
        {"/bin/ls", "/bin/ls", true},
        {"/bin/ls", "/bin/lsof", false},
        {"/bin/lsof", "/bin/ls", false},
        {"/bin/*", "/bin/ls", true},
        {"/bin/*", "/bin/", true},
        {"/bin/*", "/bin/a/b", false},
        {"/*/ls", "/bin/ls", true},
        {"/*/ls", "/usr/bin/ls", false},
        {"/**/ls", "/usr/bin/ls", true},
        {"/usr/**", "/usr/lib/jvm/bin/java", true},
        {"/usr/**", "/opt/java", false},
        {"**", "/x", true},
        {"**/java", "/usr/lib/jvm/bin/java", true},
        {"**/java", "/usr/lib/jvm/bin/javac", false},
        {"/b?n/ls", "/bin/ls", true},
        {"/b?n/ls", "/b/n/ls", false},
        {"/bin?ls", "/bin/ls", false},
        {"/*a*b/c", "/xaab/c", true},
        {"/*a*b/c", "/xaabx/c", false},
        {"/*a*/b", "/xa1a2/b", true},
        // The first star has to give back what it took, the second one must not run past a slash.
        {"/**/lib*/x", "/a/lib1/b/lib2/x", true},
        {"/**/lib*/x", "/a/lib1/b/lib2/y/x", false},
        {"/**a**b", "/1a2/3a4b", true},
        {"/**a**b", "/1a2/3a4b5", false},
        {"/usr/bin/python3*", "/usr/bin/python3.11", true},
        {"/***", "/a/b", true},
        {"", "", true},
        {"", "/", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (policy_matches(rows[i].pattern, rows[i].path) != rows[i].is_match) {
            print_error("%s against %s\n", rows[i].pattern, rows[i].path);
            fail();
        }
    }
    // In linear time, or nearly: many stars, and no match at the very end.
    char pattern[257] = "/", path[2049] = "/";
    for (unsigned i = 0; i < 85; i++) {
        strcat(pattern, i % 2 == 0 ? "**a" : "*a");
    }
    memset(path + 1, 'a', sizeof path - 2);
    strcat(pattern, "b");
    assert_false(policy_matches(pattern, path));
}

static void put(const char *path, const char *text, size_t n) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, n), (ssize_t)n);
    assert_int_equal(fchmod(fd, 0644), 0);
    close(fd);
}

static char seen[8192];

static unsigned note(const char *options, const char *origin, void *context) {
    (void)context;
    size_t n = strlen(seen);
    snprintf(seen + n, sizeof seen - n, "%s=%s\n", strrchr(origin, '/') + 1, options);
    return strstr(options, "bad") != NULL;
}

static void read_it(void *context) {
    const struct policy_source source = {file, folder, geteuid(), context};
    const unsigned complaints = policy_read(&source, note, NULL);
    if (write(STDERR_FILENO, seen, strlen(seen)) < 0) {
        _exit(99);
    }
    _exit((int)complaints);
}

// Complaints, with @ for the file's path and % for the folder's; then what was applied.
static void expect(const char *program, unsigned complaints, const char *words) {
    struct child c;
    char want[4096] = "";
    child_run(&c, read_it, (void *)(uintptr_t)program);
    for (const char *at = words; *at != '\0'; at++) {
        const size_t n = strlen(want);
        if (*at == '@' || *at == '%') {
            snprintf(want + n, sizeof want - n, "firn: %s", *at == '%' ? folder : file);
        } else {
            want[n] = *at;
            want[n + 1] = '\0';
        }
    }
    assert_string_equal(c.said, want);
    assert_true(child_exited(&c, (int)complaints));
}

#define LINES(text) put(file, text, sizeof(text) - 1)

static void lines(void **state) {
    (void)state;
    unlink(file);
    expect("/bin/a", 0, "");
    LINES("");
    expect("/bin/a", 0, "");
    LINES("# nothing\n\n   \n\t# nor here\n");
    expect("/bin/a", 0, "");
    LINES("/bin/a one=1\n/bin/b two=2\n** three=3\n/bin/* four=4\n");
    expect("/bin/a", 0, "file:1=one=1\nfile:3=three=3\nfile:4=four=4\n");
    expect("/sbin/c", 0, "file:3=three=3\n");
    LINES("  /bin/a \t one=1   two=2:three # rest\r\n/bin/a last");
    expect("/bin/a", 0, "file:1=one=1:two=2:three\nfile:2=last\n");
    LINES("/bin/a one#two\n");
    expect("/bin/a", 0, "file:1=one#two\n");
}

static void wrong_lines(void **state) {
    (void)state;
    LINES("a b\n/bin/a\n/bin/a # x\n/bin/a good\n/bin/a \x1b[2J\n/bin/a bad\n");
    expect("/bin/a", 5,
           "@:1: ignored, the pattern 'a' begins neither with / nor with **\n"
           "@:2: ignored, no option after the pattern '/bin/a'\n"
           "@:3: ignored, no option after the pattern '/bin/a'\n"
           "@:5: ignored, there is a control character in it\n"
           "file:4=good\nfile:6=bad\n");
    put(file, "/bin/a x\0y\n/bin/a z\n", 20);
    expect("/bin/a", 1, "@:1: ignored, there is a control character in it\nfile:2=z\n");
    // 511 bytes fit.
    char text[1100] = "/bin/a ";
    memset(text + 7, 'x', 504);
    text[511] = '\n';
    memcpy(text + 512, "/bin/a ", 7);
    memset(text + 519, 'y', 505);
    memcpy(text + 1024, "\n/bin/a z", 9);
    put(file, text, 1033);
    char words[1100] = "@:2: ignored, the line is longer than 511 bytes\nfile:1=";
    snprintf(words + strlen(words), sizeof words - strlen(words), "%.504s\nfile:3=z\n", text + 7);
    expect("/bin/a", 1, words);
}

// A file full of nonsense does not fill the terminal.
static void many_wrong_lines(void **state) {
    (void)state;
    char text[400] = "", words[2048] = "";
    for (unsigned i = 1; i <= 20; i++) {
        strcat(text, "nonsense here\n");
        if (i <= POLICY_COMPLAINTS_MOST) {
            snprintf(words + strlen(words), 200,
                     "@:%u: ignored, the pattern 'nonsense' begins neither with / nor with **%s\n",
                     i, i == POLICY_COMPLAINTS_MOST ? "; nothing more is said" : "");
        }
    }
    put(file, text, strlen(text));
    expect("/bin/a", 20, words);
}

static void folders(void **state) {
    (void)state;
    char path[600];
    LINES("** from=file\n");
    assert_int_equal(mkdir(folder, 0755), 0);
    static const char *const names[] = {"20-b.conf", "10-a.conf", "30.txt", ".conf", "x.conf"};
    for (unsigned i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        put(path, "** n\n", 5);
    }
    expect("/bin/a", 0, "file:1=from=file\n10-a.conf:1=n\n20-b.conf:1=n\nx.conf:1=n\n");
    chmod(path, 0666);
    expect("/bin/a", 1,
           "%/x.conf: ignored, others than its owner may write to it\n"
           "file:1=from=file\n10-a.conf:1=n\n20-b.conf:1=n\n");
    chmod(folder, 0777);
    expect("/bin/a", 1, "%: ignored, others than its owner may write to it\nfile:1=from=file\n");
}

static void untrusted(void **state) {
    (void)state;
    LINES("** x\n");
    chmod(file, 0622);
    expect("/bin/a", 1, "@: ignored, others than its owner may write to it\n");
}

static int set_up(void **state) {
    (void)state;
    const char *above = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/firn-policy.XXXXXX", above != NULL ? above : "/tmp");
    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    snprintf(file, sizeof file, "%s/file", folder);
    strcat(folder, "/folder");
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[600];
    *strrchr(folder, '/') = '\0';
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches),     cmocka_unit_test(lines),
        cmocka_unit_test(wrong_lines), cmocka_unit_test(many_wrong_lines),
        cmocka_unit_test(folders),     cmocka_unit_test(untrusted),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
