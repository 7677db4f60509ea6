// P-POLICY. Raw system calls, as in sys.c: this runs during the first allocation of a process.
#include "src/os/trusted.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(TRUSTED_HERE == AT_FDCWD, "the header does not include fcntl.h");

// As getdents64 fills it in.
struct entry {
    uint64_t inode;
    int64_t offset;
    uint16_t bytes;
    uint8_t kind;
    char name[];
};

FIRN_COLD static const char *judge(int fd, bool is_folder, unsigned owner) {
    struct stat st;
    if (syscall(SYS_fstat, fd, &st) != 0) {
        return "it cannot be looked at";
    }
    if (is_folder ? !S_ISDIR(st.st_mode) : !S_ISREG(st.st_mode)) {
        return is_folder ? "it is not a folder" : "it is not a regular file";
    }
    if (st.st_uid != owner) {
        return "it does not belong to root";
    }
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        return "others than its owner may write to it";
    }
    return !is_folder && st.st_size > TRUSTED_BYTES ? "it is longer than 64 KiB" : NULL;
}

FIRN_COLD static const char *why_not_open(void) {
    switch (errno) {
    case ENOENT:
    case ENOTDIR: // of a path that leads through a file
        return NULL;
    case ELOOP:
        return "it is a symbolic link";
    case EACCES:
    case EPERM:
        return "permission denied";
    default:
        return "it cannot be opened";
    }
}

int trusted_open(int folder, const char *path, bool is_folder, unsigned owner, const char **wrong) {
    const int saved = errno;
    const int flags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    int fd = (int)syscall(SYS_openat, folder, path, flags);
    *wrong = NULL;
    if (FIRN_LIKELY(fd < 0 && errno == ENOENT)) {
        errno = saved;
        return -1;
    }
    *wrong = fd < 0 ? why_not_open() : judge(fd, is_folder, owner);
    if (fd >= 0 && *wrong != NULL) {
        trusted_close(fd);
        fd = -1;
    }
    errno = saved;
    return fd;
}

FIRN_COLD size_t trusted_read(int fd, char *buffer, size_t n) {
    const int saved = errno;
    long got;
    do {
        got = syscall(SYS_read, fd, buffer, n);
    } while (got < 0 && errno == EINTR);
    errno = saved;
    return got > 0 ? (size_t)got : 0;
}

// The least of the names in a piece of the folder that is above `after` and below *name ("": none yet).
static void take_least(const char *piece, size_t bytes, const char *after, char *name,
                       size_t name_bytes) {
    struct entry e;
    for (size_t at = 0; at + sizeof e < bytes; at += e.bytes) {
        memcpy(&e, piece + at, sizeof e);
        const char *candidate = piece + at + offsetof(struct entry, name);
        if (e.bytes == 0) {
            return;
        }
        const bool is_next = candidate[0] != '.' && strcmp(candidate, after) > 0 &&
                             (name[0] == '\0' || strcmp(candidate, name) < 0);
        if (is_next && strlen(candidate) < name_bytes) {
            strcpy(name, candidate); // NOLINT(clang-analyzer-security.insecureAPI.strcpy)
        }
    }
}

FIRN_COLD bool trusted_next(int fd, const char *after, char *name, size_t name_bytes) {
    const int saved = errno;
    char piece[1024];
    long got;
    name[0] = '\0';
    (void)syscall(SYS_lseek, fd, 0L, SEEK_SET);
    while ((got = syscall(SYS_getdents64, fd, piece, sizeof piece)) > 0) {
        take_least(piece, (size_t)got, after, name, name_bytes);
    }
    errno = saved;
    return name[0] != '\0';
}

FIRN_COLD void trusted_close(int fd) {
    syscall(SYS_close, fd);
}

FIRN_COLD bool trusted_program(char *path, size_t path_bytes) {
    const int saved = errno;
    const long n = syscall(SYS_readlink, "/proc/self/exe", path, path_bytes);
    const bool is_known = n > 0 && (size_t)n < path_bytes;
    path[is_known ? n : 0] = '\0';
    errno = saved;
    return is_known;
}
