// The heap's figures in every form a program can ask for: firn_stats, mallinfo, mallinfo2, the text
// of malloc_stats and stats=exit, the XML of malloc_info. No lock of Firn's is held while text is
// written, so that a stdio stream may allocate its buffer here.
#ifndef FIRN_FRONT_FIGURES_H
#define FIRN_FRONT_FIGURES_H

#include "include/firn/firn.h"
#include "src/base/config.h"

#include <malloc.h>
#include <stdio.h>

#define FIGURES_TEXT(x) #x
#define FIGURES_EXPAND(x) FIGURES_TEXT(x)
// What firn_version returns.
#define FIGURES_VERSION "0.1.0 level=" FIGURES_EXPAND(FIRN_LEVEL)

// firn_stats (firn.h).
int figures_fill(struct firn_stats *out);
// Both allocators' together where large_only leaves requests to the next one.
struct mallinfo2 figures_mallinfo2(void);
// The same with ints: figures that do not fit are INT_MAX.
struct mallinfo figures_mallinfo(void);
// Text for people, to `fd` (-1: nowhere). Allocates nothing. Preserves errno.
void figures_print(int fd);
// malloc_stats: the same on standard error, and what the next allocator says of its own where it serves any.
void figures_malloc_stats(void);
// malloc_info: 0; EINVAL (errno too) when options is not 0 or stream is NULL; else an errno value
// when the stream does not take it.
int figures_write_xml(int options, FILE *stream);

#endif
