// The kernel moves one mapping at a time, and an object that was moved before and has grown since
// spans several. Where they meet is not recorded: a refused range is halved until it fits into one.
#include "src/span/move.h"

#include "src/base/align.h"
#include "src/base/compiler.h"
#include "src/os/caps.h"
#include "src/os/map.h"

#include <string.h>

static void move_copy(uintptr_t from, uintptr_t to, size_t bytes) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    memcpy((void *)to, (const void *)from, bytes);
}

enum move_result move_pages(uintptr_t from, uintptr_t to, size_t bytes) {
    if (bytes < MOVE_LEAST || !caps_has(CAP_MREMAP_KEEP)) {
        move_copy(from, to, bytes);
        return MOVE_COPIED;
    }
    bool is_moved = false;
    bool is_copied = false;
    size_t length = bytes;
    for (size_t done = 0; done < bytes;) {
        if (map_move(from + done, to + done, length)) {
            is_moved = true;
        } else if (length > MOVE_LEAST) {
            length = align_up(length / 2, FIRN_PAGE);
            continue;
        } else {
            move_copy(from + done, to + done, length);
            is_copied = true;
        }
        done += length;
        length = bytes - done;
    }
    if (!is_moved) {
        return MOVE_COPIED;
    }
    return is_copied ? MOVE_MIXED : MOVE_MOVED;
}
