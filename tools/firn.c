// firn: starts programs under the allocator, and says whether a process runs under it.
//
// It only sets LD_PRELOAD and calls exec, so that what runs is the program itself, not a child.
#include "src/front/options.h"
#include "src/front/policy.h"

#include <elf.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRN_VERSION "0.1.0"
#define EXIT_USAGE 2        // as the shell's builtins
#define EXIT_CANNOT_RUN 126 // as env(1): found, but cannot be run
#define EXIT_NOT_FOUND 127

static const char usage_text[] =
    "usage: firn run [--level LEVEL] [--checked] [--options KEY=VALUE:...] [--]\n"
    "                COMMAND [ARGUMENT...]\n"
    "       firn stat PID\n"
    "       firn conf COMMAND\n"
    "       firn --help | --version\n"
    "\n"
    "run   starts COMMAND with Firn as its malloc. LEVEL is 0 or bare, 1 or light,\n"
    "      2 or default, 3 or strict; what /etc/firn.conf says, else 2, when not given.\n"
    "      --checked: levels 1 and 2 also\n"
    "      check memcpy, strcpy and their like. --options sets FIRN_OPTIONS.\n"
    "stat  says whether the process runs under Firn, and from which file. Its exit\n"
    "      status is 0 if it does, 1 if it does not.\n"
    "conf  says which lines of /etc/firn.conf and /etc/firn.conf.d hold for COMMAND, and\n"
    "      what is wrong with them. Its exit status is 1 if something is.\n";

struct level {
    const char *number;
    const char *name;
    const char *library;
    const char *checked; // with checked memory and string functions; NULL: there is none
};

static const struct level levels[] = {
    {"0", "bare", "libfirn-bare.so", NULL},
    {"1", "light", "libfirn-light.so", "libfirn-light-checked.so"},
    {"2", "default", "libfirn.so", "libfirn-checked.so"},
    {"3", "strict", "libfirn-strict.so", "libfirn-strict.so"},
};
#define LEVEL_COUNT (sizeof levels / sizeof levels[0])
#define LEVEL_DEFAULT 2

static int complain_usage(const char *what, const char *detail) {
    fprintf(stderr, "firn: %s%s%s\n%s", what, detail != NULL ? ": " : "",
            detail != NULL ? detail : "", usage_text);
    return EXIT_USAGE;
}

static const struct level *level_find(const char *text) {
    for (size_t i = 0; i < LEVEL_COUNT; i++) {
        if (strcmp(text, levels[i].number) == 0 || strcmp(text, levels[i].name) == 0) {
            return &levels[i];
        }
    }
    return NULL;
}

// Writes "DIRECTORY/NAME" to `path` when that is a readable regular file.
static bool library_is_at(const char *directory, const char *name, char *path, size_t path_bytes) {
    int n = snprintf(path, path_bytes, "%s/%s", directory, name);
    struct stat info;
    return n > 0 && (size_t)n < path_bytes && stat(path, &info) == 0 && S_ISREG(info.st_mode) &&
           access(path, R_OK) == 0;
}

// Looks beside this program (a build folder), in ../lib (an installed tree that was moved), then
// where `make install` puts libraries. Says where it looked when there is none.
static bool library_find(const char *name, char *path, size_t path_bytes) {
    char self[PATH_MAX];
    char beside_lib[PATH_MAX + 8];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL) {
        *slash = '\0';
        snprintf(beside_lib, sizeof beside_lib, "%s/../lib", self);
        if (library_is_at(self, name, path, path_bytes)) {
            return true;
        }
        // realpath: the path shows up in ps, in /proc/PID/environ and in the programs' own logs.
        char real[PATH_MAX];
        if (realpath(beside_lib, real) != NULL && library_is_at(real, name, path, path_bytes)) {
            return true;
        }
    }
    if (library_is_at(FIRN_LIBDIR, name, path, path_bytes)) {
        return true;
    }
    fprintf(stderr, "firn: cannot find %s in %s, %s/../lib or %s: run make, or make install\n",
            name, self, self, FIRN_LIBDIR);
    return false;
}

// ld.so splits LD_PRELOAD at spaces and colons and knows no quoting.
static bool preload_set(const char *library) {
    if (strpbrk(library, " :") != NULL) {
        fprintf(stderr, "firn: %s: a path with a space or a colon cannot be preloaded\n", library);
        return false;
    }
    const char *old = getenv("LD_PRELOAD");
    if (old == NULL || old[0] == '\0') {
        return setenv("LD_PRELOAD", library, 1) == 0;
    }
    char *both = NULL;
    if (asprintf(&both, "%s:%s", library, old) < 0) {
        return false;
    }
    bool is_set = setenv("LD_PRELOAD", both, 1) == 0;
    free(both);
    return is_set;
}

struct run_request {
    const struct level *level;
    bool is_checked;
    const char *options;
    char **command;
};

// The value of "--NAME VALUE" or "--NAME=VALUE" at *argument, which moves to the last word used;
// NULL when the word is another option. *is_missing: the option is there, its value is not.
static const char *option_value(const char *name, char ***argument, bool *is_missing) {
    const char *word = **argument;
    size_t n = strlen(name);
    if (strncmp(word, name, n) != 0 || (word[n] != '\0' && word[n] != '=')) {
        return NULL;
    }
    if (word[n] == '=') {
        return word + n + 1;
    }
    if ((*argument)[1] == NULL) {
        *is_missing = true;
        return NULL;
    }
    return *++*argument;
}

// 0, or the exit status after a complaint.
static int run_parse(char **argument, struct run_request *request) {
    for (; *argument != NULL && (*argument)[0] == '-'; argument++) {
        if (strcmp(*argument, "--") == 0) {
            argument++;
            break;
        }
        if (strcmp(*argument, "--checked") == 0) {
            request->is_checked = true;
            continue;
        }
        const char *word = *argument;
        bool is_missing = false;
        const char *level = option_value("--level", &argument, &is_missing);
        const char *options =
            level == NULL ? option_value("--options", &argument, &is_missing) : NULL;
        if (is_missing) {
            return complain_usage("this option needs a value", word);
        }
        if (level == NULL && options == NULL) {
            return complain_usage("unknown option", word);
        }
        if (level != NULL) {
            request->level = level_find(level);
            if (request->level == NULL) {
                return complain_usage("no such level", level);
            }
        } else {
            request->options = options;
        }
    }
    request->command = argument;
    return *argument == NULL ? complain_usage("run needs a command", NULL) : 0;
}

// ---- /etc/firn.conf -------------------------------------------------------------------------

// Where execvp would find a command. False: nowhere, errno says why.
static bool command_find(const char *command, char *path) {
    const char *folders = getenv("PATH");
    if (strchr(command, '/') != NULL) {
        return realpath(command, path) != NULL;
    }
    for (const char *at = folders != NULL ? folders : "/bin:/usr/bin"; *at != '\0';) {
        const int n = (int)strcspn(at, ":");
        char candidate[PATH_MAX];
        if (snprintf(candidate, sizeof candidate, "%.*s/%s", n, n > 0 ? at : ".", command) <
                (int)sizeof candidate &&
            access(candidate, X_OK) == 0) {
            return realpath(candidate, path) != NULL;
        }
        at += n + (at[n] != '\0');
    }
    errno = ENOENT;
    return false;
}

// The program that the kernel would run: that of the first line, for a script.
static void program_of(char *path) {
    char line[256] = "";
    FILE *file = fopen(path, "re");
    if (file == NULL || fgets(line, sizeof line, file) == NULL || strncmp(line, "#!", 2) != 0) {
        line[0] = '\0';
    }
    if (file != NULL) {
        fclose(file);
    }
    char *name = line + (line[0] != '\0' ? 2 : 0);
    name += strspn(name, " \t");
    name[strcspn(name, " \t\n")] = '\0';
    char real[PATH_MAX];
    if (name[0] == '/' && realpath(name, real) != NULL) {
        snprintf(path, PATH_MAX, "%s", real);
    }
}

static unsigned policy_find(const char *program, policy_apply_fn *apply, void *context) {
    const struct policy_source source = {POLICY_FILE, POLICY_FOLDER, 0, program};
    return policy_read(&source, apply, context);
}

// The last level=; a wrong one is said by the library when it starts.
static unsigned take_level(const char *options, const char *origin, void *context) {
    const struct level **found = context;
    (void)origin;
    for (const char *at = options; *at != '\0';) {
        const size_t n = strcspn(at, ":,");
        char value[16];
        if (n > 6 && n < 6 + sizeof value && strncmp(at, "level=", 6) == 0) {
            snprintf(value, sizeof value, "%.*s", (int)n - 6, at + 6);
            const struct level *level = level_find(value);
            *found = level != NULL ? level : *found;
        }
        at += n + (at[n] != '\0');
    }
    return 0;
}

static unsigned show_line(const char *options, const char *origin, void *context) {
    (void)context;
    printf("%s: %s\n", origin, options);
    fflush(stdout);
    return options_apply(options, origin);
}

static int show_policy(const char *command) {
    char program[PATH_MAX];
    if (!command_find(command, program)) {
        fprintf(stderr, "firn: %s: %s\n", command, strerror(errno));
        return EXIT_USAGE;
    }
    program_of(program);
    printf("%s\n", program);
    fflush(stdout);
    return policy_find(program, show_line, NULL) != 0;
}

static const struct level *level_of_policy(const char *command) {
    const struct level *level = &levels[LEVEL_DEFAULT];
    char program[PATH_MAX];
    if (command_find(command, program)) {
        program_of(program);
        (void)policy_find(program, take_level, &level);
    }
    return level;
}

// ---- programs that a preload does not reach ----------------------------------------------------

// The loader of an ELF file for this machine: "" for a static one. False: no such file.
static bool loader_of(const char *path, char *loader, size_t loader_bytes) {
    Elf64_Ehdr head;
    Elf64_Phdr part;
    FILE *file = fopen(path, "re");
    bool is_elf = file != NULL && fread(&head, sizeof head, 1, file) == 1 &&
                  memcmp(head.e_ident, ELFMAG, SELFMAG) == 0 &&
                  head.e_ident[EI_CLASS] == ELFCLASS64 && head.e_machine == EM_X86_64;
    loader[0] = '\0';
    for (unsigned i = 0; is_elf && i < head.e_phnum; i++) {
        is_elf = fseek(file, (long)(head.e_phoff + i * sizeof part), SEEK_SET) == 0 &&
                 fread(&part, sizeof part, 1, file) == 1;
        if (is_elf && part.p_type == PT_INTERP) {
            const size_t n = part.p_filesz < loader_bytes ? part.p_filesz : loader_bytes;
            is_elf = n > 0 && fseek(file, (long)part.p_offset, SEEK_SET) == 0 &&
                     fread(loader, 1, n, file) == n;
            loader[n > 0 ? n - 1 : 0] = '\0';
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return is_elf;
}

// Says why, where Firn cannot be this command's malloc: musl's loader would even refuse to start it.
static bool can_preload(const char *command) {
    char program[PATH_MAX];
    char loader[256];
    if (!command_find(command, program)) {
        return true; // exec says it
    }
    program_of(program);
    if (!loader_of(program, loader, sizeof loader) || strstr(loader, "/ld-linux") != NULL) {
        return true;
    }
    if (loader[0] == '\0') {
        fprintf(stderr,
                "firn: %s is statically linked and runs without Firn: link it with libfirn.a\n",
                program);
    } else {
        fprintf(stderr, "firn: %s runs without Firn, which needs glibc: its loader is %s\n",
                program, loader);
    }
    return false;
}

static int run(char **arguments) {
    struct run_request request = {.level = NULL};
    int status = run_parse(arguments, &request);
    if (status != 0) {
        return status;
    }
    if (request.level == NULL) {
        request.level = level_of_policy(request.command[0]);
    }
    const char *name = request.is_checked ? request.level->checked : request.level->library;
    if (name == NULL) {
        return complain_usage("level 0 checks nothing", "--checked");
    }
    char library[PATH_MAX];
    if (!library_find(name, library, sizeof library) ||
        (can_preload(request.command[0]) && !preload_set(library))) {
        return EXIT_CANNOT_RUN;
    }
    if (request.options != NULL && setenv("FIRN_OPTIONS", request.options, 1) != 0) {
        perror("firn: FIRN_OPTIONS");
        return EXIT_CANNOT_RUN;
    }
    execvp(request.command[0], request.command);
    int reason = errno;
    fprintf(stderr, "firn: cannot run %s: %s\n", request.command[0], strerror(reason));
    return reason == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
}

// The file name of a Firn library in a line of /proc/PID/maps, or NULL.
static const char *library_in_line(char *line) {
    line[strcspn(line, "\n")] = '\0';
    char *path = strchr(line, '/');
    const char *name = path != NULL ? strrchr(path, '/') : NULL;
    return name != NULL && strncmp(name, "/libfirn", 8) == 0 && strstr(name, ".so") != NULL ? path
                                                                                            : NULL;
}

static int stat_process(const char *pid) {
    char *end;
    errno = 0;
    long number = strtol(pid, &end, 10);
    if (errno != 0 || *end != '\0' || end == pid || number <= 0 || number > INT_MAX) {
        return complain_usage("not a process id", pid);
    }
    char file[64];
    snprintf(file, sizeof file, "/proc/%ld/maps", number);
    FILE *maps = fopen(file, "re");
    if (maps == NULL) {
        fprintf(stderr, "firn: process %ld: %s\n", number,
                errno == ENOENT ? "no such process" : strerror(errno));
        return EXIT_USAGE;
    }
    char line[PATH_MAX + 128];
    bool is_empty = true;
    const char *path = NULL;
    while (path == NULL && fgets(line, sizeof line, maps) != NULL) {
        is_empty = false;
        path = library_in_line(line);
    }
    bool is_broken = ferror(maps) != 0;
    fclose(maps);
    if (is_broken || is_empty) {
        fprintf(stderr, "firn: process %ld: its memory map cannot be read\n", number);
        return EXIT_USAGE;
    }
    if (path == NULL) {
        printf("%ld: Firn is not loaded\n", number);
        return 1;
    }
    printf("%ld: Firn is loaded from %s\n", number, path);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        return complain_usage("nothing to do", NULL);
    }
    const char *command = argv[1];
    if (strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0) {
        return fputs(usage_text, stdout) < 0 || fflush(stdout) != 0;
    }
    if (strcmp(command, "--version") == 0) {
        return puts("firn " FIRN_VERSION) < 0 || fflush(stdout) != 0;
    }
    if (strcmp(command, "run") == 0) {
        return run(argv + 2);
    }
    if (strcmp(command, "stat") == 0) {
        return argc == 3 ? stat_process(argv[2])
                         : complain_usage("stat needs one process id", NULL);
    }
    if (strcmp(command, "conf") == 0) {
        return argc == 3 ? show_policy(argv[2]) : complain_usage("conf needs one command", NULL);
    }
    return complain_usage("unknown command", command);
}
