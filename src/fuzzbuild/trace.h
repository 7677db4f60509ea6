// Stacks of allocations and frees, each kept once and known by a small number.
//
// They are walked along frame pointers (os/walk.h). The first frame, the return address of the
// program's own call, is always right.
#ifndef FIRN_FUZZBUILD_TRACE_H
#define FIRN_FUZZBUILD_TRACE_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Where a walk begins. In an exported function: TRACE_HERE().
struct trace_origin {
    uintptr_t pc; // return address into the program
    uintptr_t fp; // the exported function's own frame: [fp] is the caller's rbp
};
#define TRACE_HERE()                                                                               \
    ((struct trace_origin){(uintptr_t)__builtin_return_address(0),                                 \
                           (uintptr_t)__builtin_frame_address(0)})

enum { TRACE_MOST = 32 };

// Notes the bounds of the main stack. Called once.
void trace_start(unsigned depth);

// Up to `most` frames, the program's call first. Any thread, any context; touches memory only where a
// fault is harmless (access_peek).
size_t trace_walk(struct trace_origin from, uintptr_t *frames, size_t most);
// The same from the registers of an interrupted program: the first frame is `pc` itself.
size_t trace_walk_context(uintptr_t pc, uintptr_t fp, uintptr_t *frames, size_t most);

// The number of the stack at `from`, made if new; 0 when memory is exhausted. Caller holds the heap's
// lock.
uint32_t trace_record(struct trace_origin from);
// The frames of a recorded stack; their number, 0 for id 0.
size_t trace_get(uint32_t id, const uintptr_t **frames);

#endif
