// Reads and writes after free. A read is stopped when it finds nothing of what was there; a write
// when it is found before the block is used again.
#include "tests/matrix/matrix.h"

enum { SECRET = 0x5a };

// Pairs of bytes: a free by another thread leaves a tag of eight random bytes, of which one in 32 has one such
// byte by chance.
static int count_secret(const char *p, size_t n) {
    int seen = 0;
    char before = 0;
    for (size_t i = 0; i < n; i++) {
        char now = ((const volatile char *)p)[i];
        seen += now == SECRET && before == SECRET;
        before = now;
    }
    return seen;
}

// For the wrong case: what the stale pointer shows. The right one looks before it frees.
static int judge(int seen, int is_wrong) {
    return !is_wrong ? MATRIX_END : seen > 0 ? MATRIX_END : MATRIX_HARMLESS;
}

static int run_read(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    memset(p, SECRET, c->size);
    int seen = is_wrong ? 0 : count_secret(p, c->size);
    free(p);
    p = opaque(p);
    return judge(is_wrong ? count_secret(p, c->size) : seen, is_wrong);
}

static int run_read_by_memcpy(const struct matrix_case *c, int is_wrong) {
    static char copy[1 << 20];
    char *p = block(c->size);
    memset(p, SECRET, c->size);
    if (!is_wrong) {
        memcpy(copy, p, c->size);
    }
    free(p);
    if (is_wrong) {
        memcpy(copy, opaque(p), c->size);
    }
    return judge(count_secret(copy, c->size), is_wrong);
}

static int run_read_after_realloc(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    memset(p, SECRET, c->size);
    char *q = opaque(realloc(p, 5 * c->size));
    int seen = count_secret(is_wrong ? opaque(p) : q, c->size);
    free(q);
    return judge(seen, is_wrong);
}

static int run_read_after_thread(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    memset(p, SECRET, c->size);
    int seen = is_wrong ? 0 : count_secret(p, c->size);
    in_thread(matrix_free, p);
    return judge(is_wrong ? count_secret(opaque(p), c->size) : seen, is_wrong);
}

// A list that is freed while it is walked.
struct node {
    struct node *next;
    char secret[48];
};

static int run_list(const struct matrix_case *c, int is_wrong) {
    struct node *head = NULL;
    int seen = 0;
    for (size_t i = 0; i < c->count; i++) {
        struct node *n = opaque(block(sizeof(struct node)));
        memset(n->secret, SECRET, sizeof(n->secret));
        n->next = head;
        head = n;
    }
    while (head != NULL) {
        struct node *next = head->next;
        free(head);
        next = is_wrong ? ((struct node *)opaque(head))->next : next;
        seen++;
        head = next;
    }
    return is_wrong && seen < (int)c->count ? MATRIX_HARMLESS : MATRIX_END;
}

struct object {
    void (*act)(struct object *);
    char rest[48];
};

static void act_well(struct object *o) {
    o->rest[0] = 1;
}

static int run_call(const struct matrix_case *c, int is_wrong) {
    struct object *o = opaque(block(c->size));
    o->act = act_well;
    if (!is_wrong) {
        o->act(o);
    }
    free(o);
    o = opaque(o);
    if (is_wrong) {
        o->act(o);
    }
    return MATRIX_END;
}

// ---- writes ----

static int run_write(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    if (!is_wrong) {
        p[c->count] = 1;
    }
    free(p);
    if (is_wrong) {
        ((char *)opaque(p))[c->count] = 1;
    }
    churn(c->size);
    return MATRIX_END;
}

static int run_memset(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    memset(p, 'A', c->size);
    free(p);
    if (is_wrong) {
        memset(opaque(p), 'A', c->size);
    }
    churn(c->size);
    return MATRIX_END;
}

static int run_strcpy(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    strcpy(p, "before");
    free(p);
    if (is_wrong) {
        strcpy(opaque(p), "after");
    }
    churn(c->size);
    return MATRIX_END;
}

static int run_count_down(const struct matrix_case *c, int is_wrong) {
    long *references = opaque(block(c->size));
    references[2] = 2;
    references[2]--;
    if (!is_wrong) {
        references[2]--;
    }
    free(references);
    if (is_wrong) {
        ((long *)opaque(references))[2]--;
    }
    churn(c->size);
    return MATRIX_END;
}

static int run_write_after_thread(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    in_thread(matrix_free, p);
    if (is_wrong) {
        // Changed, not set: a link's first byte is the slot's number, which may be any.
        ((char *)opaque(p))[c->count] ^= 1;
    }
    churn(c->size);
    return MATRIX_END;
}

static int run_write_after_realloc(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    char *q = p;
    // With another block behind it, it cannot grow where it is.
    while (q == p) {
        p = block(c->size);
        (void)block(c->size);
        q = opaque(realloc(p, 5 * c->size));
    }
    memset(is_wrong ? opaque(p) : q, 'A', c->size);
    churn(c->size);
    free(q);
    return MATRIX_END;
}

static int run_write_then_end(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    free(p);
    if (is_wrong) {
        memset(opaque(p), 'A', c->size);
    }
    return MATRIX_END;
}

static const struct matrix_case cases[] = {
    {"read_24", "wipe", 24, 0, run_read},
    {"read_56", "wipe", 56, 0, run_read},
    {"read_248", "wipe", 248, 0, run_read},
    {"read_1016", "wipe", 1016, 0, run_read},
    {"read_4088", "wipe", 4088, 0, run_read},
    {"read_16376", "wipe", 16376, 0, run_read},
    {"read_40960", "retire", 40960, 0, run_read},
    {"read_1m", "retire", 1 << 20, 0, run_read},
    {"memcpy_120", "wipe", 120, 0, run_read_by_memcpy},
    {"memcpy_4088", "wipe", 4088, 0, run_read_by_memcpy},
    {"memcpy_100000", "retire", 100000, 0, run_read_by_memcpy},
    {"read_after_realloc_56", "wipe", 56, 0, run_read_after_realloc},
    {"read_after_realloc_1016", "wipe", 1016, 0, run_read_after_realloc},
    {"read_after_thread_248", "wipe", 248, 0, run_read_after_thread},
    {"list_56", "wipe", 56, 10, run_list},
    {"call_56", "wipe", 56, 0, run_call},
    {"write_24", "verify", 24, 0, run_write},
    {"write_56", "verify", 56, 17, run_write},
    {"write_248", "verify", 248, 247, run_write},
    {"write_1016", "verify", 1016, 500, run_write},
    {"write_4088", "verify", 4088, 4000, run_write},
    {"write_16376", "verify", 16376, 9000, run_write},
    {"write_40960", "retire", 40960, 20000, run_write},
    {"write_1m", "retire", 1 << 20, 700000, run_write},
    {"memset_120", "verify", 120, 0, run_memset},
    {"memset_1016", "verify", 1016, 0, run_memset},
    {"memset_100000", "retire", 100000, 0, run_memset},
    {"strcpy_56", "verify", 56, 0, run_strcpy},
    {"count_down_56", "verify", 56, 0, run_count_down},
    {"write_after_thread_248", "verify", 248, 100, run_write_after_thread},
    {"link_after_thread_56", "link", 56, 0, run_write_after_thread},
    {"write_after_realloc_120", "verify", 120, 0, run_write_after_realloc},
    {"write_after_realloc_100000", "retire", 100000, 0, run_write_after_realloc},
    {"write_then_end_56", "sweep", 56, 0, run_write_then_end},
};

MATRIX_MAIN(cases)
