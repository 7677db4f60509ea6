// Figures for programs and people. One snapshot of heap_stats feeds each form, so that the numbers
// of one answer belong together.
#include "src/front/figures.h"

#include "src/base/text.h"
#include "src/cold/cold.h"
#include "src/front/cold_text.h"
#include "src/heap/aside.h"
#include "src/heap/heap.h"
#include "src/heap/life.h"
#include "src/os/sys.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

int figures_fill(struct firn_stats *out) {
    if (out == NULL || out->struct_bytes < sizeof(out->struct_bytes)) {
        errno = EINVAL;
        return -1;
    }
    struct heap_stats s;
    heap_stats(&s);
    struct cold_stats cold;
    cold_stats(&cold);
    const bool is_swapping = strcmp(cold.engine, "swap") == 0;
    // A caller built against an older header has a shorter struct, a newer one a longer one.
    const size_t bytes = out->struct_bytes < sizeof(struct firn_stats) ? out->struct_bytes
                                                                       : sizeof(struct firn_stats);
    const struct firn_stats all = {
        .struct_bytes = out->struct_bytes,
        .allocated = s.allocated,
        .active = s.active,
        .resident = s.resident,
        .retained = s.retained,
        .mapped = s.mapped,
        .metadata = s.metadata,
        .small_blocks = s.small_live,
        .large_blocks = s.large_live,
        .dirty = s.dirty,
        .thread_caches = s.caches,
        .reserved = s.reserved,
        .meshed_pages = s.meshed_pages,
        .mesh_saved = s.mesh_saved,
        .mesh_vmas = s.mesh_vmas,
        .mesh_longest_ns = s.mesh_longest_ns,
        .frozen_raw = (is_swapping ? cold.away : cold.uniform_pages + cold.packed_pages)
                      << FIRN_PAGE_SHIFT,
        .frozen_stored = cold.store_bytes,
        .freezes = cold.frozen,
        .thaws = cold.thaws,
        .thaw_p50_ns = cold.thaw_p50_ns,
        .thaw_p99_ns = cold.thaw_p99_ns,
        .thaw_longest_ns = cold.thaw_longest_ns,
        .refaults = cold.refaults,
        .cold_skipped = cold.poor + cold.spared + cold.refused + (is_swapping ? 0 : cold.full),
        .cold_cpu_ns = cold.freeze_cpu_ns + cold.thaw_cpu_ns,
        .cold_engine = cold.engine,
        .cold_reason = cold.reason != NULL ? cold.reason
                       : cold.held != NULL ? cold.held
                                           : cold.lesser,
    };
    memcpy(out, &all, bytes);
    return 0;
}

static size_t figures_minus(size_t a, size_t b) {
    return a > b ? a - b : 0;
}

static size_t figures_count_free_slots(void) {
    size_t slots = 0;
    struct heap_class_stats c;
    for (unsigned i = 0; heap_class_stats(i, &c); i++) {
        if (c.slot_bytes != 0) {
            slots += figures_minus(c.spans * (c.span_bytes / c.slot_bytes), c.live);
        }
    }
    return slots;
}

static void figures_add_next(struct mallinfo2 *m) {
    const struct mallinfo2 next = firn_aside.mallinfo2();
    m->arena += next.arena;
    m->ordblks += next.ordblks;
    m->smblks += next.smblks;
    m->hblks += next.hblks;
    m->hblkhd += next.hblkhd;
    m->usmblks += next.usmblks;
    m->fsmblks += next.fsmblks;
    m->uordblks += next.uordblks;
    m->fordblks += next.fordblks;
    m->keepcost += next.keepcost;
}

// glibc's words: the "arena" is what small blocks come from, "hblk" are blocks mapped one by one.
struct mallinfo2 figures_mallinfo2(void) {
    if (life_is_aside()) {
        return firn_aside.mallinfo2();
    }
    struct heap_stats s;
    heap_stats(&s);
    struct mallinfo2 m = {
        .arena = figures_minus(s.mapped, s.large_allocated),
        .ordblks = figures_count_free_slots(),
        .hblks = s.large_live,
        .hblkhd = s.large_allocated,
        .uordblks = s.small_allocated,
        .fordblks = figures_minus(s.mapped, s.allocated),
        .keepcost = s.dirty,
    };
    if (firn_large_only != 0) {
        figures_add_next(&m);
    }
    return m;
}

static int figures_saturate(size_t n) {
    return n < INT_MAX ? (int)n : INT_MAX;
}

struct mallinfo figures_mallinfo(void) {
    const struct mallinfo2 wide = figures_mallinfo2();
    const struct mallinfo m = {
        .arena = figures_saturate(wide.arena),
        .ordblks = figures_saturate(wide.ordblks),
        .hblks = figures_saturate(wide.hblks),
        .hblkhd = figures_saturate(wide.hblkhd),
        .uordblks = figures_saturate(wide.uordblks),
        .fordblks = figures_saturate(wide.fordblks),
        .keepcost = figures_saturate(wide.keepcost),
    };
    return m;
}

// One named figure: a size_t member of struct heap_stats.
// The texts are in it, not pointers to them: those would be relocated in every process, on a page of their own.
struct figures_row {
    size_t offset;
    char name[24];
    char meaning[56];
};

#define FIGURES_ROW(member, meaning)                                                               \
    { offsetof(struct heap_stats, member), #member, meaning }

static const struct figures_row figures_rows[] = {
    FIGURES_ROW(allocated, "bytes in live blocks, rounded up to slots and pages"),
    FIGURES_ROW(active, "bytes of pages with a live block"),
    FIGURES_ROW(resident, "bytes in physical memory, at most"),
    FIGURES_ROW(retained, "bytes of address space given back and kept"),
    FIGURES_ROW(mapped, "bytes readable and writable"),
    FIGURES_ROW(metadata, "bytes of Firn's own"),
    FIGURES_ROW(dirty, "bytes freed, not yet given back"),
    FIGURES_ROW(small_allocated, "bytes in small blocks"),
    FIGURES_ROW(large_allocated, "bytes in large blocks"),
    FIGURES_ROW(small_live, "small blocks"),
    FIGURES_ROW(large_live, "large blocks"),
    FIGURES_ROW(caches, "thread caches"),
    FIGURES_ROW(caches_in_use, "of them in use"),
    FIGURES_ROW(quarantined, "bytes freed and kept from use for a while"),
    FIGURES_ROW(guard_vmas, "mappings spent on guard pages"),
    FIGURES_ROW(reserved, "bytes of address space reserved"),
    FIGURES_ROW(frozen, "bytes of pages set aside or compressed"),
    FIGURES_ROW(frozen_pages, "pages compressed so far"),
    FIGURES_ROW(thawed_pages, "of them, brought back"),
    FIGURES_ROW(meshed_pages, "pages that share memory now"),
    FIGURES_ROW(meshed_most, "at most, so far"),
    FIGURES_ROW(mesh_frames, "pages of memory they share"),
    FIGURES_ROW(mesh_saved, "bytes that saves"),
    FIGURES_ROW(mesh_passes, "passes over a size class"),
    FIGURES_ROW(mesh_tried, "places tried for a page"),
    FIGURES_ROW(mesh_merged, "pages merged, so far"),
    FIGURES_ROW(mesh_refused, "stretches of pages not merged: busy, or no memory"),
    FIGURES_ROW(mesh_purged, "empty pages of spans in use given back, so far"),
    FIGURES_ROW(mesh_longest_ns, "ns a stretch of pages was held, at most"),
    FIGURES_ROW(mesh_p99_ns, "ns 99 of 100 were held, at most"),
    FIGURES_ROW(mesh_vmas, "mappings spent on sharing"),
    FIGURES_ROW(mesh_vma_budget, "mappings that may be"),
    FIGURES_ROW(mesh_over_budget, "stretches not merged for want of mappings"),
    FIGURES_ROW(keeper_starts, "times Firn's own thread was started"),
    FIGURES_ROW(keeper_rounds, "rounds of it"),
};

enum { FIGURES_ROWS = sizeof(figures_rows) / sizeof(figures_rows[0]) };

static size_t figures_value(const struct heap_stats *s, const struct figures_row *row) {
    size_t value;
    memcpy(&value, (const char *)s + row->offset, sizeof(value));
    return value;
}

static void figures_pad(struct text *t, size_t column) {
    while (t->length < column && t->length + 1 < t->capacity) {
        text_char(t, ' ');
    }
}

static void figures_say_next(struct text *t) {
    if (firn_large_only != 0) {
        text_str(t, "firn:   large_only: requests below ");
        text_dec(t, firn_large_only);
        text_str(t, " bytes go to the next malloc: nothing above counts or checks them\n");
    }
}

void figures_malloc_stats(void) {
    const bool is_aside = life_is_aside();
    if (!is_aside) {
        figures_print(2);
    }
    if (is_aside || firn_large_only != 0) {
        firn_aside.malloc_stats();
    }
}

void figures_print(int fd) {
    const int saved = errno;
    struct heap_stats s;
    heap_stats(&s);
    char buffer[6144];
    struct text t = text_on(buffer, sizeof(buffer));
    text_str(&t, "firn: " FIGURES_VERSION " pid=");
    text_dec(&t, (uint64_t)sys_process_id());
    text_char(&t, '\n');
    for (size_t i = 0; i < FIGURES_ROWS; i++) {
        const size_t line = t.length;
        text_str(&t, "firn:   ");
        text_str(&t, figures_rows[i].name);
        figures_pad(&t, line + 25);
        text_dec(&t, figures_value(&s, &figures_rows[i]));
        figures_pad(&t, line + 44);
        text_str(&t, figures_rows[i].meaning);
        text_char(&t, '\n');
    }
    text_str(&t, "firn:   mesh: engine ");
    text_str(&t, s.mesh_engine);
    text_str(&t, ", thread: ");
    text_str(&t, s.mesh_why);
    text_char(&t, '\n');
    cold_text_table(&t);
    figures_say_next(&t);
    // In one piece: several processes may share the terminal or the log.
    if (fd >= 0) {
        sys_write(fd, t.data, t.length);
    }
    errno = saved;
}

static void figures_xml_class(FILE *stream, const struct heap_class_stats *c) {
    fprintf(stream, "<size bytes=\"%zu\" live=\"%zu\" spans=\"%zu\" empty=\"%zu\" span=\"%zu\"/>\n",
            c->slot_bytes, c->live, c->spans, c->empty_spans, c->span_bytes);
}

// The histogram's buckets end at powers of two.
static void figures_xml_cold(FILE *stream) {
    struct cold_stats c;
    cold_stats(&c);
    const bool is_swapping = strcmp(c.engine, "swap") == 0;
    fprintf(stream, "<cold engine=\"%s\" reason=\"%s\" seal=\"%s\">\n", c.engine,
            c.reason != NULL ? c.reason : "", c.seal);
    fprintf(stream, "<tier name=\"one byte\" pages=\"%zu\" stored=\"0\"/>\n",
            (size_t)c.uniform_pages);
    fprintf(stream, "<tier name=\"fast\" pages=\"%zu\" stored=\"%zu\"/>\n", (size_t)c.packed_pages,
            (size_t)c.stored_bytes);
    fprintf(stream, "<skipped poor=\"%zu\" spared=\"%zu\" refused=\"%zu\" full=\"%zu\"/>\n",
            (size_t)c.poor, (size_t)c.spared, (size_t)c.refused, (size_t)c.full);
    for (unsigned i = 0; i < COLD_TIMES; i++) {
        if (c.thaw_times[i] != 0) {
            fprintf(stream, "<thaws below_ns=\"%zu\" count=\"%zu\"/>\n", (size_t)2 << i,
                    (size_t)c.thaw_times[i]);
        }
    }
    fprintf(stream, "<swap away=\"%zu\" out=\"%zu\" back=\"%zu\" held=\"%s\"/>\n",
            is_swapping ? (size_t)c.away : 0, is_swapping ? (size_t)c.frozen : 0,
            is_swapping ? (size_t)c.thaws : 0, c.held != NULL ? c.held : "");
    fprintf(stream, "<cpu freezing_ns=\"%zu\" thawing_ns=\"%zu\"/>\n</cold>\n",
            (size_t)c.freeze_cpu_ns, (size_t)c.thaw_cpu_ns);
}

int figures_write_xml(int options, FILE *stream) {
    if (life_is_aside()) {
        return firn_aside.malloc_info(options, stream);
    }
    if (options != 0 || stream == NULL) {
        errno = EINVAL; // glibc returns the number, its manual promises errno: both
        return EINVAL;
    }
    struct heap_stats s;
    heap_stats(&s);
    // The elements after <sizes> carry glibc's names, for the tools that read them.
    fputs("<malloc version=\"1\" allocator=\"firn " FIGURES_VERSION "\">\n<sizes>\n", stream);
    struct heap_class_stats c;
    for (unsigned i = 0; heap_class_stats(i, &c); i++) {
        if (c.spans != 0) {
            figures_xml_class(stream, &c);
        }
    }
    fprintf(stream, "</sizes>\n<total type=\"small\" count=\"%zu\" size=\"%zu\"/>\n", s.small_live,
            s.small_allocated);
    fprintf(stream, "<total type=\"mmap\" count=\"%zu\" size=\"%zu\"/>\n", s.large_live,
            s.large_allocated);
    fprintf(stream, "<system type=\"current\" size=\"%zu\"/>\n", s.mapped);
    fprintf(stream, "<aspace type=\"total\" size=\"%zu\"/>\n", s.reserved);
    for (size_t i = 0; i < FIGURES_ROWS; i++) {
        fprintf(stream, "<figure name=\"%s\" value=\"%zu\"/>\n", figures_rows[i].name,
                figures_value(&s, &figures_rows[i]));
    }
    figures_xml_cold(stream);
    if (firn_large_only != 0) {
        fprintf(stream, "<large_only bytes=\"%zu\"/>\n", firn_large_only);
    }
    fprintf(stream, "<mesh engine=\"%s\" thread=\"%s\"/>\n</malloc>\n", s.mesh_engine, s.mesh_why);
    return ferror(stream) ? EIO : 0;
}
