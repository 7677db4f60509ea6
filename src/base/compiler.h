// The compiler's dialect, in one place.
#ifndef FIRN_BASE_COMPILER_H
#define FIRN_BASE_COMPILER_H

#define FIRN_LIKELY(x) __builtin_expect(!!(x), 1)
#define FIRN_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define FIRN_INLINE static inline __attribute__((always_inline))
#define FIRN_NOINLINE __attribute__((noinline))
#define FIRN_COLD __attribute__((cold, noinline))
#define FIRN_NORETURN _Noreturn
#define FIRN_CHECKED __attribute__((warn_unused_result))
#define FIRN_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define FIRN_EXPORT __attribute__((visibility("default")))
// For a declaration: -fvisibility=hidden is about definitions, and what is declared only might be another
// module's, which takes an instruction more to reach.
#define FIRN_HIDDEN __attribute__((visibility("hidden")))
// Initial-exec: a preloaded library's thread-local pointer costs one load and never allocates.
#define FIRN_TLS __thread __attribute__((tls_model("initial-exec")))
// For a definition, of zeros: on pages that are read-only after start (firn.ld, preload/next.c). Pointers to functions
// are what an attacker wants.
#define FIRN_KEPT __attribute__((section(".bss.call_kept")))
#define FIRN_CALLER() ((uintptr_t)__builtin_return_address(0))

#define FIRN_CACHE_LINE 64u
#define FIRN_PAGE_SHIFT 12u
#define FIRN_PAGE 4096u

// `v`, of which the compiler then knows nothing: it keeps it in a register instead of computing it
// again where it is used next.
#define FIRN_OPAQUE(v)                                                                             \
    (__extension__({                                                                               \
        __typeof__((v) + 0) opaque_ = (v);                                                         \
        __asm__("" : "+r"(opaque_));                                                               \
        opaque_;                                                                                   \
    }))

#endif
