// zstd in memory of our own (its "static" contexts). Frames carry neither magic number nor content size
// nor checksum: every byte of a small blob counts, and the seal is what vouches for it.
#include "src/cold/pack.h"

#include "src/base/fatal.h"

#include <string.h>

#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>
#include <zstd_errors.h>

enum { WINDOW_LOG = 12, LEVEL_FAST = 1, LEVEL_DEEP = 5 };

// Measured in bench/cold_codec.c: below level 1 the ratio falls off, above 5 only the time grows.
static int level_of(enum pack_effort effort) {
    return effort == PACK_DEEP ? LEVEL_DEEP : LEVEL_FAST;
}

static ZSTD_compressionParameters parameters_of(enum pack_effort effort) {
    ZSTD_compressionParameters p = ZSTD_getCParams(level_of(effort), FIRN_PAGE, 0);
    p.windowLog = WINDOW_LOG;
    return p;
}

size_t pack_compressor_bytes(void) {
    size_t fast = ZSTD_estimateCCtxSize_usingCParams(parameters_of(PACK_FAST));
    size_t deep = ZSTD_estimateCCtxSize_usingCParams(parameters_of(PACK_DEEP));
    return fast > deep ? fast : deep;
}

size_t pack_decompressor_bytes(void) {
    return ZSTD_estimateDCtxSize();
}

static void ensure_set(size_t result) {
    FIRN_ENSURE(!ZSTD_isError(result));
}

// zstd hands out the context at the start of the memory it was given.
void pack_make_compressor(void *memory) {
    ZSTD_CCtx *c = ZSTD_initStaticCCtx(memory, pack_compressor_bytes());
    FIRN_ENSURE(c != NULL && (void *)c == memory);
}

void pack_make_decompressor(void *memory) {
    ZSTD_DCtx *d = ZSTD_initStaticDCtx(memory, pack_decompressor_bytes());
    FIRN_ENSURE(d != NULL && (void *)d == memory);
    ensure_set(ZSTD_DCtx_setParameter(d, ZSTD_d_format, ZSTD_f_zstd1_magicless));
}

bool pack_is_uniform(const void *page, uint8_t *byte) {
    const uint8_t *p = page;
    uint64_t first;
    memcpy(&first, p, sizeof first);
    *byte = p[0];
    // Most pages differ in their first words; the rest is one comparison of the page with itself.
    return first == UINT64_C(0x0101010101010101) * p[0] && memcmp(p, p + 8, FIRN_PAGE - 8) == 0;
}

static void set_up(ZSTD_CCtx *c, enum pack_effort effort) {
    ZSTD_compressionParameters p = parameters_of(effort);
    ensure_set(ZSTD_CCtx_reset(c, ZSTD_reset_session_and_parameters));
    ensure_set(ZSTD_CCtx_setParameter(c, ZSTD_c_format, ZSTD_f_zstd1_magicless));
    ensure_set(ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0));
    ensure_set(ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, (int)p.windowLog));
    ensure_set(ZSTD_CCtx_setParameter(c, ZSTD_c_chainLog, (int)p.chainLog));
    ensure_set(ZSTD_CCtx_setParameter(c, ZSTD_c_hashLog, (int)p.hashLog));
    ensure_set(ZSTD_CCtx_setParameter(c, ZSTD_c_searchLog, (int)p.searchLog));
    ensure_set(ZSTD_CCtx_setParameter(c, ZSTD_c_minMatch, (int)p.minMatch));
    ensure_set(ZSTD_CCtx_setParameter(c, ZSTD_c_targetLength, (int)p.targetLength));
    ensure_set(ZSTD_CCtx_setParameter(c, ZSTD_c_strategy, (int)p.strategy));
}

struct packed pack_page(void *compressor, enum pack_effort effort, const void *page, void *out) {
    ZSTD_CCtx *c = compressor;
    struct packed none = {0, PACK_ZSTD};
    set_up(c, effort);
    size_t n = ZSTD_compress2(c, out, PACK_MOST, page, FIRN_PAGE);
    if (ZSTD_isError(n)) {
        FIRN_ENSURE(ZSTD_getErrorCode(n) == ZSTD_error_dstSize_tooSmall);
        return none;
    }
    return (struct packed){(uint16_t)n, PACK_ZSTD};
}

bool pack_open(void *decompressor, unsigned codec, const void *in, size_t bytes, void *page) {
    ZSTD_DCtx *d = decompressor;
    return codec == PACK_ZSTD && ZSTD_decompressDCtx(d, page, FIRN_PAGE, in, bytes) == FIRN_PAGE;
}
