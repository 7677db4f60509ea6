// operator new and delete by their mangled names (Itanium ABI, size_t is `unsigned long`), so that
// the library needs no C++ runtime of its own.
//
// When memory is gone the standard asks for a loop over the new-handler, then std::bad_alloc. The
// loop is here, because a retry must keep the program's call site and exact size; the exception is
// thrown by the runtime in use: its operator new is asked for a size that nobody can have.
// Exceptions pass through these frames on their unwind tables.
#include "src/base/fatal.h"
#include "src/front/front.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

struct cxx_nothrow; // std::nothrow_t, passed by reference and never looked at

// operator new and new[]: plain, nothrow, aligned, aligned nothrow.
void *_Znwm(size_t size);
void *_Znam(size_t size);
void *_ZnwmRKSt9nothrow_t(size_t size, const struct cxx_nothrow *tag);
void *_ZnamRKSt9nothrow_t(size_t size, const struct cxx_nothrow *tag);
void *_ZnwmSt11align_val_t(size_t size, size_t align);
void *_ZnamSt11align_val_t(size_t size, size_t align);
void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, size_t align, const struct cxx_nothrow *tag);
void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t size, size_t align, const struct cxx_nothrow *tag);
// operator delete and delete[]: plain, nothrow, sized, then the same aligned.
void _ZdlPv(void *p);
void _ZdaPv(void *p);
void _ZdlPvRKSt9nothrow_t(void *p, const struct cxx_nothrow *tag);
void _ZdaPvRKSt9nothrow_t(void *p, const struct cxx_nothrow *tag);
void _ZdlPvm(void *p, size_t size);
void _ZdaPvm(void *p, size_t size);
void _ZdlPvSt11align_val_t(void *p, size_t align);
void _ZdaPvSt11align_val_t(void *p, size_t align);
void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align, const struct cxx_nothrow *tag);
void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align, const struct cxx_nothrow *tag);
void _ZdlPvmSt11align_val_t(void *p, size_t size, size_t align);
void _ZdaPvmSt11align_val_t(void *p, size_t size, size_t align);

struct cxx_request {
    size_t size;
    size_t align; // 0: operator new without an alignment
    uintptr_t site;
};

static void *cxx_alloc(const struct cxx_request *r) {
    return r->align == 0 ? front_alloc(r->size, r->site)
                         : front_aligned_alloc(r->align, r->size, r->site);
}

// A function of the C++ runtime that comes after this library, NULL if there is none. A runtime
// that came with dlopen is not in the global order; then the one `site`'s module depends on counts.
// The result of dlsym is used before it is returned: RTLD_NEXT looks at dlsym's return address, and
// a tail call would show it the wrong module.
static void *cxx_find(const char *name, uintptr_t site) {
    void *found = dlsym(RTLD_NEXT, name);
    if (found != NULL) {
        return found;
    }
    Dl_info module;
    if (dladdr((const void *)site, &module) == 0 || module.dli_fname == NULL) {
        return NULL;
    }
    void *handle = dlopen(module.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (handle != NULL) {
        found = dlsym(handle, name);
        dlclose(handle);
    }
    return found;
}

// Runs the current new-handler. False when none is set or there is no C++ runtime.
static bool cxx_run_handler(uintptr_t site) {
    void (*(*get_new_handler)(void))(void) = NULL;
    void *found = cxx_find("_ZSt15get_new_handlerv", site);
    memcpy(&get_new_handler, &found, sizeof(found)); // ISO C has no cast from object to function
    void (*handler)(void) = found != NULL ? get_new_handler() : NULL;
    if (handler == NULL) {
        return false;
    }
    handler(); // frees something, throws, or ends the process
    return true;
}

// Throws std::bad_alloc. Returns NULL, with ENOMEM, only in a program without a C++ runtime, which
// called an operator by name and has nobody who could throw.
static void *cxx_throw(uintptr_t site) {
    void *(*next_new)(size_t) = NULL;
    void *found = cxx_find("_Znwm", site);
    memcpy(&next_new, &found, sizeof(found));
    return found != NULL && next_new != _Znwm ? next_new(SIZE_MAX) : front_refuse();
}

FIRN_COLD static void *cxx_retry(const struct cxx_request *r) {
    const bool is_possible = (r->align & (r->align - 1)) == 0;
    while (is_possible && cxx_run_handler(r->site)) {
        void *p = cxx_alloc(r);
        if (p != NULL) {
            return p;
        }
    }
    return cxx_throw(r->site);
}

// A handler may throw, and only C++ can turn that into NULL: the runtime's nothrow operator does,
// around a call of the throwing one above. All four forms mean the same here.
FIRN_COLD static void *cxx_retry_nothrow(const struct cxx_request *r,
                                         const struct cxx_nothrow *tag) {
    void *(*next_plain)(size_t, const struct cxx_nothrow *) = NULL;
    void *(*next_aligned)(size_t, size_t, const struct cxx_nothrow *) = NULL;
    void *found = cxx_find(
        r->align == 0 ? "_ZnwmRKSt9nothrow_t" : "_ZnwmSt11align_val_tRKSt9nothrow_t", r->site);
    memcpy(&next_plain, &found, sizeof(found));
    memcpy(&next_aligned, &found, sizeof(found));
    if (found == NULL || next_plain == _ZnwmRKSt9nothrow_t ||
        next_aligned == _ZnwmSt11align_val_tRKSt9nothrow_t) {
        return front_refuse();
    }
    return r->align == 0 ? next_plain(r->size, tag) : next_aligned(r->size, r->align, tag);
}

// The request is put together only when the first try failed: no frame on the fast path.
FIRN_INLINE void *cxx_new(size_t size, uintptr_t site) {
    void *p = front_alloc(size, site);
    return FIRN_LIKELY(p != NULL) ? p : cxx_retry(&(struct cxx_request){size, 0, heap_site(site)});
}

FIRN_INLINE void *cxx_new_nothrow(size_t size, const struct cxx_nothrow *tag, uintptr_t site) {
    void *p = front_alloc(size, site);
    return FIRN_LIKELY(p != NULL)
               ? p
               : cxx_retry_nothrow(&(struct cxx_request){size, 0, heap_site(site)}, tag);
}

static void *cxx_new_aligned(const struct cxx_request *r) {
    void *p = cxx_alloc(r);
    return FIRN_LIKELY(p != NULL) ? p : cxx_retry(r);
}

static void *cxx_new_aligned_nothrow(const struct cxx_request *r, const struct cxx_nothrow *tag) {
    void *p = cxx_alloc(r);
    return FIRN_LIKELY(p != NULL) ? p : cxx_retry_nothrow(r, tag);
}

FIRN_EXPORT void *_Znwm(size_t size) {
    return cxx_new(size, HEAP_SITE_HERE);
}

FIRN_EXPORT void *_Znam(size_t size) {
    return cxx_new(size, HEAP_SITE_HERE);
}

FIRN_EXPORT void *_ZnwmRKSt9nothrow_t(size_t size, const struct cxx_nothrow *tag) {
    return cxx_new_nothrow(size, tag, HEAP_SITE_HERE);
}

FIRN_EXPORT void *_ZnamRKSt9nothrow_t(size_t size, const struct cxx_nothrow *tag) {
    return cxx_new_nothrow(size, tag, HEAP_SITE_HERE);
}

FIRN_EXPORT void *_ZnwmSt11align_val_t(size_t size, size_t align) {
    return cxx_new_aligned(&(struct cxx_request){size, align, FIRN_CALLER()});
}

FIRN_EXPORT void *_ZnamSt11align_val_t(size_t size, size_t align) {
    return cxx_new_aligned(&(struct cxx_request){size, align, FIRN_CALLER()});
}

FIRN_EXPORT void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, size_t align,
                                                     const struct cxx_nothrow *tag) {
    return cxx_new_aligned_nothrow(&(struct cxx_request){size, align, FIRN_CALLER()}, tag);
}

FIRN_EXPORT void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t size, size_t align,
                                                     const struct cxx_nothrow *tag) {
    return cxx_new_aligned_nothrow(&(struct cxx_request){size, align, FIRN_CALLER()}, tag);
}

// An alignment named without a size tells nothing that could be checked: it may be anything up to
// the block's own.
FIRN_EXPORT void _ZdlPv(void *p) {
    front_free_as(p, "operator delete", HEAP_SITE_HERE);
}

FIRN_EXPORT void _ZdaPv(void *p) {
    front_free_as(p, "operator delete[]", HEAP_SITE_HERE);
}

FIRN_EXPORT void _ZdlPvRKSt9nothrow_t(void *p, const struct cxx_nothrow *tag) {
    (void)tag;
    front_free_as(p, "operator delete", HEAP_SITE_HERE);
}

FIRN_EXPORT void _ZdaPvRKSt9nothrow_t(void *p, const struct cxx_nothrow *tag) {
    (void)tag;
    front_free_as(p, "operator delete[]", HEAP_SITE_HERE);
}

FIRN_EXPORT void _ZdlPvSt11align_val_t(void *p, size_t align) {
    (void)align;
    front_free_as(p, "operator delete", HEAP_SITE_HERE);
}

FIRN_EXPORT void _ZdaPvSt11align_val_t(void *p, size_t align) {
    (void)align;
    front_free_as(p, "operator delete[]", HEAP_SITE_HERE);
}

FIRN_EXPORT void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align,
                                                     const struct cxx_nothrow *tag) {
    (void)align;
    (void)tag;
    front_free_as(p, "operator delete", HEAP_SITE_HERE);
}

FIRN_EXPORT void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align,
                                                     const struct cxx_nothrow *tag) {
    (void)align;
    (void)tag;
    front_free_as(p, "operator delete[]", HEAP_SITE_HERE);
}

FIRN_EXPORT void _ZdlPvm(void *p, size_t size) {
    front_free_sized(p, size, "operator delete", FIRN_CALLER());
}

FIRN_EXPORT void _ZdaPvm(void *p, size_t size) {
    front_free_sized(p, size, "operator delete[]", FIRN_CALLER());
}

FIRN_EXPORT void _ZdlPvmSt11align_val_t(void *p, size_t size, size_t align) {
    front_free_checked(p, &(struct heap_call){"operator delete", FIRN_CALLER(), size, align});
}

FIRN_EXPORT void _ZdaPvmSt11align_val_t(void *p, size_t size, size_t align) {
    front_free_checked(p, &(struct heap_call){"operator delete[]", FIRN_CALLER(), size, align});
}
