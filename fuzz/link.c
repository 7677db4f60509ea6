// Safe links: a word decodes only where it was made.
//
// Input: slot (1 byte), address, seed of the secret, then changes of 9 bytes each: what to change, and by which
// XOR. The odds that a change goes unnoticed are 2^-56; a fuzzer that finds one has found structure
// in the tag. Firn draws its secrets and nobody chooses them; nor does the input: there are weak
// ones. (With 2^64 - 1 as multiplier the two halves of any product are each other's complement, and
// near it, or with few bits set in both factors, many addresses share a tag.)
#include "hardening/link.h"
#include "fuzz/fuzz.h"

#include <stdbool.h>

struct place {
    unsigned slot;
    uintptr_t address;
    uint64_t secret;
};

// SplitMix64's finalizer: one to one, and no way to steer it bit by bit.
static uint64_t draw_secret(uint64_t seed) {
    seed = (seed + 0x9e3779b97f4a7c15u);
    seed = (seed ^ seed >> 30) * 0xbf58476d1ce4e5b9u;
    seed = (seed ^ seed >> 27) * 0x94d049bb133111ebu;
    return seed ^ seed >> 31;
}

static uint64_t encode(const struct place *p) {
    return link_encode(p->slot, p->address, p->secret);
}

static void check_round_trip(const struct place *p) {
    uint64_t there = 0;
    uint64_t word = encode(p);
    FUZZ_ENSURE((word & 0xff) == p->slot);
    FUZZ_ENSURE(link_decode(word, p->address, p->secret) == (int)p->slot);
    link_store((uintptr_t)&there, word);
    FUZZ_ENSURE(link_load((uintptr_t)&there) == word && there == word);
}

// Any other word is refused, here.
static void check_forgery(const struct place *p, uint64_t change) {
    int slot = link_decode(encode(p) ^ change, p->address, p->secret);
    FUZZ_ENSURE(slot == (change == 0 ? (int)p->slot : -1));
}

// The right word is refused elsewhere.
static void check_replay(const struct place *p, const struct place *elsewhere) {
    int slot = link_decode(encode(p), elsewhere->address, elsewhere->secret);
    bool is_same = p->address == elsewhere->address && p->secret == elsewhere->secret;
    FUZZ_ENSURE(slot == (is_same ? (int)p->slot : -1));
}

int firn_fuzz_link(const uint8_t *data, size_t size) {
    struct input in = {data, size};
    struct place p;
    p.slot = input_u8(&in);
    p.address = input_u64(&in) & ~(uint64_t)15;
    uint64_t seed = input_u64(&in);
    p.secret = draw_secret(seed);
    check_round_trip(&p);
    while (in.left > 0) {
        unsigned what = input_u8(&in) % 4;
        uint64_t change = input_u64(&in);
        struct place q = p;
        if (what == 0) {
            check_forgery(&p, change);
        } else if (what == 1) {
            q.address ^= change & ~(uint64_t)15;
            check_replay(&p, &q);
        } else if (what == 2) {
            q.secret = draw_secret(seed ^ change);
            check_replay(&p, &q);
        } else {
            p.slot ^= change & 0xff;
            check_round_trip(&p);
        }
    }
    return 0;
}
