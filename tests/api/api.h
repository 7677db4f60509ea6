// For tests that see Firn from outside only: is it the allocator that answers, and at which level?
// A test that ran on another malloc would prove nothing, so each program begins with this check.
#ifndef FIRN_TESTS_API_API_H
#define FIRN_TESTS_API_API_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The address of an exported function, as the dynamic linker binds it for everybody.
static inline void *api_symbol(const char *name) {
    return dlsym(RTLD_DEFAULT, name);
}

// True when `name` is bound to the module that firn_version is in.
static inline int api_is_ours(const char *name) {
    Dl_info theirs, ours;
    void *version = api_symbol("firn_version");
    void *symbol = api_symbol(name);
    return version != NULL && symbol != NULL && dladdr(version, &ours) != 0 &&
           dladdr(symbol, &theirs) != 0 && theirs.dli_fbase == ours.dli_fbase;
}

static inline const char *api_version(void) {
    void *symbol = api_symbol("firn_version");
    const char *(*version)(void) = NULL;
    memcpy(&version, &symbol, sizeof(symbol));
    return version != NULL ? version() : NULL;
}

// The hardening level of the loaded library, -1 when it does not say.
static inline int api_level(void) {
    const char *at = api_version() != NULL ? strstr(api_version(), " level=") : NULL;
    return at != NULL ? atoi(at + 7) : -1;
}

// Ends the program with a verdict when Firn is not what it runs on.
static inline void api_require_firn(const char *test) {
    const char *asked = getenv("FIRN_LEVEL");
    const char *reason = NULL;
    if (!api_is_ours("malloc") || !api_is_ours("free")) {
        reason = "Firn is not loaded";
    } else if (asked != NULL && atoi(asked) != api_level()) {
        reason = "the loaded library has another level than FIRN_LEVEL says";
    }
    if (reason != NULL) {
        printf("not ok %s: %s\n", test, reason);
        exit(1);
    }
}

#endif
