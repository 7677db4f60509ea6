// Paths, and what programs are started with, in pages that may be away (handed.h). In the folder that the
// environment's HANDED names, which is empty.
#include "tests/preload/handed.h"

#include <dirent.h>
#include <spawn.h>
#include <stdint.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <utime.h>

// What programs linked before glibc 2.33, or fortified, call.
int __xstat(int version, const char *path, struct stat *out);
int __lxstat64(int version, const char *path, struct stat64 *out);
int __fxstatat(int version, int fd, const char *path, struct stat *out, int flags);
int __fxstat64(int version, int fd, struct stat64 *out);
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int fd, const char *path, int flags);
int __openat64_2(int fd, const char *path, int flags);

static __attribute__((constructor(101))) void set_up(void) {
    const char *folder = getenv("HANDED");
    if (folder == NULL || chdir(folder) != 0 || mkdir("folder", 0700) != 0) {
        exit(3);
    }
    umask(022);
    close(creat("file", 0600));
    close(creat("other", 0600));
}

static long closed(int fd) {
    return fd < 0 ? -1 : close(fd);
}

static long mode_of(const char *path) {
    struct stat s;
    return lstat(path, &s) == 0 ? (long)(s.st_mode & 07777) : -1;
}

#define FILE_NAME put_text("file")

CASE(open, a[0] = put_text("made"), closed(open(a[0], O_CREAT | O_RDWR, 0640)) + mode_of("made"))
CASE(open64, a[0] = put_text("made2"),
     closed(open64(a[0], O_CREAT | O_RDWR, 0604)) + mode_of("made2"))
CASE(openat, a[0] = put_text("made3"),
     closed(openat(AT_FDCWD, a[0], O_CREAT | O_RDWR, 0606)) + mode_of("made3"))
CASE(openat64, a[0] = put_text("made4"),
     closed(openat64(AT_FDCWD, a[0], O_CREAT | O_RDWR, 0660)) + mode_of("made4"))
CASE(open_plain, a[0] = FILE_NAME, closed(open(a[0], O_RDONLY)))
CASE(open_missing, a[0] = put_text("no such file"), open(a[0], O_RDONLY))
CASE(open_nowhere, , open((const char *)(uintptr_t)16, O_RDONLY))
CASE(open_2, a[0] = FILE_NAME, closed(__open_2(a[0], O_RDONLY)))
CASE(open64_2, a[0] = FILE_NAME, closed(__open64_2(a[0], O_RDONLY)))
CASE(openat_2, a[0] = FILE_NAME, closed(__openat_2(AT_FDCWD, a[0], O_RDONLY)))
CASE(openat64_2, a[0] = FILE_NAME, closed(__openat64_2(AT_FDCWD, a[0], O_RDONLY)))
CASE(creat, a[0] = put_text("made5"), closed(creat(a[0], 0644)) + mode_of("made5"))
CASE(creat64, a[0] = put_text("made6"), closed(creat64(a[0], 0600)) + mode_of("made6"))
CASE(opendir, a[0] = put_text("folder"), closedir(opendir(a[0])))
CASE(fopen, (a[0] = FILE_NAME, a[1] = put_text("r")), fclose(fopen(a[0], a[1])))
CASE(fopen64, (a[0] = FILE_NAME, a[1] = put_text("r")), fclose(fopen64(a[0], a[1])))
CASE(fopen_missing, a[0] = put_text("no such file"), fopen(a[0], "r") == NULL && errno == ENOENT)
CASE(freopen, (a[0] = FILE_NAME, a[1] = fopen("other", "r")), fclose(freopen(a[0], "r", a[1])))
CASE(freopen64, (a[0] = FILE_NAME, a[1] = fopen("other", "r")), fclose(freopen64(a[0], "r", a[1])))

// ---- names -------------------------------------------------------------------------------------

static long is_link_to(const char *path, const char *to) {
    char got[100] = "";
    return readlink(path, got, sizeof got - 1) > 0 && strcmp(got, to) == 0;
}

CASE(access, a[0] = FILE_NAME, access(a[0], R_OK))
CASE(faccessat, a[0] = FILE_NAME, faccessat(AT_FDCWD, a[0], R_OK, 0))
CASE(eaccess, a[0] = FILE_NAME, eaccess(a[0], R_OK))
CASE(euidaccess, a[0] = FILE_NAME, euidaccess(a[0], R_OK))
CASE(link, (a[0] = FILE_NAME, a[1] = put_text("l1")), link(a[0], a[1]))
CASE(linkat, (a[0] = FILE_NAME, a[1] = put_text("l2")), linkat(AT_FDCWD, a[0], AT_FDCWD, a[1], 0))
CASE(symlink, (a[0] = FILE_NAME, a[1] = put_text("s1")),
     symlink(a[0], a[1]) + is_link_to("s1", "file"))
CASE(symlinkat, (a[0] = FILE_NAME, a[1] = put_text("s2")),
     symlinkat(a[0], AT_FDCWD, a[1]) + is_link_to("s2", "file"))
CASE(readlink, (a[0] = put_text("s2"), a[1] = put_room(50)), readlink(a[0], a[1], 50))
CASE(readlinkat, (a[0] = put_text("s2"), a[1] = put_room(50)), readlinkat(AT_FDCWD, a[0], a[1], 50))
CASE(rename, (a[0] = put_text("l1"), a[1] = put_text("l3")), rename(a[0], a[1]))
CASE(renameat, (a[0] = put_text("l3"), a[1] = put_text("l4")),
     renameat(AT_FDCWD, a[0], AT_FDCWD, a[1]))
CASE(renameat2, (a[0] = put_text("l4"), a[1] = put_text("l5")),
     renameat2(AT_FDCWD, a[0], AT_FDCWD, a[1], 0))
CASE(unlink, a[0] = put_text("l2"), unlink(a[0]))
CASE(unlinkat, a[0] = put_text("l5"), unlinkat(AT_FDCWD, a[0], 0))
CASE(remove, a[0] = put_text("s1"), remove(a[0]))
CASE(mkdir, a[0] = put_text("d1"), mkdir(a[0], 0700))
CASE(mkdirat, a[0] = put_text("d2"), mkdirat(AT_FDCWD, a[0], 0700))
CASE(chdir, (a[0] = put_text("d1"), a[1] = put_text("..")), chdir(a[0]) + chdir(a[1]))
CASE(rmdir, a[0] = put_text("d1"), rmdir(a[0]))
CASE(chroot, a[0] = put_text("no such folder"), chroot(a[0]))
CASE(mkfifo, a[0] = put_text("f1"), mkfifo(a[0], 0600))
CASE(mkfifoat, a[0] = put_text("f2"), mkfifoat(AT_FDCWD, a[0], 0600))
CASE(mknod, a[0] = put_text("f3"), mknod(a[0], S_IFIFO | 0600, 0))
CASE(mknodat, a[0] = put_text("f4"), mknodat(AT_FDCWD, a[0], S_IFIFO | 0600, 0))
CASE(mkstemp, a[0] = put_text("t-XXXXXX"), closed(mkstemp(a[0])) + access(a[0], F_OK))
CASE(mkstemp64, a[0] = put_text("t-XXXXXX"), closed(mkstemp64(a[0])))
CASE(mkostemp, a[0] = put_text("t-XXXXXX"), closed(mkostemp(a[0], O_CLOEXEC)))
CASE(mkostemp64, a[0] = put_text("t-XXXXXX"), closed(mkostemp64(a[0], O_CLOEXEC)))
CASE(mkstemps, a[0] = put_text("t-XXXXXX.x"), closed(mkstemps(a[0], 2)))
CASE(mkstemps64, a[0] = put_text("t-XXXXXX.x"), closed(mkstemps64(a[0], 2)))
CASE(mkostemps, a[0] = put_text("t-XXXXXX.x"), closed(mkostemps(a[0], 2, O_CLOEXEC)))
CASE(mkostemps64, a[0] = put_text("t-XXXXXX.x"), closed(mkostemps64(a[0], 2, O_CLOEXEC)))
CASE(mkdtemp, a[0] = put_text("t-XXXXXX"), mkdtemp(a[0]) == a[0])
CASE(realpath, a[0] = put_text("folder/.."), (a[1] = realpath(a[0], NULL)) != NULL)

// ---- attributes ---------------------------------------------------------------------------------

#define TIMES(type) put(&(type[2]){{1000, 0}, {2000, 0}}, 2 * sizeof(type))

static long changed(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 ? (long)s.st_mtim.tv_sec : -1;
}

CASE(chmod, a[0] = FILE_NAME, chmod(a[0], 0640) + mode_of("file"))
CASE(fchmodat, a[0] = FILE_NAME, fchmodat(AT_FDCWD, a[0], 0600, 0) + mode_of("file"))
CASE(chown, a[0] = FILE_NAME, chown(a[0], getuid(), getgid()))
CASE(lchown, a[0] = FILE_NAME, lchown(a[0], getuid(), getgid()))
CASE(fchownat, a[0] = FILE_NAME, fchownat(AT_FDCWD, a[0], getuid(), getgid(), 0))
CASE(truncate, a[0] = FILE_NAME, truncate(a[0], 100))
CASE(truncate64, a[0] = FILE_NAME, truncate64(a[0], 200))
CASE(utime, (a[0] = FILE_NAME, a[1] = put(&(struct utimbuf){5, 6}, sizeof(struct utimbuf))),
     utime(a[0], a[1]) + changed("file"))
CASE(utimes, (a[0] = FILE_NAME, a[1] = TIMES(struct timeval)), utimes(a[0], a[1]) + changed("file"))
CASE(lutimes, (a[0] = FILE_NAME, a[1] = TIMES(struct timeval)), lutimes(a[0], a[1]))
CASE(futimesat, (a[0] = FILE_NAME, a[1] = TIMES(struct timeval)), futimesat(AT_FDCWD, a[0], a[1]))
CASE(futimes, a[1] = TIMES(struct timeval), futimes(open("file", O_RDWR), a[1]))
CASE(utimensat, (a[0] = FILE_NAME, a[1] = TIMES(struct timespec)),
     utimensat(AT_FDCWD, a[0], a[1], 0) + changed("file"))
CASE(futimens, a[1] = TIMES(struct timespec), futimens(open("file", O_RDWR), a[1]))
CASE(pathconf, a[0] = FILE_NAME, pathconf(a[0], _PC_NAME_MAX))
CASE(statvfs, (a[0] = FILE_NAME, a[1] = put_room(sizeof(struct statvfs))), statvfs(a[0], a[1]))
CASE(stat, (a[0] = FILE_NAME, a[1] = put_room(sizeof(struct stat))), stat(a[0], a[1]))
CASE(lstat64, (a[0] = FILE_NAME, a[1] = put_room(sizeof(struct stat))), lstat64(a[0], a[1]))
CASE(statx, (a[0] = FILE_NAME, a[1] = put_room(sizeof(struct statx))),
     statx(AT_FDCWD, a[0], 0, STATX_SIZE, a[1]) == 0 ? (long)((struct statx *)a[1])->stx_size : -1)
CASE(xstat, (a[0] = FILE_NAME, a[1] = put_room(sizeof(struct stat))), __xstat(1, a[0], a[1]))
CASE(lxstat64, (a[0] = FILE_NAME, a[1] = put_room(sizeof(struct stat))), __lxstat64(1, a[0], a[1]))
CASE(fxstatat, (a[0] = FILE_NAME, a[1] = put_room(sizeof(struct stat))),
     __fxstatat(1, AT_FDCWD, a[0], a[1], 0))
CASE(fxstat64, a[1] = put_room(sizeof(struct stat)), __fxstat64(1, 0, a[1]))

#define NAME_AND_VALUE (a[0] = FILE_NAME, a[1] = put_text("user.x"), a[2] = put_text("value"))
// Where the file system has none, all say so.
CASE(setxattr, NAME_AND_VALUE, setxattr(a[0], a[1], a[2], 5, 0))
CASE(getxattr, NAME_AND_VALUE, getxattr(a[0], a[1], a[2], 5))
CASE(lsetxattr, NAME_AND_VALUE, lsetxattr(a[0], a[1], a[2], 5, 0))
CASE(lgetxattr, NAME_AND_VALUE, lgetxattr(a[0], a[1], a[2], 5))
CASE(listxattr, NAME_AND_VALUE, listxattr(a[0], a[2], 5) != 0)
CASE(llistxattr, NAME_AND_VALUE, llistxattr(a[0], a[2], 5) != 0)
CASE(removexattr, NAME_AND_VALUE, removexattr(a[0], a[1]))
CASE(lremovexattr, NAME_AND_VALUE, lremovexattr(a[0], a[1]))
CASE(inotify_add_watch, a[0] = FILE_NAME, inotify_add_watch(inotify_init(), a[0], IN_MODIFY) > 0)
CASE(mount, (a[0] = FILE_NAME, a[1] = put_text("no such folder"), a[2] = put_text("tmpfs")),
     mount(a[0], a[1], a[2], 0, a[0]) == -1 && errno != EFAULT)
CASE(umount2, a[0] = put_text("no such folder"), umount2(a[0], 0) == -1 && errno != EFAULT)

// ---- programs -----------------------------------------------------------------------------------

static long ended(pid_t child) {
    int status = -1;
    return child > 0 && waitpid(child, &status, 0) == child ? status : -1;
}

// No fork: before one all that is away comes back.
#define IN_CHILD(call)                                                                             \
    __extension__({                                                                                \
        pid_t child = vfork();                                                                     \
        if (child == 0) {                                                                          \
            call;                                                                                  \
            _exit(errno);                                                                          \
        }                                                                                          \
        ended(child) >> 8;                                                                         \
    })

static const char *const arguments[] = {"sh", "-c", "exit $((N + $0))", "4", NULL};
static const char *const settings[] = {"N=3", "LC_ALL=C", NULL};
#define PROGRAM                                                                                    \
    (a[0] = put_text("/bin/sh"), a[1] = put_vector(arguments), a[2] = put_vector(settings),        \
     a[3] = put_text("sh"))

static char **swap_environment(char **with) {
    char **before = environ;
    environ = with;
    return before;
}

static long with_environment(char **with, long (*call)(void **a), void **a) {
    char **before = swap_environment(with);
    long result = call(a);
    environ = before;
    return result;
}

static long do_execv(void **a) {
    return IN_CHILD(execv(a[0], a[1]));
}

static long do_execvp(void **a) {
    return IN_CHILD(execvp(a[0], a[1]));
}

static long do_execl(void **a) {
    char **v = arguments[0] != NULL ? a[1] : NULL;
    return IN_CHILD(execl(a[0], v[0], v[1], v[2], v[3], (char *)NULL));
}

static long do_execlp(void **a) {
    char **v = a[1];
    return IN_CHILD(execlp(a[0], v[0], v[1], v[2], v[3], (char *)NULL));
}

static long do_execle(void **a) {
    char **v = a[1];
    return IN_CHILD(execle(a[0], v[0], v[1], v[2], v[3], (char *)NULL, (char **)a[2]));
}

static long do_system(void **a) {
    return system(a[4]) >> 8;
}

static long spawn(int (*how)(pid_t *, const char *, const posix_spawn_file_actions_t *,
                             const posix_spawnattr_t *, char *const[], char *const[]),
                  const char *path, void **a) {
    pid_t child = -1;
    int error = how(&child, path, a[5], NULL, a[1], a[2]);
    return error != 0 ? error : ended(child) >> 8;
}

static posix_spawn_file_actions_t *put_actions(void) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 5, "file", O_RDONLY, 0);
    return put(&actions, sizeof actions);
}

CASE(execve, PROGRAM, IN_CHILD(execve(a[0], a[1], a[2])))
CASE(execvpe, PROGRAM, IN_CHILD(execvpe(a[3], a[1], a[2])))
CASE(fexecve, PROGRAM, IN_CHILD(fexecve(open("/bin/sh", O_RDONLY), a[1], a[2])))
CASE(execv, PROGRAM, with_environment(a[2], do_execv, a))
CASE(execvp, PROGRAM, with_environment(a[2], do_execvp, a))
CASE(execl, PROGRAM, with_environment(a[2], do_execl, a))
CASE(execlp, PROGRAM, with_environment(a[2], do_execlp, a))
CASE(execle, PROGRAM, do_execle(a))
CASE(exec_missing, a[0] = put_text("/no such file"), IN_CHILD(execl(a[0], "x", (char *)NULL)))
CASE(system, (PROGRAM, a[4] = put_text("exit $((N + 5))")), with_environment(a[2], do_system, a))
CASE(posix_spawn, (PROGRAM, a[5] = put_actions()), spawn(posix_spawn, a[0], a))
CASE(posix_spawnp, (PROGRAM, a[5] = put_actions()), spawn(posix_spawnp, a[3], a))
CASE(posix_spawn_missing, (PROGRAM, a[6] = put_text("/no such file")), spawn(posix_spawn, a[6], a))
int main(int argc, char **argv) {
    return handed_main(argc, argv);
}
