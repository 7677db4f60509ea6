// new and delete that do not belong together: sizes, arrays, alignments, base classes. Sized delete
// is what compilers call wherever they know the type.
#include <new>

#include "tests/matrix/matrix.h"

extern "C" {
void free_sized(void *p, size_t size) __attribute__((weak));
void free_aligned_sized(void *p, size_t align, size_t size) __attribute__((weak));
}

namespace {

struct base {
    long a[2];
    ~base() {
        a[0] = 0;
    }
};

struct derived : base {
    long b[30];
};

// Without a virtual destructor, delete frees the base's size.
int run_base(const matrix_case *, int is_wrong) {
    derived *d = static_cast<derived *>(opaque(new derived));
    if (is_wrong) {
        delete static_cast<base *>(opaque(d));
    } else {
        delete d;
    }
    return MATRIX_END;
}

struct counted {
    long value;
    ~counted() {
        value = 0;
    }
};

// An array of these has its length before it: what new[] returns is not what malloc returned.
int run_array_as_one(const matrix_case *, int is_wrong) {
    counted *p = static_cast<counted *>(opaque(new counted[20]));
    if (is_wrong) {
        delete p;
    } else {
        delete[] p;
    }
    return MATRIX_END;
}

int run_array_freed(const matrix_case *, int is_wrong) {
    counted *p = static_cast<counted *>(opaque(new counted[20]));
    if (is_wrong) {
        free(opaque(p));
    } else {
        delete[] p;
    }
    return MATRIX_END;
}

int run_delete(const matrix_case *c, int is_wrong) {
    void *p = opaque(::operator new(c->size));
    ::operator delete(p, is_wrong ? c->count : c->size);
    return MATRIX_END;
}

int run_delete_array(const matrix_case *c, int is_wrong) {
    void *p = opaque(::operator new[](c->size));
    ::operator delete[](p, is_wrong ? c->count : c->size);
    return MATRIX_END;
}

int run_malloc_delete(const matrix_case *c, int is_wrong) {
    void *p = opaque(malloc(c->size));
    ::operator delete(p, is_wrong ? c->count : c->size);
    return MATRIX_END;
}

int run_aligned(const matrix_case *c, int is_wrong) {
    void *p = opaque(::operator new(c->size, std::align_val_t(64)));
    ::operator delete(p, is_wrong ? c->count : c->size, std::align_val_t(64));
    return MATRIX_END;
}

// Compiled where the type's alignment was not known.
int run_alignment_forgotten(const matrix_case *c, int is_wrong) {
    void *p = opaque(::operator new(c->size, std::align_val_t(c->count)));
    if (is_wrong) {
        ::operator delete(p, c->size);
    } else {
        ::operator delete(p, c->size, std::align_val_t(c->count));
    }
    return MATRIX_END;
}

int run_alignment_impossible(const matrix_case *c, int is_wrong) {
    void *p = opaque(::operator new(c->size, std::align_val_t(64)));
    ::operator delete(p, c->size, std::align_val_t(is_wrong ? c->count : 64));
    return MATRIX_END;
}

int run_delete_interior(const matrix_case *c, int is_wrong) {
    char *p = static_cast<char *>(opaque(::operator new(c->size)));
    ::operator delete(is_wrong ? p + c->count : p);
    return MATRIX_END;
}

int run_delete_local(const matrix_case *c, int is_wrong) {
    alignas(16) char local[64];
    void *p = ::operator new(c->size);
    ::operator delete(opaque(is_wrong ? local : p));
    return MATRIX_END;
}

int run_overflow(const matrix_case *c, int is_wrong) {
    char *p = static_cast<char *>(opaque(new char[c->size]));
    memset(p, 'B', c->size + (is_wrong ? c->count : 0));
    delete[] p;
    return MATRIX_END;
}

int run_free_sized(const matrix_case *c, int is_wrong) {
    void *p = opaque(malloc(c->size));
    free_sized(p, is_wrong ? c->count : c->size);
    return MATRIX_END;
}

int run_free_aligned_sized(const matrix_case *c, int is_wrong) {
    void *p = opaque(aligned_alloc(64, c->size));
    free_aligned_sized(p, 64, is_wrong ? c->count : c->size);
    return MATRIX_END;
}

const matrix_case cases[] = {
    {"base_without_virtual", "check", 0, 0, run_base},
    {"array_as_one", "check", 0, 0, run_array_as_one},
    {"array_freed", "check", 0, 0, run_array_freed},
    {"delete_24_as_248", "check", 24, 248, run_delete},
    {"delete_248_as_24", "check", 248, 24, run_delete},
    {"delete_56_as_large", "check", 56, 100000, run_delete},
    {"delete_large_as_56", "check", 100000, 56, run_delete},
    {"delete_large_other_pages", "check", 100000, 200000, run_delete},
    {"delete_as_nothing", "check", 248, 0, run_delete},
    {"delete_array_1016_as_56", "check", 1016, 56, run_delete_array},
    {"delete_array_56_as_1016", "check", 56, 1016, run_delete_array},
    {"malloc_delete_248_as_24", "check", 248, 24, run_malloc_delete},
    {"aligned_248_as_4088", "check", 248, 4088, run_aligned},
    {"aligned_4088_as_248", "check", 4088, 248, run_aligned},
    {"alignment_forgotten", "check", 40, 512, run_alignment_forgotten},
    {"alignment_impossible", "check", 248, 24, run_alignment_impossible},
    {"delete_inside_248", "check", 248, 16, run_delete_interior},
    {"delete_local", "check", 248, 0, run_delete_local},
    {"new_overflow_56", "canary", 56, 1, run_overflow},
    {"new_overflow_40960", "guard", 40960, 1, run_overflow},
    {"free_sized_56_as_504", "check", 56, 504, run_free_sized},
    {"free_sized_large_as_small", "check", 100000, 504, run_free_sized},
    {"free_aligned_sized_248", "check", 248, 1016, run_free_aligned_sized},
};

} // namespace

MATRIX_MAIN(cases)
