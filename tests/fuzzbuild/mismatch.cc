// new, delete and malloc mixed up: `mismatch CASE wrong` must die, `mismatch CASE right` prints
// "survived".
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

void *volatile hidden;

void new_free(bool wrong) {
    hidden = ::operator new(24);
    wrong ? std::free(hidden) : ::operator delete(hidden);
}

void malloc_delete(bool wrong) {
    hidden = std::malloc(24);
    wrong ? ::operator delete(hidden) : std::free(hidden);
}

// Through pointers: given the choice between two calls, clang 14 makes both.
void (*volatile delete_one)(void *) = ::operator delete;
void (*volatile delete_array)(void *) = ::operator delete[];

void new_delete_array(bool wrong) {
    hidden = ::operator new(24);
    (wrong ? delete_array : delete_one)(hidden);
}

void new_array_delete(bool wrong) {
    hidden = ::operator new[](24);
    (wrong ? delete_one : delete_array)(hidden);
}

void new_array_free(bool wrong) {
    hidden = ::operator new[](24);
    wrong ? std::free(hidden) : ::operator delete[](hidden);
}

void new_realloc(bool wrong) {
    hidden = ::operator new(24);
    if (wrong) {
        std::free(std::realloc(hidden, 48));
    } else {
        ::operator delete(hidden);
    }
}

void sized_delete(bool wrong) {
    hidden = ::operator new(24);
    ::operator delete(hidden, wrong ? std::size_t(32) : std::size_t(24));
}

void sized_delete_array(bool wrong) {
    hidden = ::operator new[](24);
    ::operator delete[](hidden, wrong ? std::size_t(8) : std::size_t(24));
}

void double_delete(bool wrong) {
    hidden = ::operator new(24);
    ::operator delete(hidden);
    if (wrong) {
        ::operator delete(hidden);
    }
}

void new_out(bool wrong) {
    hidden = ::operator new(25);
    static_cast<volatile char *>(hidden)[wrong ? 25 : 24] = 1;
    ::operator delete(hidden);
}

void aligned_new_out(bool wrong) {
    hidden = ::operator new(64, std::align_val_t(64));
    static_cast<volatile char *>(hidden)[wrong ? 64 : 63] = 1;
    ::operator delete(hidden, std::align_val_t(64));
}

// Not a bug: a refused operator new throws, a refused nothrow one returns NULL.
void new_refused(bool wrong) {
    (void)wrong;
    bool thrown = false;
    try {
        hidden = ::operator new(std::size_t(1) << 62);
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    if (!thrown || ::operator new(std::size_t(1) << 62, std::nothrow) != nullptr) {
        std::puts("no exception");
        std::exit(1);
    }
    if (wrong) {
        std::abort();
    }
}

void *volatile hoard;

void give_hoard_back() {
    std::free(hoard);
    hoard = nullptr;
    std::set_new_handler(nullptr);
}

// Not a bug either: a new-handler makes room (max_total=1m), and the block is one of operator new's.
void new_handled(bool wrong) {
    hoard = std::malloc(900000);
    std::set_new_handler(give_hoard_back);
    hidden = ::operator new(500000);
    if (hoard != nullptr || hidden == nullptr) {
        std::puts("the handler was not run");
        std::exit(1);
    }
    wrong ? std::free(hidden) : ::operator delete(hidden);
}

const struct {
    const char *name;
    void (*run)(bool);
} cases[] = {
    {"new_free", new_free},
    {"malloc_delete", malloc_delete},
    {"new_delete_array", new_delete_array},
    {"new_array_delete", new_array_delete},
    {"new_array_free", new_array_free},
    {"new_realloc", new_realloc},
    {"sized_delete", sized_delete},
    {"sized_delete_array", sized_delete_array},
    {"double_delete", double_delete},
    {"new_out", new_out},
    {"aligned_new_out", aligned_new_out},
    {"new_refused", new_refused},
    {"new_handled", new_handled},
};

} // namespace

int main(int argc, char **argv) {
    for (const auto &c : cases) {
        if (argc == 3 && std::strcmp(argv[1], c.name) == 0) {
            c.run(std::strcmp(argv[2], "wrong") == 0);
            std::puts("survived");
            return 0;
        }
    }
    return 2;
}
