// The small kernel services, and the search for the module of an address.
// firn-test: share=2
#include "src/os/sys.h"

#include "tests/support/child.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

static char own_path[4096];
static char folder[4096]; // for this test alone

static void *make_folder(void) {
    const char *above = getenv("TMPDIR");
    snprintf(folder, sizeof(folder), "%s/firn-sys.XXXXXX", above != NULL ? above : "/tmp");
    return mkdtemp(folder);
}

static int remove_folder(void **state) {
    static const char *const files[] = {"secure", "out", "fixed"};
    char path[4200];
    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, files[i]);
        unlink(path);
    }
    return rmdir(folder);
}

static void environment(void **state) {
    (void)state;
    setenv("FIRN_SYS_TEST", "a=b:c", 1);
    setenv("FIRN_SYS_TEST_LONGER", "no", 1);
    setenv("FIRN_SYS_EMPTY", "", 1);
    assert_string_equal(sys_environment("FIRN_SYS_TEST"), "a=b:c");
    assert_string_equal(sys_environment("FIRN_SYS_EMPTY"), "");
    assert_null(sys_environment("FIRN_SYS"));
    assert_null(sys_environment("FIRN_SYS_TEST="));
    char **saved = environ;
    environ = NULL;
    assert_null(sys_environment("FIRN_SYS_TEST"));
    environ = saved;
    errno = 77;
    assert_false(sys_is_secure());
    assert_int_equal(errno, 77);
}

static void copy_file(const char *from, const char *to, mode_t mode) {
    char buffer[65536];
    ssize_t got;
    int in = open(from, O_RDONLY);
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL, 0700);
    assert_true(in >= 0 && out >= 0);
    while ((got = read(in, buffer, sizeof(buffer))) > 0) {
        assert_int_equal(write(out, buffer, (size_t)got), got);
    }
    close(in);
    close(out);
    assert_int_equal(chmod(to, mode), 0);
}

static void run_as_nobody(void *program) {
    setenv("FIRN_SYS_TEST", "from outside", 1);
    if (setgid(65534) != 0 || setuid(65534) != 0) {
        _exit(50);
    }
    execl(program, "test_sys", "--secure", (char *)NULL);
    _exit(51);
}

// What this program does as a set-user-ID program; see below.
static int secure_main(void) {
    return sys_is_secure() && getenv("FIRN_SYS_TEST") != NULL &&
                   sys_environment("FIRN_SYS_TEST") == NULL
               ? 0
           : getuid() == geteuid() ? 52
                                   : 1;
}

// A set-user-ID copy of this program, started by nobody, must not see the caller's environment.
// P-SECURE
static void secure_programs_read_no_environment(void **state) {
    (void)state;
    struct child c;
    char program[4200];
    if (geteuid() != 0) {
        skip();
    }
    snprintf(program, sizeof(program), "%s/secure", folder);
    copy_file(own_path, program, 04755);
    // A path through folders that only root may enter would keep nobody out; a descriptor does not.
    int fd = open(program, O_RDONLY);
    snprintf(program, sizeof(program), "/proc/self/fd/%d", fd);
    child_run(&c, run_as_nobody, program);
    close(fd);
    if (child_exited(&c, 52)) {
        skip(); // mounted nosuid
    }
    assert_true(child_exited(&c, 0));
}

static void writes_all(void **state) {
    (void)state;
    int ends[2];
    char in[300];
    assert_int_equal(pipe(ends), 0);
    errno = 77;
    sys_write(ends[1], "hello", 5);
    assert_int_equal(read(ends[0], in, sizeof(in)), 5);
    assert_memory_equal(in, "hello", 5);
    close(ends[0]);
    close(ends[1]);
    sys_write(ends[1], "x", 1); // closed: given up
    assert_int_equal(errno, 77);
}

static void on_alarm(int number) {
    (void)number;
}

static void write_much(void *descriptor) {
    static char data[1 << 20];
    memset(data, 'x', sizeof(data));
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval often = {{0, 1000}, {0, 1000}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    sys_write(*(int *)descriptor, data, sizeof(data));
}

// A pipe takes 64 KiB at a time and a timer interrupts in between. Every byte arrives; the reader
// is a shell, the writer a child whose stderr the pipe is.
static void short_and_interrupted_writes(void **state) {
    (void)state;
    char command[4300], path[4200];
    struct child c;
    struct stat st;
    snprintf(path, sizeof(path), "%s/out", folder);
    snprintf(command, sizeof(command), "sleep 0.05; cat > '%s'", path);
    FILE *reader = popen(command, "w");
    assert_non_null(reader);
    int descriptor = fileno(reader);
    child_run(&c, write_much, &descriptor);
    assert_true(child_exited(&c, 0));
    assert_int_equal(pclose(reader), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 1 << 20);
}

static void reads_files(void **state) {
    (void)state;
    char buffer[64], small[4];
    errno = 77;
    size_t n = sys_read_file("/proc/sys/kernel/ostype", buffer, sizeof(buffer));
    assert_int_equal(n, 6);
    assert_string_equal(buffer, "Linux\n");
    assert_int_equal(sys_read_file("/proc/sys/kernel/ostype", small, sizeof(small)), 3);
    assert_string_equal(small, "Lin");
    assert_int_equal(sys_read_file("/nonexistent/file", buffer, sizeof(buffer)), 0);
    assert_string_equal(buffer, "");
    assert_int_equal(sys_read_file("/", buffer, sizeof(buffer)), 0);
    assert_int_equal(sys_read_file("/proc/sys/kernel/ostype", small, 0), 0);
    assert_int_equal(errno, 77);
}

static void identity(void **state) {
    (void)state;
    assert_int_equal(sys_process_id(), getpid());
    assert_int_equal(sys_thread_id(), syscall(SYS_gettid));
    errno = 77;
    sys_yield();
    assert_int_equal(errno, 77);
}

static void check_located(const void *function) {
    char path[4096], real[4096];
    Dl_info info;
    assert_true(dladdr(function, &info) != 0);
    errno = 77;
    uintptr_t offset = sys_locate((uintptr_t)function + 4, path, sizeof(path));
    assert_int_equal(errno, 77);
    assert_int_equal(offset, (uintptr_t)function + 4 - (uintptr_t)info.dli_fbase);
    if (strchr(info.dli_fname, '/') != NULL) {
        assert_non_null(realpath(info.dli_fname, real));
        assert_string_equal(path, real);
    }
}

static void locates_program_and_libraries(void **state) {
    (void)state;
    check_located((const void *)(uintptr_t)&check_located);
    check_located(dlsym(RTLD_NEXT, "qsort"));
    check_located(dlsym(RTLD_NEXT, "_cmocka_run_group_tests"));
}

// A program linked at a fixed address is named by its addresses, as addr2line wants them.
static void locates_in_fixed_programs(void **state) {
    (void)state;
    char path[4200], program[4200];
    unsigned char *page =
        mmap((void *)0x10000000, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(page != MAP_FAILED);
    munmap(page, 8192);
    ElfW(Ehdr) header = {.e_ident = ELFMAG, .e_type = ET_EXEC};
    snprintf(program, sizeof(program), "%s/fixed", folder);
    int fd = open(program, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_int_equal(write(fd, &header, sizeof(header)), sizeof(header));
    assert_int_equal(ftruncate(fd, 8192), 0);
    page = mmap(page, 8192, PROT_READ, MAP_PRIVATE, fd, 0);
    assert_true(page != MAP_FAILED);
    assert_int_equal(sys_locate((uintptr_t)page + 4100, path, sizeof(path)),
                     (uintptr_t)page + 4100);
    assert_string_equal(path, program);
    munmap(page, 8192);
    // The same file without its first page: all that is known is the distance in the file.
    page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 4096);
    assert_true(page != MAP_FAILED);
    assert_int_equal(sys_locate((uintptr_t)page + 4, path, sizeof(path)), 4100);
    munmap(page, 4096);
    close(fd);
}

static void unknown_addresses(void **state) {
    (void)state;
    char path[64];
    void *anonymous = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_int_equal(sys_locate(16, path, sizeof(path)), 16);
    assert_string_equal(path, "?");
    assert_int_equal(sys_locate(UINTPTR_MAX, path, sizeof(path)), UINTPTR_MAX);
    assert_string_equal(path, "?");
    assert_int_equal(sys_locate((uintptr_t)anonymous, path, sizeof(path)), (uintptr_t)anonymous);
    assert_string_equal(path, "?");
    munmap(anonymous, 4096);
}

static void long_paths_are_cut(void **state) {
    (void)state;
    char path[8] = "#######";
    sys_locate((uintptr_t)&long_paths_are_cut, path, 5);
    assert_memory_equal(path, own_path, 4);
    assert_int_equal(path[4], '\0');
    assert_int_equal(path[5], '#');
}

static void locate_without_descriptors(void *unused) {
    char path[64];
    struct rlimit none = {0, 0};
    (void)unused;
    setrlimit(RLIMIT_NOFILE, &none);
    _exit(sys_locate(4711, path, sizeof(path)) == 4711 && strcmp(path, "?") == 0 ? 0 : 1);
}

static void works_without_descriptors(void **state) {
    (void)state;
    struct child c;
    child_run(&c, locate_without_descriptors, NULL);
    assert_true(child_exited(&c, 0));
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--secure") == 0) {
        return secure_main();
    }
    if (readlink("/proc/self/exe", own_path, sizeof(own_path) - 1) < 0 || make_folder() == NULL) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(environment),
        cmocka_unit_test(secure_programs_read_no_environment),
        cmocka_unit_test(writes_all),
        cmocka_unit_test(short_and_interrupted_writes),
        cmocka_unit_test(reads_files),
        cmocka_unit_test(identity),
        cmocka_unit_test(locates_program_and_libraries),
        cmocka_unit_test(locates_in_fixed_programs),
        cmocka_unit_test(unknown_addresses),
        cmocka_unit_test(long_paths_are_cut),
        cmocka_unit_test(works_without_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, remove_folder);
}
