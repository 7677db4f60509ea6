#include "src/fuzzbuild/trace.h"

#include "src/base/align.h"
#include "src/fuzzbuild/access.h"
#include "src/fuzzbuild/space.h"
#include "src/os/walk.h"

#include <string.h>

enum { BUCKETS = 1024, UNIT = 16 };

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

void trace_start(unsigned depth) {
    depth_most = depth;
    walk_start(access_peek, space_contains);
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
