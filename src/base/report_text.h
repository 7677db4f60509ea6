// The words of a report. Pure: everything comes in by arguments, so that nothing here reaches the
// kernel or takes a lock by itself.
//
//   firn: double-free: free(0x3f2a10c0): class=64 ...            the first line, an interface
//   firn:   block: slot 3 of 64 in the span at 0x3f2a1000 ...     from the detail function
//   firn:   allocated: by thread 7 at /usr/bin/prog+0x1169 ...    from the recall functions
//   firn:   thread: 7 "worker" of process 5
//   firn:   look at: addr2line -f -C -e /usr/bin/prog 0x1169
//   firn:   hint: what to do
#ifndef FIRN_BASE_REPORT_TEXT_H
#define FIRN_BASE_REPORT_TEXT_H

#include "src/base/fatal.h"
#include "src/base/text.h"

// Everything a report is made from.
struct report_source {
    enum fatal_id id;
    const struct fatal_info *info;
    fatal_locate_fn *locate; // or NULL
    fatal_detail_fn *detail; // or NULL
    fatal_recall_fn *recalls[FATAL_RECALLS];
    int process, thread; // thread 0: not known, nothing is said of it
    const char *thread_name;
    // Filled in by report_text_first_line: the caller's module, printable, and the offset in it.
    char module[256];
    uintptr_t offset;
};

const char *report_text_slug(enum fatal_id id);
const char *report_text_expected(enum fatal_id id);
const char *report_text_advice(enum fatal_id id);

void report_text_first_line(struct text *t, struct report_source *from);
// The lines that need the heap: detail, then records.
void report_text_block(struct text *t, const struct report_source *from);
// The lines that need nothing: thread, where to look, hint.
void report_text_rest(struct text *t, const struct report_source *from);
// After an interruption, or when something did not fit: cuts back to whole lines.
void report_text_mend(struct text *t);

#endif
