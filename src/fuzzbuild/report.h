// The parts that reports are made of. One thread at a time owns the text, from report_begin until the
// process ends: a second thread waits in report_begin, and one that faults while it reports dies there.
#ifndef FIRN_FUZZBUILD_REPORT_H
#define FIRN_FUZZBUILD_REPORT_H

#include "src/base/text.h"
#include "src/fuzzbuild/trace.h"

#include <stdint.h>

// Opens a report: the ruler and "==PID==ERROR: AddressSanitizer: BUG" without a line end. `bug` may be
// NULL.
struct text *report_begin(const char *bug);
void report_prefix(struct text *t); // "==PID=="
void report_address(struct text *t, uintptr_t address);
// Frames, then an empty line.
// Of an interrupted program. Functions of libc such as memcpy have no frame: there, the word at the
// stack pointer is tried as their return address.
void report_context(struct text *t, uintptr_t pc, uintptr_t fp, uintptr_t sp);
void report_walk(struct text *t, struct trace_origin from);
void report_recorded(struct text *t, uint32_t trace);
// The SUMMARY line and the end; writes everything to stderr.
void report_end(struct text *t, const char *bug, uintptr_t pc);
// Writes without ending (leak lists).
void report_flush(struct text *t);

#endif
