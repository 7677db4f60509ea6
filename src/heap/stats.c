// Statistics are summed when asked for, from the descriptors: nothing is counted on a hot path.
#include "hardening/sample.h"
#include "mesh/mesh.h"
#include "src/cache/quarantine.h"
#include "src/cold/cold.h"
#include "src/heap/heap.h"
#include "src/heap/keeper.h"
#include "src/heap/life.h"
#include "src/meta/arena.h"
#include "src/os/map.h"
#include "src/slab/central.h"
#include "src/span/large.h"

bool heap_class_stats(unsigned index, struct heap_class_stats *out) {
    *out = (struct heap_class_stats){0};
    if (index >= SIZE_CLASSES) {
        return false;
    }
    out->slot_bytes = size_class_bytes(index);
    out->span_bytes = (size_t)1 << size_class_span_shift(index);
    if (life_has_started()) {
        struct central_stats s;
        central_stats(index, &s);
        out->live = s.live;
        out->spans = s.active_spans;
        out->empty_spans = s.dirty_spans + s.clean_spans;
    }
    return true;
}

static void add_class(unsigned index, struct heap_stats *out) {
    size_t span_bytes = (size_t)1 << size_class_span_shift(index);
    struct central_stats s;
    central_stats(index, &s);
    out->small_live += s.live;
    out->small_allocated += s.live * size_class_bytes(index);
    out->active += s.active_spans * span_bytes;
    out->dirty += s.dirty_spans * span_bytes;
    out->retained += s.clean_spans * span_bytes;
    size_t committed = firn_central[index].committed_bytes;
    out->mapped += committed;
    out->metadata += (committed >> FIRN_ROOT.classes[index].span_shift) * sizeof(struct span);
}

static void add_samples(struct heap_stats *out) {
    size_t live, bytes, reserved;
    sample_stats(&live, &bytes, &reserved);
    out->small_live += live;
    out->small_allocated += bytes;
    out->active += bytes + live * FIRN_PAGE; // at most
    out->mapped += reserved;
    out->reserved += reserved;
}

static void add_mesh(struct heap_stats *out) {
    struct mesh_stats m;
    struct keeper_stats k;
    mesh_stats(&m);
    keeper_stats(&k);
    out->meshed_pages = m.meshed_pages;
    out->meshed_most = m.meshed_pages_most;
    out->mesh_frames = m.frames;
    out->mesh_saved =
        m.meshed_pages > m.frames ? (m.meshed_pages - m.frames) << FIRN_PAGE_SHIFT : 0;
    out->mesh_passes = m.passes;
    out->mesh_tried = m.tried;
    out->mesh_merged = m.merged_pages;
    out->mesh_refused = m.refused;
    out->mesh_purged = m.purged_pages;
    out->mesh_longest_ns = m.longest_ns;
    out->mesh_p99_ns = m.p99_ns;
    out->mesh_vmas = m.vmas;
    out->mesh_vma_budget = m.vma_budget;
    out->mesh_over_budget = m.over_budget;
    out->keeper_starts = k.starts;
    out->keeper_rounds = k.rounds;
    out->mesh_engine = m.engine;
    out->mesh_why = k.why;
}

static void add_quarantines(struct heap_stats *out) {
    for (const struct cache *c = cache_first(); c != NULL; c = c->next) {
        // The dead's slots were recovered from their spans.
        if (!atomic_load_explicit(&c->is_dead, memory_order_relaxed)) {
            out->quarantined += quarantine_bytes(c);
        }
    }
}

void heap_stats(struct heap_stats *out) {
    *out = (struct heap_stats){0};
    life_start();
    add_mesh(out);
    if (!life_has_started()) {
        return;
    }
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        add_class(i, out);
    }
    add_samples(out);
    struct large_stats large;
    large_stats(&large);
    out->large_live = large.live;
    out->large_allocated = large.allocated_bytes;
    out->allocated = out->small_allocated + out->large_allocated;
    out->active += large.allocated_bytes;
    out->dirty += large.dirty_bytes;
    out->retained += large.retained_bytes;
    out->mapped += large.mapped_bytes;
    out->metadata += arena_committed_bytes();
    out->resident = out->active + out->dirty + out->metadata;
    cache_count(&out->caches, &out->caches_in_use);
    add_quarantines(out);
    out->guard_vmas = map_guard_vmas();
    out->reserved += FIRN_ROOT.data.bytes + FIRN_ROOT.meta.bytes;
    struct cold_stats cold;
    cold_stats(&cold);
    out->frozen = cold.away << FIRN_PAGE_SHIFT;
    out->frozen_pages = cold.frozen;
    out->thawed_pages = cold.thaws;
}
