// Pages made small, and whole again. The only user of zstd.
//
// A compressor and a decompressor are pieces of memory of the caller's, of the sizes below: nothing here
// allocates, locks or calls the kernel, and what a call needs of the stack is below 8 KiB. One caller at
// a time each; where it stops half-way (a forked child that inherited one in use) it is made anew.
#ifndef FIRN_COLD_PACK_H
#define FIRN_COLD_PACK_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PACK_MOST = 3328, // bytes; a page that stays larger is not worth its thaw
    PACK_SLACK = 4
};

// How a page was packed. Kept beside the packed bytes: they do not say it.
enum pack_codec {
    PACK_ZSTD,
    PACK_CODECS // how many there are
};

enum pack_effort { PACK_FAST, PACK_DEEP };

struct packed {
    uint16_t bytes; // 0: it did not get small enough
    uint8_t codec;
};

size_t pack_compressor_bytes(void);
size_t pack_decompressor_bytes(void);
// `memory` is aligned to 64.
void pack_make_compressor(void *memory);
void pack_make_decompressor(void *memory);

// Whether all bytes of the page are *byte.
bool pack_is_uniform(const void *page, uint8_t *byte);

// `page` has FIRN_PAGE bytes and does not change meanwhile; `out` has PACK_MOST.
struct packed pack_page(void *compressor, enum pack_effort effort, const void *page, void *out);

// Accepts any bytes at all: false, with anything in `page`, unless they are what pack_page makes of a
// whole page. Nothing depends on what is behind `bytes`, but PACK_SLACK bytes there must be readable: zstd
// 1.5.4 looks for a magic number behind each frame, even in the format that has none. Writes nothing beyond
// the page.
bool pack_open(void *decompressor, unsigned codec, const void *in, size_t bytes,
               void *page) FIRN_CHECKED;

#endif
