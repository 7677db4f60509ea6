// The page-fault address says where, the error code says read or write; how many bytes only the
// instruction knows. The decoder covers what compilers emit for ordinary code; a wrong guess costs a
// figure in a report.
#include "src/fuzzbuild/access.h"

#include <string.h>

__asm__(".text\n"
        ".globl access_peek\n.hidden access_peek\n.type access_peek, @function\n"
        ".globl access_peek_load\n.hidden access_peek_load\n"
        ".globl access_peek_failed\n.hidden access_peek_failed\n"
        "access_peek:\n"
        "access_peek_load:\n"
        "    movq (%rdi), %rax\n"
        "    movq %rax, (%rsi)\n"
        "    movl $1, %eax\n"
        "    ret\n"
        "access_peek_failed:\n"
        "    xorl %eax, %eax\n"
        "    ret\n"
        ".size access_peek, .-access_peek\n");

enum { CODE_MOST = 16, VECTOR_BYTES = 16 };

struct instruction {
    const unsigned char *code;
    size_t next, length;
    bool has_66, has_f2, has_f3, is_wide; // is_wide: REX.W
    size_t vector;                        // bytes of a whole vector
};

static unsigned next_byte(struct instruction *in) {
    return in->next < in->length ? in->code[in->next++] : 0x90;
}

static size_t operand(const struct instruction *in) {
    return in->is_wide ? 8 : in->has_66 ? 2 : 4;
}

// Loads and stores of SSE and AVX: the mandatory prefix tells scalars from vectors.
static size_t scalar_or_vector(const struct instruction *in) {
    return in->has_f3 ? 4 : in->has_f2 ? 8 : in->vector;
}

static size_t two_byte_vector(const struct instruction *in, unsigned op) {
    switch (op) {
    case 0x12:
    case 0x13:
    case 0x16:
    case 0x17:
    case 0xd6:
        return 8;
    case 0x2e:
    case 0x2f:
        return in->has_66 ? 8 : 4;
    case 0x2a:
    case 0x6e:
        return in->is_wide ? 8 : 4;
    case 0x7e:
        return in->has_f3 || in->is_wide ? 8 : 4;
    case 0x6f:
    case 0x7f:
        return in->has_66 || in->has_f3 || in->vector > VECTOR_BYTES ? in->vector : 8;
    default:
        return op == 0x10 || op == 0x11 || (op >= 0x51 && op <= 0x5f) ? scalar_or_vector(in)
                                                                      : in->vector;
    }
}

static size_t two_byte(const struct instruction *in, unsigned op) {
    if ((op >= 0x90 && op <= 0x9f) || op == 0xb6 || op == 0xbe || op == 0xb0 || op == 0xc0) {
        return 1;
    }
    if (op == 0xb7 || op == 0xbf) {
        return 2;
    }
    if (op == 0xc7) {
        return in->is_wide ? 16 : 8;
    }
    bool is_general =
        (op >= 0x40 && op <= 0x4f) || (op >= 0xa3 && op <= 0xbd) || op == 0xc1 || op == 0xc3;
    return is_general ? operand(in) : two_byte_vector(in, op);
}

static size_t floating(unsigned op) {
    return op >= 0xde ? 2 : op >= 0xdc ? 8 : 4;
}

static size_t one_byte(const struct instruction *in, unsigned op) {
    static const char bytes[] = {'\x80', '\x84', '\x86', '\x88', '\x8a', '\xa4', '\xa6', '\xaa',
                                 '\xac', '\xae', '\xc0', '\xc6', '\xd0', '\xd2', '\xf6', '\xfe'};
    if (memchr(bytes, (int)op, sizeof(bytes)) != NULL) {
        return 1;
    }
    if (op < 0x40) {
        return (op & 1) == 0 ? 1 : operand(in);
    }
    if (op == 0x63) {
        return 4;
    }
    if (op == 0x8f) {
        return 8;
    }
    if (op >= 0xd8 && op <= 0xdf) {
        return floating(op);
    }
    if (op == 0xff && in->next < in->length) {
        unsigned extension = in->code[in->next] >> 3 & 7;
        return extension >= 2 ? 8 : operand(in); // calls, jumps and pushes are of 8 bytes
    }
    return operand(in);
}

// VEX and EVEX carry prefix, width and length in their payload.
static size_t extended(struct instruction *in, unsigned first) {
    static const unsigned char lengths[] = {16, 32, 64, 64};
    unsigned map = 1, last = next_byte(in), length;
    if (first != 0xc5) {
        map = last & 7;
        last = next_byte(in);
        in->is_wide = (last & 0x80) != 0;
    }
    length = last >> 2 & 1;
    if (first == 0x62) {
        length = next_byte(in) >> 5 & 3;
    }
    in->has_66 = (last & 3) == 1;
    in->has_f3 = (last & 3) == 2;
    in->has_f2 = (last & 3) == 3;
    in->vector = lengths[length];
    unsigned op = next_byte(in);
    return map == 1 ? two_byte(in, op) : in->vector;
}

static size_t decode(struct instruction *in) {
    for (;;) {
        unsigned op = next_byte(in);
        switch (op) {
        case 0x66:
            in->has_66 = true;
            continue;
        case 0xf2:
            in->has_f2 = true;
            continue;
        case 0xf3:
            in->has_f3 = true;
            continue;
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
        case 0x64:
        case 0x65:
        case 0x67:
        case 0xf0:
            continue;
        case 0x62:
        case 0xc4:
        case 0xc5:
            return extended(in, op);
        default:
            break;
        }
        if (op >= 0x40 && op <= 0x4f) {
            in->is_wide = (op & 8) != 0;
            op = next_byte(in);
        }
        if (op != 0x0f) {
            return one_byte(in, op);
        }
        op = next_byte(in);
        return op == 0x38 || op == 0x3a ? in->vector : two_byte(in, op);
    }
}

size_t access_size(uintptr_t pc) {
    unsigned char code[CODE_MOST];
    struct instruction in = {.code = code, .vector = VECTOR_BYTES};
    while (in.length < CODE_MOST) {
        uintptr_t word;
        if (!access_peek(pc + in.length, &word)) {
            break;
        }
        memcpy(code + in.length, &word, sizeof(word));
        in.length += sizeof(word);
    }
    return in.length == 0 ? 0 : decode(&in);
}
