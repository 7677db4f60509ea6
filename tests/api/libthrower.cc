// A C++ module for a C program: its runtime comes with it and is seen by nobody else.
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>

namespace {

int calls;

void give_up_after_two() {
    if (++calls == 2) {
        std::set_new_handler(nullptr);
    }
}

std::size_t hidden(std::size_t n) {
    asm volatile("" : "+r"(n));
    return n;
}

} // namespace

// 1 when running out of memory behaves in here as the standard says.
extern "C" int thrower_is_sound() {
    int thrown = 0;
    std::set_new_handler(give_up_after_two);
    try {
        ::operator delete(::operator new(hidden(SIZE_MAX)));
    } catch (const std::bad_alloc &) {
        thrown++;
    }
    try {
        ::operator delete(::operator new (hidden(SIZE_MAX / 2), std::align_val_t{64}));
    } catch (const std::bad_alloc &) {
        thrown++;
    }
    // This allocation fails inside the runtime's own code.
    try {
        std::string text(hidden(SIZE_MAX / 8), 'x');
        thrown += text.empty();
    } catch (const std::bad_alloc &) {
        thrown++;
    }
    const bool is_null = ::operator new(hidden(SIZE_MAX), std::nothrow) == nullptr;
    return thrown == 3 && is_null && calls == 2;
}
