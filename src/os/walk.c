#include "src/os/walk.h"

#include "src/base/align.h"
#include "src/base/compiler.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { KNOWN_CALLS = 128, STEP_MOST = 1 << 20, NO_SUCH_HOW = -1 };
#define MAIN_STACK_MOST ((uintptr_t)64 << 20)

// Return addresses seen to follow a call. Relaxed: an entry is one word that says something true of
// the code, whichever thread wrote it.
static _Atomic uintptr_t known_calls[KNOWN_CALLS], known_others[KNOWN_CALLS];
static uintptr_t main_stack_end;
static walk_peek_fn *peek_word;
static walk_data_fn *is_known_data;

// The kernel copies the set before it looks at what is to be done with it: EFAULT where nothing can be
// read, EINVAL where something can (as Abseil's AddressIsReadable asks). It is a call that every
// sandbox allows, and nothing changes.
// What is read may be anything, also what a sanitizer wants nobody to touch.
__attribute__((no_sanitize("address"))) static bool peek_by_kernel(uintptr_t address,
                                                                   uintptr_t *word) {
    int saved = errno;
    long result = syscall(SYS_rt_sigprocmask, NO_SUCH_HOW, address, NULL, sizeof(uint64_t));
    bool is_readable = result < 0 && errno == EINVAL;
    errno = saved;
    if (is_readable) {
        memcpy(word, (const void *)address, sizeof *word);
    }
    return is_readable;
}

static bool is_data_unknown(uintptr_t address) {
    (void)address;
    return false;
}

void walk_start(walk_peek_fn *peek, walk_data_fn *is_data) {
    peek_word = peek != NULL ? peek : peek_by_kernel;
    is_known_data = is_data != NULL ? is_data : is_data_unknown;
    // The kernel puts the environment above every frame of the main thread.
    main_stack_end = align_down((uintptr_t)environ, sizeof(uintptr_t));
}

// Memory between a live frame of the main thread and the environment is always mapped.
static bool is_on_main_stack(uintptr_t address) {
    return address < main_stack_end && main_stack_end - address < MAIN_STACK_MOST;
}

// Every way to encode a call ends right before its return address: e8 + 4 bytes, or ff /2 with 0 to 5
// bytes of address.
static bool follows_call(uintptr_t pc) {
    unsigned char code[8];
    uintptr_t word;
    if (!peek_word(pc - sizeof(word), &word)) {
        return false;
    }
    memcpy(code, &word, sizeof(code));
    if (code[3] == 0xe8) {
        return true;
    }
    for (unsigned back = 2; back <= 7; back++) {
        if (code[8 - back] == 0xff && (code[9 - back] >> 3 & 7) == 2) {
            return true;
        }
    }
    return false;
}

// A value that is not one may point nowhere, and finding that out costs a signal or a system call:
// data of the program comes by again and again where its compiler uses rbp for something else, and is
// remembered too.
bool walk_is_return_address(uintptr_t pc) {
    _Atomic uintptr_t *known = &known_calls[pc % KNOWN_CALLS];
    _Atomic uintptr_t *other = &known_others[pc % KNOWN_CALLS];
    if (pc < FIRN_PAGE || pc >> 47 != 0) { // also 0, which is what an empty place holds
        return false;
    }
    if (atomic_load_explicit(known, memory_order_relaxed) == pc) {
        return true;
    }
    if (is_known_data(pc) || is_on_main_stack(pc) ||
        atomic_load_explicit(other, memory_order_relaxed) == pc) {
        return false;
    }
    bool is_call = follows_call(pc);
    atomic_store_explicit(is_call ? known : other, pc, memory_order_relaxed);
    return is_call;
}

__attribute__((no_sanitize("address"))) static bool read_frame(uintptr_t above, uintptr_t fp,
                                                               uintptr_t out[2]) {
    if (is_on_main_stack(above)) {
        if (fp >= main_stack_end - sizeof(uintptr_t)) {
            return false;
        }
        memcpy(out, (const void *)fp, 2 * sizeof(uintptr_t));
        return true;
    }
    return peek_word(fp, &out[0]) && peek_word(fp + sizeof(uintptr_t), &out[1]);
}

size_t walk_from(uintptr_t above, uintptr_t fp, uintptr_t *frames, size_t n, size_t most) {
    while (n < most && fp > above && fp - above < STEP_MOST &&
           align_is_aligned(fp, sizeof(uintptr_t))) {
        uintptr_t frame[2];
        if (!read_frame(above, fp, frame) || !walk_is_return_address(frame[1])) {
            break;
        }
        frames[n++] = frame[1];
        above = fp;
        fp = frame[0];
    }
    return n;
}
