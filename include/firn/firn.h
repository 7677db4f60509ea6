/* Firn: a hardened malloc for Linux. The public interface beside the standard one.
 *
 * Link with -lfirn or preload libfirn.so; a program that also wants to run without Firn declares
 * these functions weak. Every function is thread-safe; async-signal-safe are those that say so. */
#ifndef FIRN_FIRN_H
#define FIRN_FIRN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Memory figures in bytes; names and meanings are jemalloc's (`man jemalloc`, stats.*). */
struct firn_stats {
    size_t struct_bytes; /* set by the caller to sizeof(struct firn_stats) before the call */
    size_t allocated;    /* handed to the program, rounded up to slots and pages */
    size_t active;       /* pages with at least one live block */
    size_t resident;     /* upper bound of what is in physical memory */
    size_t retained;     /* address space kept, its pages given back to the kernel */
    size_t mapped;       /* address space that is readable and writable */
    size_t metadata;     /* Firn's own */
    size_t small_blocks; /* live blocks by kind */
    size_t large_blocks;
    size_t dirty; /* freed, not yet given back */
    size_t thread_caches;
    size_t reserved;        /* address space reserved in all */
    size_t meshed_pages;    /* pages that share memory with others now (firn_compact, mesh=auto) */
    size_t mesh_saved;      /* bytes that saves */
    size_t mesh_vmas;       /* memory mappings that costs */
    size_t mesh_longest_ns; /* the longest time threads that wrote to such a page had to wait */
    /* With cold=on; else 0. Pages are of 4096 bytes. */
    size_t frozen_raw;    /* bytes of pages that are compressed now */
    size_t frozen_stored; /* bytes of memory they take, with all records of where they are */
    size_t freezes;       /* pages compressed so far */
    size_t thaws;         /* pages brought back so far */
    size_t
        thaw_p50_ns; /* how long somebody waited for one: half of them, 99 of 100, all. Powers of two */
    size_t thaw_p99_ns; /* but for the last; what a thread waits for the processor comes on top */
    size_t thaw_longest_ns;
    size_t refaults; /* pages that somebody waited for in the last minute */
    size_t
        cold_skipped; /* pages that were to be compressed, and were not: did not shrink, or are shared or full */
    size_t cold_cpu_ns; /* processor time of Firn's two threads for it */
    const char *
        cold_engine; /* "event", "signal", "protect", "swap", or "none". Never NULL. With "swap" the kernel
                        has the pages: frozen_stored is 0, and thaws counts those found to be back */
    const char
        *cold_reason; /* why there is no better one; NULL: it is the best, or what was asked for */
};

/* Fills *out as far as out->struct_bytes reaches. 0, or -1 with errno EINVAL when struct_bytes is
 * smaller than the first field or out is NULL. Walks all span descriptors: microseconds per GiB
 * of heap, not for hot paths. */
int firn_stats(struct firn_stats *out);

/* "0.1.0 level=2": version and hardening level of the library in use. Never NULL. */
const char *firn_version(void);

/* Gives back what can be given back: what is free, the empty pages among sparse ones, and, of pages whose
 * blocks do not collide, all but one: such pages share one physical page from then on, at the addresses they
 * had ("meshing"). Threads that write to a page at that moment wait for some ten microseconds. Returns about
 * how many bytes that was; 0 also where the kernel or a limit does not allow it, or when another thread
 * is at it. Takes milliseconds per 10 MiB of sparse pages. Not async-signal-safe.
 * Not while io_uring or O_DIRECT requests into blocks are in flight; see firn(3) for this and for fork. */
size_t firn_compact(void);

/* What a program knows of its memory better than its allocator, for FIRN_OPTIONS=cold=on; without it
 * these do nothing. What lies in no block of Firn's is ignored. None of them
 * is async-signal-safe.
 *
 * firn_hint_cold: nothing of [p, +bytes) will be touched for long. The pages that lie wholly in the range
 * are compressed at once, by a thread of Firn's, unless they refuse (shared with a forked child, in use by a
 * device). It may be said of any memory; what is then touched comes back as always. */
void firn_hint_cold(const void *p, size_t bytes);

/* The pages of [p, +bytes), which lies in live blocks of the caller, will be touched soon: those that were
 * compressed are back when this returns, and all count as just touched. */
void firn_hint_hot(const void *p, size_t bytes);

/* Nothing of [p, +bytes), which lies in live blocks of the caller, is ever to be compressed: secrets that
 * must not be seen by their compressed size, or what must never wait. Whole pages are excluded, and stay so
 * until the last block on them is freed and they are given back. What was compressed is back when this
 * returns. Holds in children of fork, too. 0, or -1 with ENOMEM: then for a part of the range only. */
int firn_exclude(const void *p, size_t bytes);

/* Brings back all that is compressed when it is called, before a benchmark or a core dump, say. Takes some 10
 * microseconds a page. Pages that stay untouched are compressed again later. */
void firn_thaw_all(void);

/* Bytes from p to the end of the live block that contains it (p need not be its start): what may be
 * read or written there, as malloc_usable_size counts. 0 when p lies in Firn's heap but in no live
 * block: it dangles, or was never handed out. SIZE_MAX when p is not in Firn's heap, which says
 * nothing about it (stack, globals, mmap, NULL). Async-signal-safe; takes no lock; a few nanoseconds
 * for blocks up to 32 KiB, up to a microsecond inside a block of a gigabyte. The answer about a block
 * that another thread frees or resizes meanwhile is any of these. */
size_t firn_object_size(const void *p);

/* What Firn found, as a report handler sees it. Pointers are valid during the call only. */
struct firn_report {
    size_t struct_bytes;     /* of this struct in the library: fields beyond it are not there */
    const char *word;        /* "double-free": the stable word of the first line */
    const char *function;    /* what the program called: "free", "operator delete" */
    uintptr_t address;       /* the pointer in question */
    size_t class_bytes;      /* of its slot; 0 outside of the heap, SIZE_MAX above 32 KiB */
    size_t size;             /* named in the call; SIZE_MAX: none was */
    const char *found;       /* "slot is already free" */
    const char *expected;    /* "a live slot" */
    const char *hint;        /* what to do */
    uintptr_t caller;        /* return address of the call; 0: unknown */
    const char *module;      /* the file that contains it; "?": unknown */
    uintptr_t module_offset; /* for addr2line -e module */
    int thread;              /* kernel's id of the calling thread */
    const char *text;        /* the whole report, as written; NUL-terminated */
    size_t text_bytes;
};

/* Sets the function to be called once, when Firn has found misuse, written its report, and is about
 * to abort; NULL for none. It runs on the thread that failed, with most signals blocked, while the
 * heap is damaged and its locks may be held: it must not allocate, nor call what does (stdio), and
 * should do as little as a signal handler may: write(2) to a descriptor that is open already.
 * Whatever it does the process ends by SIGABRT: when it returns, when it faults, when it misuses the
 * heap again, and 10 seconds later when it does none of these. (It may end the process itself, by
 * _exit.) Safe at any time and from any thread. */
void firn_set_report_handler(void (*handler)(const struct firn_report *));

#ifdef __cplusplus
}
#endif
#endif
