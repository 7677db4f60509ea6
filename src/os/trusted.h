// Files whose word counts, whoever starts the program: the owner's, and nobody else can write to them.
// Raw system calls, no allocation; all preserve errno. Meant for the start of a process.
#ifndef FIRN_OS_TRUSTED_H
#define FIRN_OS_TRUSTED_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>

enum { TRUSTED_BYTES = 64 << 10, TRUSTED_HERE = -100 /* AT_FDCWD */ };

// Opens a regular file (or a folder, if is_folder) of user `owner` that neither its group nor others may
// write to, at most TRUSTED_BYTES long and no symbolic link; `path` as for openat. -1 with *wrong NULL: there
// is none. -1 with *wrong: it is there, and this phrase says why it does not count. The one system call that
// is made where nothing is there is openat.
int trusted_open(int folder, const char *path, bool is_folder, unsigned owner, const char **wrong);
// Bytes read, 0 at the end and on an error.
size_t trusted_read(int fd, char *buffer, size_t n);
// The name in the folder that comes next after `after` in the order of bytes ("": the first), without those
// that begin with a dot or do not fit. False: no other.
bool trusted_next(int fd, const char *after, char *name, size_t name_bytes) FIRN_CHECKED;
void trusted_close(int fd);

// The path of the running program, as the kernel knows it. False where /proc is not to be had.
bool trusted_program(char *path, size_t path_bytes) FIRN_CHECKED;

#endif
