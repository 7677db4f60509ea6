// The calls that take a path. Programs that are started are in programs.c, streams in streams.c.
#include "src/preload/call.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

// Fortified forms, and those that programs linked before glibc 2.33 call.
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int fd, const char *path, int flags);
int __openat64_2(int fd, const char *path, int flags);
int __xstat(int version, const char *path, struct stat *out);
int __lxstat(int version, const char *path, struct stat *out);
int __fxstat(int version, int fd, struct stat *out);
int __fxstatat(int version, int fd, const char *path, struct stat *out, int flags);
int __xstat64(int version, const char *path, struct stat64 *out);
int __lxstat64(int version, const char *path, struct stat64 *out);
int __fxstat64(int version, int fd, struct stat64 *out);
int __fxstatat64(int version, int fd, const char *path, struct stat64 *out, int flags);
int __xmknod(int version, const char *path, mode_t mode, dev_t *device);
int __xmknodat(int version, int fd, const char *path, mode_t mode, dev_t *device);
int pivot_root(const char *root, const char *old);

// clang-format off
#define NAMES(X)                                                                                  \
    X(open) X(open64) X(openat) X(openat64) X(__open_2) X(__open64_2) X(__openat_2)               \
    X(__openat64_2) X(creat) X(creat64) X(opendir) X(access) X(faccessat) X(eaccess)              \
    X(euidaccess) X(unlink) X(unlinkat) X(remove) X(rename) X(renameat) X(renameat2) X(link)      \
    X(linkat) X(symlink) X(symlinkat) X(mkdir) X(mkdirat) X(rmdir) X(chdir) X(chroot) X(chmod)    \
    X(lchmod) X(fchmodat) X(chown) X(lchown) X(fchownat) X(truncate) X(truncate64) X(utime)       \
    X(utimes) X(lutimes) X(futimes) X(futimesat) X(utimensat) X(futimens) X(mknod) X(mknodat)     \
    X(mkfifo) X(mkfifoat) X(mkstemp) X(mkstemp64) X(mkostemp) X(mkostemp64) X(mkstemps)           \
    X(mkstemps64) X(mkostemps) X(mkostemps64) X(mkdtemp) X(pathconf) X(statvfs) X(statvfs64)      \
    X(__xstat) X(__lxstat) X(__fxstat) X(__fxstatat) X(__xstat64) X(__lxstat64) X(__fxstat64)     \
    X(__fxstatat64) X(__xmknod) X(__xmknodat) X(inotify_add_watch) X(fanotify_mark) X(mount)      \
    X(umount) X(umount2) X(pivot_root) X(setxattr) X(lsetxattr) X(getxattr) X(lgetxattr)          \
    X(listxattr) X(llistxattr) X(removexattr) X(lremovexattr) X(name_to_handle_at)                \
    X(open_by_handle_at)
// clang-format on
CALL_DEFINITIONS(call_find_paths, call_fails);

// ---- opening -----------------------------------------------------------------------------------

FIRN_INLINE bool has_mode(int flags) {
    return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
}

#define READ_MODE(last)                                                                            \
    mode_t mode = 0;                                                                               \
    if (has_mode(flags)) {                                                                         \
        va_list rest;                                                                              \
        va_start(rest, last);                                                                      \
        mode = va_arg(rest, mode_t);                                                               \
        va_end(rest);                                                                              \
    }                                                                                              \
    _Static_assert(true, "a semicolon follows")

FIRN_COLD static int wary_open(const char *path, int flags, mode_t mode) {
    CALL(int, add_path(&c, path), open, path, flags, mode);
}

FIRN_EXPORT int open(const char *path, int flags, ...) {
    READ_MODE(flags);
    return call_is_plain() ? next.open(path, flags, mode) : wary_open(path, flags, mode);
}

FIRN_COLD static int wary_open64(const char *path, int flags, mode_t mode) {
    CALL(int, add_path(&c, path), open64, path, flags, mode);
}

FIRN_EXPORT int open64(const char *path, int flags, ...) {
    READ_MODE(flags);
    return call_is_plain() ? next.open64(path, flags, mode) : wary_open64(path, flags, mode);
}

FIRN_COLD static int wary_openat(int fd, const char *path, int flags, mode_t mode) {
    CALL(int, add_path(&c, path), openat, fd, path, flags, mode);
}

FIRN_EXPORT int openat(int fd, const char *path, int flags, ...) {
    READ_MODE(flags);
    return call_is_plain() ? next.openat(fd, path, flags, mode)
                           : wary_openat(fd, path, flags, mode);
}

FIRN_COLD static int wary_openat64(int fd, const char *path, int flags, mode_t mode) {
    CALL(int, add_path(&c, path), openat64, fd, path, flags, mode);
}

FIRN_EXPORT int openat64(int fd, const char *path, int flags, ...) {
    READ_MODE(flags);
    return call_is_plain() ? next.openat64(fd, path, flags, mode)
                           : wary_openat64(fd, path, flags, mode);
}

CALL_GUARDED(int, __open_2, (const char *path, int flags), (path, flags), add_path(&c, path));
CALL_GUARDED(int, __open64_2, (const char *path, int flags), (path, flags), add_path(&c, path));
CALL_GUARDED(int, __openat_2, (int fd, const char *path, int flags), (fd, path, flags),
             add_path(&c, path));
CALL_GUARDED(int, __openat64_2, (int fd, const char *path, int flags), (fd, path, flags),
             add_path(&c, path));
CALL_GUARDED(int, creat, (const char *path, mode_t mode), (path, mode), add_path(&c, path));
CALL_GUARDED(int, creat64, (const char *path, mode_t mode), (path, mode), add_path(&c, path));
CALL_GUARDED(DIR *, opendir, (const char *path), (path), add_path(&c, path));

// ---- names -------------------------------------------------------------------------------------

CALL_GUARDED(int, access, (const char *path, int what), (path, what), add_path(&c, path));
CALL_GUARDED(int, faccessat, (int fd, const char *path, int what, int flags),
             (fd, path, what, flags), add_path(&c, path));
CALL_GUARDED(int, eaccess, (const char *path, int what), (path, what), add_path(&c, path));
CALL_GUARDED(int, euidaccess, (const char *path, int what), (path, what), add_path(&c, path));
CALL_GUARDED(int, unlink, (const char *path), (path), add_path(&c, path));
CALL_GUARDED(int, unlinkat, (int fd, const char *path, int flags), (fd, path, flags),
             add_path(&c, path));
CALL_GUARDED(int, remove, (const char *path), (path), add_path(&c, path));
CALL_GUARDED(int, rename, (const char *from, const char *to), (from, to), add_path(&c, from),
             add_path(&c, to));
CALL_GUARDED(int, renameat, (int from_fd, const char *from, int to_fd, const char *to),
             (from_fd, from, to_fd, to), add_path(&c, from), add_path(&c, to));
CALL_GUARDED(int, renameat2,
             (int from_fd, const char *from, int to_fd, const char *to, unsigned flags),
             (from_fd, from, to_fd, to, flags), add_path(&c, from), add_path(&c, to));
CALL_GUARDED(int, link, (const char *from, const char *to), (from, to), add_path(&c, from),
             add_path(&c, to));
CALL_GUARDED(int, linkat, (int from_fd, const char *from, int to_fd, const char *to, int flags),
             (from_fd, from, to_fd, to, flags), add_path(&c, from), add_path(&c, to));
CALL_GUARDED(int, symlink, (const char *from, const char *to), (from, to), add_path(&c, from),
             add_path(&c, to));
CALL_GUARDED(int, symlinkat, (const char *from, int to_fd, const char *to), (from, to_fd, to),
             add_path(&c, from), add_path(&c, to));
CALL_GUARDED(int, mkdir, (const char *path, mode_t mode), (path, mode), add_path(&c, path));
CALL_GUARDED(int, mkdirat, (int fd, const char *path, mode_t mode), (fd, path, mode),
             add_path(&c, path));
CALL_GUARDED(int, rmdir, (const char *path), (path), add_path(&c, path));
CALL_GUARDED(int, chdir, (const char *path), (path), add_path(&c, path));
CALL_GUARDED(int, chroot, (const char *path), (path), add_path(&c, path));
CALL_GUARDED(int, mknod, (const char *path, mode_t mode, dev_t device), (path, mode, device),
             add_path(&c, path));
CALL_GUARDED(int, mknodat, (int fd, const char *path, mode_t mode, dev_t device),
             (fd, path, mode, device), add_path(&c, path));
CALL_GUARDED(int, __xmknod, (int version, const char *path, mode_t mode, dev_t *device),
             (version, path, mode, device), add_path(&c, path));
CALL_GUARDED(int, __xmknodat, (int version, int fd, const char *path, mode_t mode, dev_t *device),
             (version, fd, path, mode, device), add_path(&c, path));
CALL_GUARDED(int, mkfifo, (const char *path, mode_t mode), (path, mode), add_path(&c, path));
CALL_GUARDED(int, mkfifoat, (int fd, const char *path, mode_t mode), (fd, path, mode),
             add_path(&c, path));
CALL_GUARDED(int, mkstemp, (char *path), (path), add_path(&c, path));
CALL_GUARDED(int, mkstemp64, (char *path), (path), add_path(&c, path));
CALL_GUARDED(int, mkostemp, (char *path, int flags), (path, flags), add_path(&c, path));
CALL_GUARDED(int, mkostemp64, (char *path, int flags), (path, flags), add_path(&c, path));
CALL_GUARDED(int, mkstemps, (char *path, int suffix), (path, suffix), add_path(&c, path));
CALL_GUARDED(int, mkstemps64, (char *path, int suffix), (path, suffix), add_path(&c, path));
CALL_GUARDED(int, mkostemps, (char *path, int suffix, int flags), (path, suffix, flags),
             add_path(&c, path));
CALL_GUARDED(int, mkostemps64, (char *path, int suffix, int flags), (path, suffix, flags),
             add_path(&c, path));
CALL_GUARDED(char *, mkdtemp, (char *path), (path), add_path(&c, path));

// ---- attributes ---------------------------------------------------------------------------------

CALL_GUARDED(int, chmod, (const char *path, mode_t mode), (path, mode), add_path(&c, path));
CALL_GUARDED(int, lchmod, (const char *path, mode_t mode), (path, mode), add_path(&c, path));
CALL_GUARDED(int, fchmodat, (int fd, const char *path, mode_t mode, int flags),
             (fd, path, mode, flags), add_path(&c, path));
CALL_GUARDED(int, chown, (const char *path, uid_t user, gid_t group), (path, user, group),
             add_path(&c, path));
CALL_GUARDED(int, lchown, (const char *path, uid_t user, gid_t group), (path, user, group),
             add_path(&c, path));
CALL_GUARDED(int, fchownat, (int fd, const char *path, uid_t user, gid_t group, int flags),
             (fd, path, user, group, flags), add_path(&c, path));
CALL_GUARDED(int, truncate, (const char *path, off_t bytes), (path, bytes), add_path(&c, path));
CALL_GUARDED(int, truncate64, (const char *path, off64_t bytes), (path, bytes), add_path(&c, path));
CALL_GUARDED(int, utime, (const char *path, const struct utimbuf *times), (path, times),
             add_path(&c, path), add(&c, times, sizeof *times));
CALL_GUARDED(int, utimes, (const char *path, const struct timeval times[2]), (path, times),
             add_path(&c, path), add(&c, times, 2 * sizeof *times));
CALL_GUARDED(int, lutimes, (const char *path, const struct timeval times[2]), (path, times),
             add_path(&c, path), add(&c, times, 2 * sizeof *times));
CALL_GUARDED(int, futimes, (int fd, const struct timeval times[2]), (fd, times),
             add(&c, times, 2 * sizeof *times));
CALL_GUARDED(int, futimesat, (int fd, const char *path, const struct timeval times[2]),
             (fd, path, times), add_path(&c, path), add(&c, times, 2 * sizeof *times));
CALL_GUARDED(int, utimensat, (int fd, const char *path, const struct timespec times[2], int flags),
             (fd, path, times, flags), add_path(&c, path), add(&c, times, 2 * sizeof *times));
CALL_GUARDED(int, futimens, (int fd, const struct timespec times[2]), (fd, times),
             add(&c, times, 2 * sizeof *times));
CALL_GUARDED(long, pathconf, (const char *path, int what), (path, what), add_path(&c, path));
CALL_GUARDED(int, statvfs, (const char *restrict path, struct statvfs *restrict out), (path, out),
             add_path(&c, path));
CALL_GUARDED(int, statvfs64, (const char *restrict path, struct statvfs64 *restrict out),
             (path, out), add_path(&c, path));

CALL_GUARDED(int, __xstat, (int version, const char *path, struct stat *out), (version, path, out),
             add_path(&c, path), add(&c, out, sizeof *out));
CALL_GUARDED(int, __lxstat, (int version, const char *path, struct stat *out), (version, path, out),
             add_path(&c, path), add(&c, out, sizeof *out));
CALL_GUARDED(int, __fxstat, (int version, int fd, struct stat *out), (version, fd, out),
             add(&c, out, sizeof *out));
CALL_GUARDED(int, __fxstatat, (int version, int fd, const char *path, struct stat *out, int flags),
             (version, fd, path, out, flags), add_path(&c, path), add(&c, out, sizeof *out));
CALL_GUARDED(int, __xstat64, (int version, const char *path, struct stat64 *out),
             (version, path, out), add_path(&c, path), add(&c, out, sizeof *out));
CALL_GUARDED(int, __lxstat64, (int version, const char *path, struct stat64 *out),
             (version, path, out), add_path(&c, path), add(&c, out, sizeof *out));
CALL_GUARDED(int, __fxstat64, (int version, int fd, struct stat64 *out), (version, fd, out),
             add(&c, out, sizeof *out));
CALL_GUARDED(int, __fxstatat64,
             (int version, int fd, const char *path, struct stat64 *out, int flags),
             (version, fd, path, out, flags), add_path(&c, path), add(&c, out, sizeof *out));

CALL_GUARDED(int, setxattr,
             (const char *path, const char *name, const void *p, size_t n, int flags),
             (path, name, p, n, flags), add_path(&c, path), add_path(&c, name), add(&c, p, n));
CALL_GUARDED(int, lsetxattr,
             (const char *path, const char *name, const void *p, size_t n, int flags),
             (path, name, p, n, flags), add_path(&c, path), add_path(&c, name), add(&c, p, n));
CALL_GUARDED(ssize_t, getxattr, (const char *path, const char *name, void *p, size_t n),
             (path, name, p, n), add_path(&c, path), add_path(&c, name), add(&c, p, n));
CALL_GUARDED(ssize_t, lgetxattr, (const char *path, const char *name, void *p, size_t n),
             (path, name, p, n), add_path(&c, path), add_path(&c, name), add(&c, p, n));
CALL_GUARDED(ssize_t, listxattr, (const char *path, char *p, size_t n), (path, p, n),
             add_path(&c, path), add(&c, p, n));
CALL_GUARDED(ssize_t, llistxattr, (const char *path, char *p, size_t n), (path, p, n),
             add_path(&c, path), add(&c, p, n));
CALL_GUARDED(int, removexattr, (const char *path, const char *name), (path, name),
             add_path(&c, path), add_path(&c, name));
CALL_GUARDED(int, lremovexattr, (const char *path, const char *name), (path, name),
             add_path(&c, path), add_path(&c, name));

// ---- watching and mounting ----------------------------------------------------------------------

CALL_GUARDED(int, inotify_add_watch, (int fd, const char *path, uint32_t what), (fd, path, what),
             add_path(&c, path));
CALL_GUARDED(int, fanotify_mark,
             (int group, unsigned flags, uint64_t what, int fd, const char *path),
             (group, flags, what, fd, path), add_path(&c, path));
// The last is a string, for most.
CALL_GUARDED(int, mount,
             (const char *from, const char *to, const char *type, unsigned long flags,
              const void *data),
             (from, to, type, flags, data), add_path(&c, from), add_path(&c, to),
             add_path(&c, type), call_add_object(&c, data));
CALL_GUARDED(int, umount, (const char *path), (path), add_path(&c, path));
CALL_GUARDED(int, umount2, (const char *path, int flags), (path, flags), add_path(&c, path));
CALL_GUARDED(int, pivot_root, (const char *root, const char *old), (root, old), add_path(&c, root),
             add_path(&c, old));
CALL_GUARDED(int, name_to_handle_at,
             (int fd, const char *path, struct file_handle *handle, int *mount_id, int flags),
             (fd, path, handle, mount_id, flags), add_path(&c, path), call_add_object(&c, handle),
             add(&c, mount_id, sizeof *mount_id));
CALL_GUARDED(int, open_by_handle_at, (int fd, struct file_handle *handle, int flags),
             (fd, handle, flags), call_add_object(&c, handle));
