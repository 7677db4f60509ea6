// Figures for programs and people. One snapshot of heap_stats feeds each form, so that the numbers
// of one answer belong together.
#include "src/front/figures.h"

#include "src/base/text.h"
#include "src/cold/cold.h"
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

// glibc's words: the "arena" is what small blocks come from, "hblk" are blocks mapped one by one.
struct mallinfo2 figures_mallinfo2(void) {
    if (life_is_aside()) {
        return firn_aside.mallinfo2();
    }
    struct heap_stats s;
    heap_stats(&s);
    const struct mallinfo2 m = {
        .arena = figures_minus(s.mapped, s.large_allocated),
        .ordblks = figures_count_free_slots(),
        .hblks = s.large_live,
        .hblkhd = s.large_allocated,
        .uordblks = s.small_allocated,
        .fordblks = figures_minus(s.mapped, s.allocated),
        .keepcost = s.dirty,
    };
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
struct figures_row {
    const char *name;
    size_t offset;
    const char *meaning;
};

#define FIGURES_ROW(member, meaning)                                                               \
    { #member, offsetof(struct heap_stats, member), meaning }

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

static void figures_say(struct text *t, const char *before, uint64_t value) {
    text_str(t, before);
    text_dec(t, value);
}

// Where the cold tier runs, or why it does not; nothing where nobody asked for it.
static void figures_cold(struct text *t) {
    struct cold_stats c;
    cold_stats(&c);
    if (c.reason != NULL) {
        text_str(t, "firn:   cold: off, ");
        text_str(t, c.reason);
        text_char(t, '\n');
        return;
    }
    if (strcmp(c.engine, "none") == 0) {
        return;
    }
    text_str(t, "firn:   cold: engine=");
    text_str(t, c.engine);
    figures_say(t, " chunks=", c.chunks);
    figures_say(t, " away=", c.away);
    figures_say(t, " staged=", c.staged);
    figures_say(t, " frozen=", c.frozen);
    figures_say(t, " zero=", c.zeros);
    figures_say(t, " poor=", c.poor);
    figures_say(t, " spared=", c.spared);
    figures_say(t, " refused=", c.refused);
    figures_say(t, " full=", c.full);
    figures_say(t, "\nfirn:   cold: thaws=", c.thaws);
    figures_say(t, " ahead=", c.fetched);
    figures_say(t, " returns=", c.returns);
    figures_say(t, " zeros=", c.filled);
    figures_say(t, " forks=", c.forks);
    figures_say(t, " p50_ns=", c.thaw_p50_ns);
    figures_say(t, " p99_ns=", c.thaw_p99_ns);
    figures_say(t, " max_ns=", c.thaw_longest_ns);
    figures_say(t, " cpu_ms=", c.cpu_ns / 1000000);
    figures_say(t, "\nfirn:   cold: stored_bytes=", c.stored_bytes);
    figures_say(t, " store_bytes=", c.store_bytes);
    text_str(t, " seal=");
    text_str(t, c.seal);
    text_char(t, '\n');
}

void figures_print(int fd) {
    if (life_is_aside()) {
        firn_aside.malloc_stats();
        return;
    }
    const int saved = errno;
    struct heap_stats s;
    heap_stats(&s);
    char buffer[4096];
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
    figures_cold(&t);
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
    fprintf(stream, "<mesh engine=\"%s\" thread=\"%s\"/>\n</malloc>\n", s.mesh_engine, s.mesh_why);
    return ferror(stream) ? EIO : 0;
}
