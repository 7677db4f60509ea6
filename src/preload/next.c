// Where the calls of this folder go on to (call.h). All at start: dlsym takes the loader's lock, which a forked child
// or a signal handler, where any of them may be the first, had better not.
//
// Not in the archive, where libc's own definitions may be linked in, too.
#include "src/cold/cold.h"
#include "src/front/options.h"
#include "src/heap/life.h"
#include "src/heap/storm.h"
#include "src/os/map.h"
#include "src/os/sys.h"
#include "src/preload/call.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// The linker puts them around what is FIRN_KEPT: whole pages.
extern unsigned char firn_next_start[] __attribute__((visibility("hidden")));
extern unsigned char firn_next_end[] __attribute__((visibility("hidden")));

// ISO C has no cast from function to object.
static void *address_of(call_missing_fn *f) {
    void *p;
    memcpy(&p, &f, sizeof p);
    return p;
}

// Of these there are two, and dlsym found the older one before glibc 2.36, which does something else.
static void *find_newer(const char *name) {
    static const char newer[][2][24] = {
        {"pthread_cond_wait", "GLIBC_2.3.2"}, {"pthread_cond_timedwait", "GLIBC_2.3.2"},
        {"timer_create", "GLIBC_2.3.3"},      {"timer_gettime", "GLIBC_2.3.3"},
        {"timer_settime", "GLIBC_2.3.3"},     {"posix_spawn", "GLIBC_2.15"},
        {"posix_spawnp", "GLIBC_2.15"},       {"lio_listio", "GLIBC_2.4"},
        {"lio_listio64", "GLIBC_2.4"},
    };
    for (size_t i = 0; i < sizeof newer / sizeof newer[0]; i++) {
        if (strcmp(name, newer[i][0]) == 0) {
            return dlvsym(RTLD_NEXT, name, newer[i][1]);
        }
    }
    return NULL;
}

void call_find(void **slots, const char *names, call_missing_fn *otherwise) {
    for (; *names != '\0'; names += strlen(names) + 1) {
        void *newer = find_newer(names);
        void *found = newer != NULL ? newer : dlsym(RTLD_NEXT, names);
        *slots++ = found != NULL ? found : address_of(otherwise);
    }
}

static void find_all(void) {
    call_find_written();
    call_find_read();
    call_find_records();
    call_find_paths();
    call_find_programs();
    call_find_streams();
    call_find_waits();
}

unsigned char firn_call_state FIRN_KEPT;
static _Atomic unsigned inside; // threads that may write to what is FIRN_KEPT
static bool is_found FIRN_KEPT;

// The best engine cannot be told before the heap has started, which has the options of it then.
static bool is_wary(void) {
    if (options_get()->cold != OPTION_COLD_ON || options_get()->cold_store == OPTION_STORE_SWAP) {
        return false;
    }
    life_start();
    return cold_settle_engine() != FAULT_EVENT;
}

// The state is not known before it is decided whether the heap serves this process at all (foreign.c), and that is
// not for the first call of another library's constructor to decide.
void call_look_up(void) {
    atomic_fetch_add(&inside, 1);
    if (firn_call_state == CALL_UNKNOWN) { // else it is read-only, or about to be
        if (!is_found) {
            find_all();
            is_found = true;
        }
        if (life_is_decided()) {
            firn_call_state = !life_is_aside() && is_wary() ? CALL_WARY : CALL_PLAIN;
        }
    }
    atomic_fetch_sub(&inside, 1);
}

__attribute__((constructor)) static void look_up(void) {
    life_decide();
    call_look_up();
    while (atomic_load(&inside) != 0) { // a thread that an earlier constructor started
        sys_yield();
    }
    map_make_readonly((uintptr_t)firn_next_start,
                      (uintptr_t)firn_next_end - (uintptr_t)firn_next_start);
    pin_announce();
    storm_start_if_asked();
}

// ---- Firn's own calls ----------------------------------------------------------------------------
//
// They are not the program's, and come before anything is found: the linker renames them (-Wl,--wrap).

int __wrap_clock_gettime(clockid_t clock, struct timespec *out);
int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *time,
                           struct timespec *rest);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_getrlimit(int resource, struct rlimit *out);
int __wrap_mincore(void *p, size_t bytes, unsigned char *out);
int __wrap_setsockopt(int fd, int level, int name, const void *p, unsigned bytes);

int __wrap_clock_gettime(clockid_t clock, struct timespec *out) {
    return FIRN_LIKELY(firn_call_state != CALL_UNKNOWN)
               ? call_next_clock_gettime(clock, out)
               : (int)syscall(SYS_clock_gettime, clock, out);
}

int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *time,
                           struct timespec *rest) {
    return syscall(SYS_clock_nanosleep, clock, flags, time, rest) == 0 ? 0 : errno;
}

int __wrap_fcntl(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *p = va_arg(arguments, void *);
    va_end(arguments);
    return (int)syscall(SYS_fcntl, fd, command, p);
}

int __wrap_getrlimit(int resource, struct rlimit *out) {
    return (int)syscall(SYS_prlimit64, 0, resource, NULL, out);
}

int __wrap_mincore(void *p, size_t bytes, unsigned char *out) {
    return (int)syscall(SYS_mincore, p, bytes, out);
}

int __wrap_setsockopt(int fd, int level, int name, const void *p, unsigned bytes) {
    return (int)syscall(SYS_setsockopt, fd, level, name, p, bytes);
}
