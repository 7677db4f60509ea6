// Objects that a thread may sleep on in the kernel, which reads them then: pinned for the time of the call. And how
// threads begin.
// (What libc does about an object that the kernel cannot read is, mostly, to end the process.)
#include "src/front/front.h"
#include "src/heap/life.h"
#include "src/os/signals.h"
#include "src/preload/call.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <threads.h>
#include <time.h>

// clang-format off
#define NAMES(X)                                                                                  \
    X(pthread_mutex_lock) X(pthread_mutex_trylock) X(pthread_mutex_timedlock)                     \
    X(pthread_mutex_clocklock) X(pthread_cond_wait) X(pthread_cond_timedwait)                     \
    X(pthread_cond_clockwait) X(pthread_rwlock_rdlock) X(pthread_rwlock_wrlock)                   \
    X(pthread_rwlock_timedrdlock) X(pthread_rwlock_timedwrlock) X(pthread_rwlock_clockrdlock)     \
    X(pthread_rwlock_clockwrlock) X(pthread_barrier_wait) X(mtx_lock) X(mtx_timedlock)            \
    X(cnd_wait) X(cnd_timedwait) X(sem_wait) X(sem_timedwait) X(sem_clockwait) \
    X(pthread_create)
// clang-format on
CALL_DEFINITIONS(call_find_waits, call_fails_by_result);

// ---- mutexes -------------------------------------------------------------------------------------

FIRN_COLD static int wait_for_mutex(pthread_mutex_t *m) {
    CALL(int, add(&c, m, sizeof *m), pthread_mutex_lock, m);
}

// Nobody sleeps for one that is free, and most are.
FIRN_COLD static int wary_pthread_mutex_lock(pthread_mutex_t *m) {
    if ((uintptr_t)m - FIRN_ROOT.data.base >= FIRN_ROOT.data.bytes ||
        firn_call_state == CALL_UNKNOWN) {
        return wait_for_mutex(m);
    }
    int error = next.pthread_mutex_trylock(m);
    return error == EBUSY ? wait_for_mutex(m) : error;
}

FIRN_EXPORT int pthread_mutex_lock(pthread_mutex_t *m) {
    return call_is_plain() ? next.pthread_mutex_lock(m) : wary_pthread_mutex_lock(m);
}

CALL_GUARDED(int, pthread_mutex_timedlock,
             (pthread_mutex_t *restrict m, const struct timespec *restrict until), (m, until),
             add(&c, m, sizeof *m));
CALL_GUARDED(int, pthread_mutex_clocklock,
             (pthread_mutex_t *restrict m, clockid_t clock, const struct timespec *restrict until),
             (m, clock, until), add(&c, m, sizeof *m));
CALL_GUARDED(int, mtx_lock, (mtx_t * m), (m), add(&c, m, sizeof *m));
CALL_GUARDED(int, mtx_timedlock, (mtx_t *restrict m, const struct timespec *restrict until),
             (m, until), add(&c, m, sizeof *m));

// ---- conditions ----------------------------------------------------------------------------------

// A pin of its own for the mutex: what lies between the two is not to be kept for as long as somebody waits.
static struct call pin_mutex(const void *m, size_t bytes) {
    struct call c = {0};
    do {
        add(&c, m, bytes);
    } while (call_begin(&c));
    return c;
}

#define CALL_CONDITION(name, parameters, arguments, condition, mutex)                              \
    FIRN_COLD static int wait_by_##name parameters {                                               \
        CALL(int, add(&c, condition, sizeof *(condition)), name, CALL_BARE arguments);             \
    }                                                                                              \
    FIRN_COLD static int wary_##name parameters {                                                  \
        struct call of_mutex = pin_mutex(mutex, sizeof *(mutex));                                  \
        int result = wait_by_##name arguments;                                                     \
        call_end(&of_mutex);                                                                       \
        return result;                                                                             \
    }                                                                                              \
    FIRN_EXPORT int name parameters {                                                              \
        return call_is_plain() ? next.name arguments : wary_##name arguments;                      \
    }                                                                                              \
    _Static_assert(true, "a semicolon follows")

CALL_CONDITION(pthread_cond_wait, (pthread_cond_t *restrict w, pthread_mutex_t *restrict m), (w, m),
               w, m);
CALL_CONDITION(pthread_cond_timedwait,
               (pthread_cond_t *restrict w, pthread_mutex_t *restrict m,
                const struct timespec *restrict until),
               (w, m, until), w, m);
CALL_CONDITION(pthread_cond_clockwait,
               (pthread_cond_t *restrict w, pthread_mutex_t *restrict m, clockid_t clock,
                const struct timespec *restrict until),
               (w, m, clock, until), w, m);
CALL_CONDITION(cnd_wait, (cnd_t * w, mtx_t *m), (w, m), w, m);
CALL_CONDITION(cnd_timedwait,
               (cnd_t *restrict w, mtx_t *restrict m, const struct timespec *restrict until),
               (w, m, until), w, m);

// ---- others --------------------------------------------------------------------------------------

CALL_GUARDED(int, pthread_rwlock_rdlock, (pthread_rwlock_t * l), (l), add(&c, l, sizeof *l));
CALL_GUARDED(int, pthread_rwlock_wrlock, (pthread_rwlock_t * l), (l), add(&c, l, sizeof *l));
CALL_GUARDED(int, pthread_rwlock_timedrdlock,
             (pthread_rwlock_t *restrict l, const struct timespec *restrict until), (l, until),
             add(&c, l, sizeof *l));
CALL_GUARDED(int, pthread_rwlock_timedwrlock,
             (pthread_rwlock_t *restrict l, const struct timespec *restrict until), (l, until),
             add(&c, l, sizeof *l));
CALL_GUARDED(int, pthread_rwlock_clockrdlock,
             (pthread_rwlock_t *restrict l, clockid_t clock, const struct timespec *restrict until),
             (l, clock, until), add(&c, l, sizeof *l));
CALL_GUARDED(int, pthread_rwlock_clockwrlock,
             (pthread_rwlock_t *restrict l, clockid_t clock, const struct timespec *restrict until),
             (l, clock, until), add(&c, l, sizeof *l));
CALL_GUARDED(int, pthread_barrier_wait, (pthread_barrier_t * b), (b), add(&c, b, sizeof *b));
CALL_GUARDED(int, sem_wait, (sem_t * s), (s), add(&c, s, sizeof *s));
CALL_GUARDED(int, sem_timedwait, (sem_t *restrict s, const struct timespec *restrict until),
             (s, until), add(&c, s, sizeof *s));
CALL_GUARDED(int, sem_clockwait,
             (sem_t *restrict s, clockid_t clock, const struct timespec *restrict until),
             (s, clock, until), add(&c, s, sizeof *s));

// ---- threads -------------------------------------------------------------------------------------

struct beginning {
    void *(*body)(void *);
    void *argument;
};

static void *begin(void *p) {
    signals_adopt(); // before it touches anything
    const struct beginning b = *(const struct beginning *)p;
    front_free(p, HEAP_SITE_HERE);
    (void)life_thread_cache(); // by which it enters, and leaves when it ends
    return b.body(b.argument);
}

// One that never allocates is heard of so, too: when it ends it touches memory of libc's, with signals blocked.
FIRN_COLD static int wary_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                                         void *(*body)(void *), void *argument) {
    struct beginning *b = front_alloc(sizeof *b, HEAP_SITE_HERE);
    if (b == NULL) {
        return EAGAIN;
    }
    *b = (struct beginning){body, argument};
    int error = next.pthread_create(thread, attributes, begin, b);
    if (error != 0) {
        front_free(b, HEAP_SITE_HERE);
    }
    return error;
}

FIRN_EXPORT int pthread_create(pthread_t *restrict thread,
                               const pthread_attr_t *restrict attributes, void *(*body)(void *),
                               void *restrict argument) {
    if (firn_call_state == CALL_UNKNOWN) {
        call_look_up();
    }
    return firn_call_state == CALL_WARY ? wary_pthread_create(thread, attributes, body, argument)
                                        : next.pthread_create(thread, attributes, body, argument);
}

// Firn's own threads.
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*body)(void *), void *argument);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*body)(void *), void *argument) {
    if (firn_call_state == CALL_UNKNOWN) {
        call_look_up();
    }
    return next.pthread_create(thread, attributes, body, argument);
}
