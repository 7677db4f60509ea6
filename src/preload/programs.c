// The calls that start programs: a path, and vectors of strings. A successful exec does not return, and one between
// vfork and its end would leave pins in the parent: so what they read is brought back, and not pinned. It is idle
// again in seconds at the earliest.
#include "src/front/front.h"
#include "src/preload/call.h"

#include <alloca.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

// clang-format off
#define NAMES(X)                                                                                  \
    X(execve) X(execv) X(execvp) X(execvpe) X(fexecve) X(posix_spawn) X(posix_spawnp) X(system)
// clang-format on
CALL_DEFINITIONS(call_find_programs, call_fails);

CALL_TOUCHED(int, execve, (const char *path, char *const argv[], char *const envp[]),
             (path, argv, envp), add_path(&c, path), call_add_strings(&c, argv),
             call_add_strings(&c, envp));
CALL_TOUCHED(int, execv, (const char *path, char *const argv[]), (path, argv), add_path(&c, path),
             call_add_strings(&c, argv), call_add_strings(&c, environ));
CALL_TOUCHED(int, execvp, (const char *file, char *const argv[]), (file, argv), add_path(&c, file),
             call_add_strings(&c, argv), call_add_strings(&c, environ));
CALL_TOUCHED(int, execvpe, (const char *file, char *const argv[], char *const envp[]),
             (file, argv, envp), add_path(&c, file), call_add_strings(&c, argv),
             call_add_strings(&c, envp));
CALL_TOUCHED(int, fexecve, (int fd, char *const argv[], char *const envp[]), (fd, argv, envp),
             call_add_strings(&c, argv), call_add_strings(&c, envp));
// Until the child has ended: with all of the environment pinned that would be much for long.
CALL_TOUCHED(int, system, (const char *command), (command), add_path(&c, command),
             call_add_strings(&c, environ));

// ---- spawning ------------------------------------------------------------------------------------

// The child, which shares our memory, opens the paths that are in there. Only libc knows where: every word that may
// be one is taken for one.
static void add_actions(struct call *c, const posix_spawn_file_actions_t *actions) {
    if (actions != NULL && actions->__actions != NULL) {
        call_add_object(c, actions->__actions);
        const void *const *words = (const void *const *)(const void *)actions->__actions;
        size_t bytes = front_object_size(words);
        for (size_t i = 0; bytes != SIZE_MAX && i < bytes / sizeof *words; i++) {
            call_add_object(c, words[i]);
        }
    }
}

static void add_spawn(struct call *c, const char *path, const posix_spawn_file_actions_t *actions,
                      const posix_spawnattr_t *attributes) {
    add_path(c, path);
    add_actions(c, actions);
    add(c, attributes, sizeof *attributes);
}

CALL_GUARDED(int, posix_spawn,
             (pid_t *restrict process, const char *restrict path,
              const posix_spawn_file_actions_t *restrict actions,
              const posix_spawnattr_t *restrict attributes, char *const argv[restrict],
              char *const envp[restrict]),
             (process, path, actions, attributes, argv, envp),
             add_spawn(&c, path, actions, attributes), call_add_strings(&c, argv),
             call_add_strings(&c, envp));
CALL_GUARDED(int, posix_spawnp,
             (pid_t *restrict process, const char *restrict file,
              const posix_spawn_file_actions_t *restrict actions,
              const posix_spawnattr_t *restrict attributes, char *const argv[restrict],
              char *const envp[restrict]),
             (process, file, actions, attributes, argv, envp),
             add_spawn(&c, file, actions, attributes), call_add_strings(&c, argv),
             call_add_strings(&c, envp), call_add_strings(&c, environ)); // for PATH

// ---- vectors made of arguments --------------------------------------------------------------------

// What follows the last is the environment, of execle.
static size_t count_more(const char *first, va_list rest) {
    size_t n = 0;
    while (first != NULL && va_arg(rest, const char *) != NULL) {
        n++;
    }
    return n;
}

static void fill_vector(const char **v, const char *first, size_t more, va_list rest) {
    *v++ = first;
    for (size_t i = 0; first != NULL && i <= more; i++) {
        *v++ = va_arg(rest, const char *); // the NULL, too
    }
}

// On the stack, as in libc: nobody may allocate between vfork and exec.
#define MAKE_VECTOR(first)                                                                         \
    va_list rest;                                                                                  \
    va_start(rest, first);                                                                         \
    size_t more = count_more(first, rest);                                                         \
    va_end(rest);                                                                                  \
    const char **v = alloca((more + 2) * sizeof *v);                                               \
    va_start(rest, first);                                                                         \
    fill_vector(v, first, more, rest)

static char *const *vector(const char **v) {
    return (char *const *)(uintptr_t)v;
}

FIRN_COLD FIRN_EXPORT int execl(const char *path, const char *first, ...) {
    MAKE_VECTOR(first); // cppcheck-suppress allocaCalled
    va_end(rest);
    return execv(path, vector(v));
}

FIRN_COLD FIRN_EXPORT int execlp(const char *file, const char *first, ...) {
    MAKE_VECTOR(first); // cppcheck-suppress allocaCalled
    va_end(rest);
    return execvp(file, vector(v));
}

FIRN_COLD FIRN_EXPORT int execle(const char *path, const char *first, ...) {
    MAKE_VECTOR(first); // cppcheck-suppress allocaCalled
    char *const *envp = va_arg(rest, char *const *);
    va_end(rest);
    return execve(path, vector(v), envp);
}
