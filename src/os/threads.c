#include "src/os/threads.h"

#include "src/base/text.h"
#include "src/os/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STAT_BYTES = 1024, LIST_BYTES = 1024, BLOCKED_FIELD = 32, FIELD_AFTER_NAME = 3 };

// One entry of getdents64.
struct entry {
    uint64_t inode;
    int64_t offset;
    uint16_t bytes;
    uint8_t type;
    char name[];
};

// The mask is the 32nd field of /proc/PID/stat, in decimal and without the real-time signals. The name
// of the program, in parentheses, may contain anything.
static bool blocks(const char *name, uint64_t signals) {
    char path[64], stat[STAT_BYTES];
    struct text t = text_on(path, sizeof path);
    text_str(&t, "/proc/self/task/");
    text_str(&t, name);
    text_str(&t, "/stat");
    if (sys_read_file(path, stat, sizeof stat) == 0) {
        return false; // it has ended meanwhile
    }
    const char *at = strrchr(stat, ')');
    for (unsigned field = FIELD_AFTER_NAME - 1; at != NULL && field < BLOCKED_FIELD; field++) {
        at = strchr(at + 1, ' ');
    }
    uint64_t mask = 0;
    if (at == NULL || !text_parse_size(at + 1, strcspn(at + 1, " "), &mask)) {
        return true;
    }
    return (mask & signals) != 0;
}

static bool any_in(const char *list, size_t bytes, uint64_t signals, unsigned *seen) {
    for (size_t at = 0; at < bytes;) {
        const struct entry *e = (const struct entry *)(const void *)(list + at);
        if (e->name[0] != '.') {
            ++*seen;
            if (blocks(e->name, signals)) {
                return true;
            }
        }
        at += e->bytes;
    }
    return false;
}

bool threads_any_blocks(uint64_t signals) {
    const int saved = errno;
    _Alignas(struct entry) char list[LIST_BYTES];
    unsigned seen = 0;
    bool any = false;
    long fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (fd >= 0 && !any) {
        long got = syscall(SYS_getdents64, (int)fd, list, sizeof list);
        if (got <= 0) {
            any = got < 0;
            break;
        }
        any = any_in(list, (size_t)got, signals, &seen);
    }
    if (fd >= 0) {
        syscall(SYS_close, (int)fd);
    }
    errno = saved;
    return any || seen == 0;
}
