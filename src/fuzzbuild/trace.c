#include "src/fuzzbuild/trace.h"

#include "src/base/align.h"
#include "src/fuzzbuild/access.h"
#include "src/fuzzbuild/space.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { BUCKETS = 1024, KNOWN_CALLS = 128, STEP_MOST = 1 << 20, UNIT = 16 };
#define MAIN_STACK_MOST ((uintptr_t)64 << 20)

// A recorded stack: this header, then its frames. Its id is its distance from the heap's base in UNITs:
// stacks lie in chunks of the heap, so that they cost a fork no mapping of their own.
struct entry {
    uint32_t next; // id of the next in its bucket
    uint32_t hash;
    uint64_t depth;
};

static uintptr_t chunk_next, chunk_end; // free room in the newest chunk of stacks
static uint32_t buckets[BUCKETS];       // ids, by hash; 0: empty
static unsigned depth_most = 1;
// Return addresses seen to follow a call. Relaxed: an entry is one word that says something true of
// the code, whichever thread wrote it.
static _Atomic uintptr_t known_calls[KNOWN_CALLS], known_others[KNOWN_CALLS];
static uintptr_t main_stack_end;

void trace_start(unsigned depth) {
    depth_most = depth;
    // The kernel puts the environment above every frame of the main thread.
    main_stack_end = align_down((uintptr_t)environ, sizeof(uintptr_t));
}

// Memory between a live frame of the main thread and the environment is always mapped.
static bool is_on_main_stack(uintptr_t address) {
    return address < main_stack_end && main_stack_end - address < MAIN_STACK_MOST;
}

// Every way to encode a call ends right before its return address: e8 + 4 bytes, or ff /2 with 0 to 5
// bytes of address.
static bool follows_call(uintptr_t pc) {
    unsigned char code[8];
    uintptr_t word;
    if (!access_peek(pc - sizeof(word), &word)) {
        return false;
    }
    memcpy(code, &word, sizeof(code));
    if (code[3] == 0xe8) {
        return true;
    }
    for (unsigned back = 2; back <= 7; back++) {
        if (code[8 - back] == 0xff && (code[9 - back] >> 3 & 7) == 2) {
            return true;
        }
    }
    return false;
}

// A value that is not one may point nowhere, and finding that out costs a signal: data of the program
// comes by again and again where its compiler uses rbp for something else, and is remembered too.
bool trace_is_return_address(uintptr_t pc) {
    _Atomic uintptr_t *known = &known_calls[pc % KNOWN_CALLS];
    _Atomic uintptr_t *other = &known_others[pc % KNOWN_CALLS];
    if (atomic_load_explicit(known, memory_order_relaxed) == pc) {
        return true;
    }
    if (pc < FIRN_PAGE || pc >> 47 != 0 || space_contains(pc) || is_on_main_stack(pc) ||
        atomic_load_explicit(other, memory_order_relaxed) == pc) {
        return false;
    }
    bool is_call = follows_call(pc);
    atomic_store_explicit(is_call ? known : other, pc, memory_order_relaxed);
    return is_call;
}

static bool read_frame(uintptr_t above, uintptr_t fp, uintptr_t out[2]) {
    if (is_on_main_stack(above)) {
        if (fp >= main_stack_end) {
            return false;
        }
        memcpy(out, (const void *)fp, 2 * sizeof(uintptr_t));
        return true;
    }
    return access_peek(fp, &out[0]) && access_peek(fp + sizeof(uintptr_t), &out[1]);
}

static size_t walk_from(uintptr_t above, uintptr_t fp, uintptr_t *frames, size_t n, size_t most) {
    while (n < most && fp > above && fp - above < STEP_MOST &&
           align_is_aligned(fp, sizeof(uintptr_t))) {
        uintptr_t frame[2];
        if (!read_frame(above, fp, frame) || !trace_is_return_address(frame[1])) {
            break;
        }
        frames[n++] = frame[1];
        above = fp;
        fp = frame[0];
    }
    return n;
}

size_t trace_walk(struct trace_origin from, uintptr_t *frames, size_t most) {
    uintptr_t caller_fp;
    frames[0] = from.pc;
    memcpy(&caller_fp, (const void *)from.fp, sizeof(caller_fp));
    return walk_from(from.fp, caller_fp, frames, 1, most);
}

size_t trace_walk_context(uintptr_t pc, uintptr_t fp, uintptr_t *frames, size_t most) {
    frames[0] = pc;
    return walk_from(fp - 1, fp, frames, 1, most);
}

static struct entry *entry_at(uint32_t id) {
    return (struct entry *)(space_map.base + (uintptr_t)id * UNIT);
}

static uint32_t add_entry(const uintptr_t *frames, size_t n, uint32_t hash) {
    size_t bytes = align_up(sizeof(struct entry) + n * sizeof(uintptr_t), UNIT);
    if (chunk_end - chunk_next < bytes) {
        uintptr_t chunk = space_take_chunk();
        if (chunk == 0) {
            return 0;
        }
        chunk_next = chunk;
        chunk_end = chunk + SPACE_CHUNK;
    }
    struct entry *e = (struct entry *)chunk_next;
    uint32_t id = (uint32_t)((chunk_next - space_map.base) / UNIT);
    *e = (struct entry){buckets[hash % BUCKETS], hash, n};
    memcpy(e + 1, frames, n * sizeof(uintptr_t));
    buckets[hash % BUCKETS] = id;
    chunk_next += bytes;
    return id;
}

static bool is_same(const struct entry *e, const uintptr_t *frames, size_t n) {
    const uintptr_t *recorded = (const uintptr_t *)(e + 1);
    size_t i = 0;
    while (i < n && recorded[i] == frames[i]) {
        i++;
    }
    return i == n;
}

uint32_t trace_record(struct trace_origin from) {
    uintptr_t frames[TRACE_MOST];
    size_t n = trace_walk(from, frames, depth_most);
    uint64_t hash = n;
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ frames[i]) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 32;
    }
    for (uint32_t id = buckets[(uint32_t)hash % BUCKETS]; id != 0; id = entry_at(id)->next) {
        const struct entry *e = entry_at(id);
        if (e->hash == (uint32_t)hash && e->depth == n && is_same(e, frames, n)) {
            return id;
        }
    }
    return add_entry(frames, n, (uint32_t)hash);
}

size_t trace_get(uint32_t id, const uintptr_t **frames) {
    if (id == 0) {
        return 0;
    }
    const struct entry *e = entry_at(id);
    *frames = (const uintptr_t *)(e + 1);
    return e->depth;
}
