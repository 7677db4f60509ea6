// Raw system calls on purpose: libc's read, write and open are cancellation points and may be
// interposed by the program, neither of which may happen inside an allocation.
#include "src/os/sys.h"

#include "src/base/compiler.h"
#include "src/base/text.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <sched.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

static long open_file(const char *path) {
    return syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
}

static long read_some(long fd, char *buffer, size_t n) {
    long got;
    do {
        got = syscall(SYS_read, (int)fd, buffer, n);
    } while (got < 0 && errno == EINTR);
    return got;
}

void sys_write(int fd, const char *data, size_t n) {
    int saved = errno;
    while (n > 0) {
        long put = syscall(SYS_write, fd, data, n);
        if (put <= 0 && !(put < 0 && errno == EINTR)) {
            break;
        }
        if (put > 0) {
            data += put;
            n -= (size_t)put;
        }
    }
    errno = saved;
}

// P-SECURE
bool sys_is_secure(void) {
    int saved = errno;
    bool is_secure = getauxval(AT_SECURE) != 0;
    errno = saved;
    return is_secure;
}

static const char *value_in(const char *entry, const char *name, size_t length) {
    bool matches = strncmp(entry, name, length) == 0 && entry[length] == '=';
    return matches ? entry + length + 1 : NULL;
}

// libc's constructor sets `environ` before any other runs, and ld.so allocates nothing through us
// between relocating us and that. A program that starts without an environment may leave it NULL.
const char *sys_environment(const char *name) {
    size_t length = strlen(name);
    if (sys_is_secure() || environ == NULL) {
        return NULL;
    }
    for (char **entry = environ; *entry != NULL; entry++) {
        const char *value = value_in(*entry, name, length);
        if (value != NULL) {
            return value;
        }
    }
    return NULL;
}

size_t sys_read_file(const char *path, char *buffer, size_t capacity) {
    int saved = errno;
    size_t length = 0;
    long fd = open_file(path);
    if (capacity > 0) {
        buffer[0] = '\0';
    }
    if (fd >= 0) {
        while (length + 1 < capacity) {
            long got = read_some(fd, buffer + length, capacity - 1 - length);
            if (got <= 0) {
                break;
            }
            length += (size_t)got;
            buffer[length] = '\0';
        }
        syscall(SYS_close, (int)fd);
    }
    errno = saved;
    return length;
}

static FIRN_TLS bool is_mute;

void sys_go_mute(void) {
    is_mute = true;
}

bool sys_is_mute(void) {
    return is_mute;
}

bool sys_may_call(void) {
    if (is_mute) {
        errno = ENOMEM;
    }
    return !is_mute;
}

int sys_process_id(void) {
    return (int)syscall(SYS_getpid);
}

int sys_thread_id(void) {
    return (int)syscall(SYS_gettid);
}

bool sys_has_thread(int thread) {
    const int saved = errno;
    bool is_gone = syscall(SYS_tgkill, sys_process_id(), thread, 0) != 0 && errno == ESRCH;
    errno = saved;
    return !is_gone;
}

int sys_unshare(int flags) {
    return (int)syscall(SYS_unshare, flags);
}

int sys_setns(int fd, int type) {
    return (int)syscall(SYS_setns, fd, type);
}

void sys_yield(void) {
    int saved = errno;
    if (!is_mute) {
        sched_yield();
    }
    errno = saved;
}

// From here on: from a code address to a module and an offset that addr2line takes.

// Reads /proc/self/maps through a small buffer on the stack: fatal paths may run on an alternate one.
struct reader {
    long fd;
    size_t next, end;
    char buffer[512];
};

struct mapping {
    uintptr_t start, end, offset;
    uint64_t device, inode;
    bool is_readable;
};

static int next_byte(struct reader *in) {
    if (in->next == in->end) {
        long got = read_some(in->fd, in->buffer, sizeof(in->buffer));
        if (got <= 0) {
            return -1;
        }
        in->next = 0;
        in->end = (size_t)got;
    }
    return (unsigned char)in->buffer[in->next++];
}

// Digits of `base` up to the first other byte, which is consumed and left in *stop.
static uint64_t next_number(struct reader *in, unsigned base, int *stop) {
    uint64_t v = 0;
    for (;;) {
        int c = next_byte(in);
        unsigned digit = 99;
        if (c >= '0' && c <= '9') {
            digit = (unsigned)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            digit = (unsigned)(c - 'a') + 10;
        }
        if (digit >= base) {
            *stop = c;
            return v;
        }
        v = v * base + digit;
    }
}

// "start-end rwxp offset major:minor inode   path\n"; false at the end of the file.
static bool next_mapping(struct reader *in, struct mapping *m, char *path, size_t path_bytes) {
    int c;
    size_t length = 0;
    m->start = next_number(in, 16, &c);
    m->end = next_number(in, 16, &c);
    m->is_readable = next_byte(in) == 'r';
    while (c >= 0 && (c = next_byte(in)) >= 0 && c != ' ') {
    }
    m->offset = next_number(in, 16, &c);
    m->device = next_number(in, 16, &c) << 32;
    m->device |= next_number(in, 16, &c);
    m->inode = next_number(in, 10, &c);
    while (c == ' ') {
        c = next_byte(in);
    }
    for (; c >= 0 && c != '\n'; c = next_byte(in)) {
        if (length + 1 < path_bytes) {
            path[length++] = (char)c;
        }
    }
    path[length] = '\0';
    return c >= 0;
}

// `first` is the mapping of the file's start. A program linked at a fixed address is known to
// addr2line by its addresses; everything else by the distance from its start.
static uintptr_t offset_in(const struct mapping *m, const struct mapping *first, uintptr_t pc) {
    bool is_same = first->inode == m->inode && first->device == m->device && m->inode != 0;
    if (!is_same) {
        return pc - m->start + m->offset;
    }
    if (first->is_readable && first->end - first->start >= sizeof(Elf64_Ehdr)) {
        const unsigned char *header = (const unsigned char *)first->start;
        uint16_t type;
        memcpy(&type, header + offsetof(Elf64_Ehdr, e_type), sizeof(type));
        if (memcmp(header, ELFMAG, SELFMAG) == 0 && type == ET_EXEC) {
            return pc;
        }
    }
    return pc - first->start;
}

// `path_bytes` is at least 2.
uintptr_t sys_locate(uintptr_t pc, char *path, size_t path_bytes) {
    int saved = errno;
    struct reader in;
    struct mapping m, first = {0};
    uintptr_t offset = pc;
    bool is_found = false;
    in.next = in.end = 0;
    in.fd = open_file("/proc/self/maps");
    while (in.fd >= 0 && !is_found && next_mapping(&in, &m, path, path_bytes)) {
        if (m.offset == 0) {
            first = m;
        }
        if (pc >= m.start && pc < m.end) {
            is_found = path[0] != '\0';
            offset = is_found ? offset_in(&m, &first, pc) : pc;
            break;
        }
    }
    if (in.fd >= 0) {
        syscall(SYS_close, (int)in.fd);
    }
    if (!is_found) {
        path[0] = '?';
        path[1] = '\0';
    }
    errno = saved;
    return offset;
}

// _dl_find_object takes no lock.
uintptr_t sys_locate_quietly(uintptr_t pc, char *path, size_t path_bytes) {
    struct dl_find_object found;
    struct text name = text_on(path, path_bytes);
    if (_dl_find_object((void *)pc, &found) != 0) {
        text_char(&name, '?');
        return pc;
    }
    const struct link_map *map = found.dlfo_link_map;
    if (map->l_name != NULL && map->l_name[0] != '\0') {
        text_str(&name, map->l_name);
    } else {
        const int saved = errno;
        const unsigned long executed = getauxval(AT_EXECFN);
        errno = saved;
        text_str(&name, executed != 0 ? (const char *)executed : "?");
    }
    return pc - map->l_addr;
}
