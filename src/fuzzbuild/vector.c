#include "src/fuzzbuild/vector.h"

#include "src/fuzzbuild/access.h"

#include <string.h>

enum {
    CODE_MOST = 16,
    // Layout of the saved state (Intel's manual, volume 1, 13.4): the header follows the legacy area,
    // the upper halves of ymm follow the header.
    XSTATE_MAGIC_OFFSET = 464,
    XSTATE_HEADER_OFFSET = 512,
    XSTATE_UPPER_OFFSET = 576,
    XSTATE_SSE = 2,
    XSTATE_AVX = 4,
};
#define XSTATE_MAGIC UINT32_C(0x46505853)

struct code {
    unsigned char bytes[CODE_MOST];
    size_t next, length;
    bool has_66;
    unsigned rex; // as in a REX prefix: W 8, R 4, X 2, B 1
};

static unsigned next_byte(struct code *c) {
    return c->next < c->length ? c->bytes[c->next++] : 0;
}

static uintptr_t general(const ucontext_t *context, unsigned number) {
    static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                  REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                  REG_R12, REG_R13, REG_R14, REG_R15};
    return (uintptr_t)context->uc_mcontext.gregs[order[number & 15]];
}

static uintptr_t displacement(struct code *c, unsigned bytes) {
    uint32_t v = 0;
    for (unsigned i = 0; i < bytes; i++) {
        v |= (uint32_t)next_byte(c) << (8 * i);
    }
    return bytes == 1 ? (uintptr_t)(intptr_t)(int8_t)v : (uintptr_t)(intptr_t)(int32_t)v;
}

// ModRM with a memory operand, SIB and displacement included. False for a register operand.
static bool read_operand(const ucontext_t *context, struct code *c, struct vector_move *out) {
    unsigned modrm = next_byte(c), mode = modrm >> 6, base = modrm & 7;
    uintptr_t address = 0;
    bool has_base = true;
    if (mode == 3) {
        return false;
    }
    out->reg = (modrm >> 3 & 7) | (c->rex & 4) << 1;
    if (base == 4) {
        unsigned sib = next_byte(c), index = (sib >> 3 & 7) | (c->rex & 2) << 2;
        base = sib & 7;
        if (index != 4) {
            address = general(context, index) << (sib >> 6);
        }
        has_base = !(base == 5 && mode == 0);
    } else if (base == 5 && mode == 0) {
        address = displacement(c, 4); // relative to the next instruction
        out->address = address + (uintptr_t)context->uc_mcontext.gregs[REG_RIP] + c->next;
        return true;
    }
    if (has_base) {
        address += general(context, base | (c->rex & 1) << 3);
    }
    if (mode == 1) {
        address += displacement(c, 1);
    } else if (mode == 2 || !has_base) {
        address += displacement(c, 4);
    }
    out->address = address;
    return true;
}

// movaps, movapd, movdqa and their streaming stores.
static bool is_aligned_move(unsigned op, bool has_66, bool *is_store) {
    *is_store = op == 0x29 || op == 0x2b || op == 0x7f || op == 0xe7;
    return op == 0x28 || op == 0x29 || op == 0x2b ||
           (has_66 && (op == 0x6f || op == 0x7f || op == 0xe7));
}

// VEX.128, map 0f. The prefix's register bits are stored inverted.
static bool read_vex(struct code *c, unsigned first, struct vector_move *out) {
    unsigned last = next_byte(c);
    c->rex = ~last >> 5 & 4;
    if (first == 0xc4) {
        c->rex = ~last >> 5 & 7;
        if ((last & 31) != 1) {
            return false;
        }
        last = next_byte(c);
    }
    c->has_66 = (last & 3) == 1;
    out->clears_upper = true;
    return (last & 3) < 2 && (last & 4) == 0;
}

bool vector_decode(const ucontext_t *context, struct vector_move *out) {
    struct code c = {.length = 0};
    uintptr_t pc = (uintptr_t)context->uc_mcontext.gregs[REG_RIP], word;
    while (c.length < CODE_MOST && access_peek(pc + c.length, &word)) {
        memcpy(c.bytes + c.length, &word, sizeof(word));
        c.length += sizeof(word);
    }
    *out = (struct vector_move){.clears_upper = false};
    unsigned op = next_byte(&c);
    if (op == 0xc4 || op == 0xc5) {
        if (!read_vex(&c, op, out)) {
            return false;
        }
    } else {
        if (op == 0x66) {
            c.has_66 = true;
            op = next_byte(&c);
        }
        if ((op & 0xf0) == 0x40) {
            c.rex = op & 15;
            op = next_byte(&c);
        }
        if (op != 0x0f) {
            return false;
        }
    }
    if (!is_aligned_move(next_byte(&c), c.has_66, &out->is_store) ||
        !read_operand(context, &c, out)) {
        return false;
    }
    out->length = c.next;
    return c.next < c.length;
}

// What the kernel found in its initial state it does not write: such registers count as zero, and must
// be declared present once one of them is given a value.
static uint64_t components(const unsigned char *state) {
    uint64_t present;
    memcpy(&present, state + XSTATE_HEADER_OFFSET, sizeof(present));
    return present;
}

static void load(unsigned char *state, unsigned char *registers, const struct vector_move *m) {
    uint64_t present = components(state);
    if ((present & XSTATE_SSE) == 0) {
        memset(registers, 0, 16 * VECTOR_BYTES);
        present |= XSTATE_SSE;
        memcpy(state + XSTATE_HEADER_OFFSET, &present, sizeof(present));
    }
    memcpy(registers + (size_t)m->reg * VECTOR_BYTES, (const void *)m->address, VECTOR_BYTES);
    if (m->clears_upper && (present & XSTATE_AVX) != 0) {
        memset(state + XSTATE_UPPER_OFFSET + (size_t)m->reg * VECTOR_BYTES, 0, VECTOR_BYTES);
    }
}

bool vector_emulate(ucontext_t *context, const struct vector_move *move) {
    unsigned char *state = (unsigned char *)context->uc_mcontext.fpregs;
    uint32_t magic = 0;
    if (state != NULL) {
        memcpy(&magic, state + XSTATE_MAGIC_OFFSET, sizeof(magic));
    }
    if (magic != XSTATE_MAGIC) {
        return false;
    }
    unsigned char *registers = (unsigned char *)context->uc_mcontext.fpregs->_xmm;
    if (!move->is_store) {
        load(state, registers, move);
    } else if ((components(state) & XSTATE_SSE) != 0) {
        const unsigned char *from = registers + (size_t)move->reg * VECTOR_BYTES;
        memcpy((void *)move->address, from, VECTOR_BYTES);
    } else {
        memset((void *)move->address, 0, VECTOR_BYTES);
    }
    context->uc_mcontext.gregs[REG_RIP] += (greg_t)move->length;
    return true;
}
