#include "src/base/report_text.h"

#include <string.h>

enum { PATH_BYTES = 256 };

struct report_row {
    const char *slug;
    const char *expected;
    const char *advice;
};

static const struct report_row rows[FATAL_COUNT] = {
#define FATAL(id, slug, expected, advice) [FATAL_##id] = {slug, expected, advice},
#include "src/base/fatal.def"
#undef FATAL
};

const char *report_text_slug(enum fatal_id id) {
    return rows[id].slug;
}

const char *report_text_expected(enum fatal_id id) {
    return rows[id].expected;
}

const char *report_text_advice(enum fatal_id id) {
    return rows[id].advice;
}

// A path or a thread's name is the program's to choose: it must not be able to forge further lines.
static void make_printable(char *s) {
    for (; *s != '\0'; s++) {
        bool is_control = (unsigned char)*s < 0x20 || *s == 0x7f;
        *s = is_control ? '?' : *s;
    }
}

static uintptr_t locate(const struct report_source *from, uintptr_t pc, char *path, size_t n) {
    uintptr_t offset = pc;
    path[0] = '?';
    path[1] = '\0';
    if (from->locate != NULL && pc != 0) {
        offset = from->locate(pc, path, n);
        make_printable(path);
    }
    return offset;
}

static void text_place(struct text *t, const char *path, uintptr_t offset) {
    text_str(t, path);
    text_char(t, '+');
    text_hex(t, offset);
}

static void text_size(struct text *t, size_t size, size_t none, const char *word) {
    if (size == none) {
        text_str(t, word);
    } else {
        text_dec(t, size);
    }
}

void report_text_first_line(struct text *t, struct report_source *from) {
    const struct fatal_info *info = from->info;
    from->offset = locate(from, info->caller, from->module, sizeof(from->module));
    text_str(t, "firn: ");
    text_str(t, rows[from->id].slug);
    text_str(t, ": ");
    text_str(t, info->api);
    text_char(t, '(');
    text_hex(t, info->address);
    text_str(t, "): class=");
    if (info->class_bytes == FATAL_CLASS_LARGE) {
        text_str(t, "large");
    } else {
        text_size(t, info->class_bytes, FATAL_CLASS_NONE, "none");
    }
    text_str(t, " size=");
    text_size(t, info->size, FATAL_SIZE_UNKNOWN, "?");
    text_str(t, " found: ");
    text_str(t, info->found);
    text_str(t, "; expected: ");
    text_str(t, rows[from->id].expected);
    text_str(t, "; caller=");
    text_place(t, from->module, from->offset);
    text_char(t, '\n');
}

static void text_trace(struct text *t, const struct report_source *from, const char *what,
                       const struct fatal_trace *trace) {
    char path[PATH_BYTES];
    if (trace->count == 0 && trace->thread == 0) {
        return;
    }
    text_str(t, "firn:   ");
    text_str(t, what);
    text_char(t, ':');
    if (trace->thread != 0) {
        text_str(t, " by thread ");
        text_dec(t, (uint64_t)trace->thread);
    }
    for (unsigned i = 0; i < trace->count && i < FATAL_FRAMES; i++) {
        uintptr_t offset = locate(from, trace->pcs[i], path, sizeof(path));
        text_str(t, i == 0 ? " at " : " < ");
        text_place(t, path, offset);
    }
    text_char(t, '\n');
}

static void text_record(struct text *t, const struct report_source *from) {
    struct fatal_record record;
    memset(&record, 0, sizeof(record));
    record.requested = FATAL_SIZE_UNKNOWN;
    for (unsigned i = 0; i < FATAL_RECALLS && from->recalls[i] != NULL; i++) {
        from->recalls[i](from->info, &record);
    }
    if (record.requested != FATAL_SIZE_UNKNOWN) {
        text_str(t, "firn:   requested: ");
        text_dec(t, record.requested);
        text_str(t, " bytes\n");
    }
    text_trace(t, from, "allocated", &record.allocated);
    text_trace(t, from, "freed", &record.freed);
}

void report_text_block(struct text *t, const struct report_source *from) {
    if (from->detail != NULL) {
        size_t room = t->capacity - t->length;
        size_t written = from->detail(from->id, from->info, t->data + t->length, room);
        t->length += written < room ? written : room - 1;
    }
    text_record(t, from);
}

static void text_thread(struct text *t, const struct report_source *from) {
    char name[32];
    struct text n = text_on(name, sizeof(name));
    text_str(&n, from->thread_name);
    make_printable(name);
    text_str(t, "firn:   thread: ");
    text_dec(t, (uint64_t)from->thread);
    text_str(t, " \"");
    text_str(t, name);
    text_str(t, "\" of process ");
    text_dec(t, (uint64_t)from->process);
    text_char(t, '\n');
}

void report_text_rest(struct text *t, const struct report_source *from) {
    if (from->thread != 0) {
        text_thread(t, from);
    }
    if (from->module[0] != '?' && from->module[0] != '\0') {
        text_str(t, "firn:   look at: addr2line -f -C -e ");
        text_str(t, from->module);
        text_char(t, ' ');
        text_hex(t, from->offset);
        text_char(t, '\n');
    }
    text_str(t, "firn:   hint: ");
    text_str(t, rows[from->id].advice);
    text_char(t, '\n');
}

void report_text_mend(struct text *t) {
    while (t->length > 0 && t->data[t->length - 1] != '\n') {
        t->length--;
    }
    t->data[t->length] = '\0';
}
