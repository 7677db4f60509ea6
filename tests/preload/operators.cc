// The operators on both sides of large_only=BYTES, the argument; new-handlers and bad_alloc as they ought to be.
#include "include/firn/firn.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

extern "C" size_t firn_object_size(const void *p) __attribute__((weak));

static size_t mark;
static unsigned wrong;

static void check(bool is_right, const char *what, size_t size) {
    if (!is_right) {
        std::printf("wrong: %s, %zu bytes\n", what, size);
        wrong++;
    }
}

static void *look(void *p, size_t size, const char *what) {
    check(p != nullptr && (firn_object_size(p) != SIZE_MAX) == (size >= mark), what, size);
    std::memset(p, 0x5a, size);
    return p;
}

static void each_operator(size_t size) {
    const auto page = std::align_val_t(4096);
    ::operator delete(look(::operator new(size), size, "new"));
    ::operator delete(look(::operator new(size), size, "new"), size);
    ::operator delete[](look(::operator new[](size), size, "new[]"));
    ::operator delete[](look(::operator new[](size), size, "new[]"), size);
    ::operator delete(look(::operator new(size, std::nothrow), size, "nothrow"), std::nothrow);
    ::operator delete[](look(::operator new[](size, std::nothrow), size, "nothrow"), std::nothrow);
    ::operator delete(look(::operator new(size, page), size, "aligned"), page);
    ::operator delete(look(::operator new(size, page), size, "aligned"), size, page);
    ::operator delete[](look(::operator new[](size, page), size, "aligned"), page);
    ::operator delete[](look(::operator new[](size, page), size, "aligned"), size, page);
    void *p = ::operator new(size, page, std::nothrow);
    ::operator delete(look(p, size, "aligned nothrow"), page, std::nothrow);
}

static unsigned calls;
static void handler() {
    if (++calls == 3) {
        std::set_new_handler(nullptr);
    }
}

template <typename F> static void fails(F allocate, const char *what) {
    bool is_thrown = false;
    calls = 0;
    std::set_new_handler(handler);
    try {
        allocate();
    } catch (const std::bad_alloc &) {
        is_thrown = true;
    }
    check(is_thrown && calls == 3, what, calls);
}

int main(int, char **argv) {
    mark = std::strtoul(argv[1], nullptr, 0);
    for (size_t size : {size_t(1), size_t(100), mark - 1, mark, mark + 1, 3 * mark}) {
        if (size < size_t(1) << 30) {
            each_operator(size);
        }
    }
    const size_t most = size_t(1) << 61;
    fails([&] { ::operator delete(::operator new(most)); }, "new");
    fails([&] { ::operator delete[](::operator new[](most), most); }, "new[]");
    if (mark > size_t(1) << 45) { // more than the next allocator can have
        fails([&] { ::operator delete(::operator new(mark - 1)); }, "new below");
    }
    check(::operator new(most, std::nothrow) == nullptr, "nothrow", most);
    std::string text;
    std::vector<std::unique_ptr<std::string>> all;
    for (unsigned i = 0; i < 3000; i++) {
        text += std::to_string(i);
        all.push_back(std::make_unique<std::string>(text.substr(0, i * 7)));
    }
    std::puts(wrong == 0 ? "well" : "wrong");
    return wrong != 0;
}
