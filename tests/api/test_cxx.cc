// operator new and delete in every form, the new-handler, std::bad_alloc.
#include "tests/api/api.h"

#include <cerrno>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

int failures;

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            std::printf("not ok %s: line %d: %s\n", current, __LINE__, #cond);                     \
            failures++;                                                                            \
            return;                                                                                \
        }                                                                                          \
    } while (0)

const char *current = "";

// Opaque to the optimiser, which may drop a new/delete pair it can see both ends of.
template <class T> T *escape(T *p) {
    asm volatile("" : "+r"(p) : : "memory");
    return p;
}

std::size_t hidden(std::size_t n) {
    asm volatile("" : "+r"(n));
    return n;
}

void test_plain() {
    for (std::size_t n = 0; n < 100000; n = n * 2 + 1) {
        void *p = escape(::operator new(n));
        void *q = escape(::operator new[](n));
        void *r = escape(::operator new(n, std::nothrow));
        void *s = escape(::operator new[](n, std::nothrow));
        CHECK(p != nullptr && q != nullptr && r != nullptr && s != nullptr);
        CHECK(p != q && q != r && r != s && p != s);
        CHECK(reinterpret_cast<std::uintptr_t>(p) % 16 == 0);
        CHECK(reinterpret_cast<std::uintptr_t>(s) % 16 == 0);
        CHECK(malloc_usable_size(p) >= n);
        memset(p, 1, n);
        ::operator delete(p);
        ::operator delete[](q);
        ::operator delete(r, std::nothrow);
        ::operator delete[](s, std::nothrow);
    }
    ::operator delete(nullptr);
    ::operator delete[](nullptr);
    ::operator delete(nullptr, std::nothrow);
}

void test_sized() {
    for (std::size_t n = 0; n < 100000; n = n < 2000 ? n + 1 : n + 777) {
        ::operator delete(escape(::operator new(n)), n);
        ::operator delete[](escape(::operator new[](n)), n);
    }
    ::operator delete(nullptr, std::size_t(10));
    ::operator delete[](nullptr, SIZE_MAX);
}

void test_aligned() {
    for (std::size_t a = 1; a <= 1 << 20; a *= 2) {
        const std::align_val_t align{a};
        for (std::size_t n : {0, 1, 8, 40, 100, 1000, 5000, 33000, 70000}) {
            void *p[6] = {::operator new(n, align),
                          ::operator new[](n, align),
                          ::operator new(n, align, std::nothrow),
                          ::operator new[](n, align, std::nothrow),
                          ::operator new(n, align),
                          ::operator new[](n, align)};
            for (void *each : p) {
                CHECK(each != nullptr);
                CHECK(reinterpret_cast<std::uintptr_t>(each) % a == 0);
                CHECK(malloc_usable_size(each) >= n);
            }
            ::operator delete(p[0], align);
            ::operator delete[](p[1], align);
            ::operator delete(p[2], align, std::nothrow);
            ::operator delete[](p[3], align, std::nothrow);
            ::operator delete(p[4], n, align);
            ::operator delete[](p[5], n, align);
        }
    }
    ::operator delete (nullptr, std::align_val_t{64});
    ::operator delete (nullptr, 10, std::align_val_t{64});
}

void test_bad_alignment_is_bad_alloc() {
    bool thrown = false;
    try {
        escape(::operator new(100, static_cast<std::align_val_t>(hidden(24))));
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown);
    CHECK(::operator new(100, static_cast<std::align_val_t>(hidden(24)), std::nothrow) == nullptr);
}

struct alignas(256) Wide {
    char bytes[300];
};

struct Counted {
    static int live;
    std::string text = std::string(100, 'x');
    Counted() {
        live++;
    }
    ~Counted() {
        live--;
    }
};
int Counted::live;

void test_expressions() {
    auto *one = escape(new Counted);
    auto *many = escape(new Counted[17]);
    CHECK(Counted::live == 18);
    delete one;
    delete[] many;
    CHECK(Counted::live == 0);
    auto *wide = escape(new Wide);
    auto *wides = escape(new Wide[5]);
    CHECK(reinterpret_cast<std::uintptr_t>(wide) % 256 == 0);
    CHECK(reinterpret_cast<std::uintptr_t>(wides) % 256 == 0);
    delete wide;
    delete[] wides;
    auto shared = std::make_shared<Wide>();
    CHECK(reinterpret_cast<std::uintptr_t>(shared.get()) % 256 == 0);
}

void test_containers() {
    std::map<int, std::string> map;
    std::vector<std::vector<int>> rows;
    for (int i = 0; i < 2000; i++) {
        map[i * 7919 % 2003] = std::string(static_cast<std::size_t>(i), 'a');
        rows.emplace_back(static_cast<std::size_t>(i % 97), i);
    }
    for (int i = 0; i < 2000; i += 2) {
        map.erase(i);
        rows[static_cast<std::size_t>(i)].clear();
        rows[static_cast<std::size_t>(i)].shrink_to_fit();
    }
    for (const auto &[key, text] : map) {
        CHECK(key % 2 == 1 || key >= 2000);
        CHECK(text.find_first_not_of('a') == std::string::npos);
    }
}

// Impossible sizes throw, or give nullptr, at once.
void test_impossible_sizes() {
    for (std::size_t n : {SIZE_MAX, SIZE_MAX / 2 + 1, SIZE_MAX / 2 + 2, SIZE_MAX / 2,
                          SIZE_MAX - 4095, std::size_t(1) << 62}) {
        int thrown = 0;
        try {
            escape(::operator new(hidden(n)));
        } catch (const std::bad_alloc &) {
            thrown++;
        }
        try {
            escape(::operator new[](hidden(n)));
        } catch (const std::bad_alloc &) {
            thrown++;
        }
        try {
            escape(::operator new (hidden(n), std::align_val_t{64}));
        } catch (const std::bad_alloc &) {
            thrown++;
        }
        try {
            escape(::operator new[](hidden(n), std::align_val_t{8192}));
        } catch (const std::bad_alloc &) {
            thrown++;
        }
        CHECK(thrown == 4);
        CHECK(::operator new(hidden(n), std::nothrow) == nullptr);
        CHECK(::operator new[](hidden(n), std::nothrow) == nullptr);
        CHECK(::operator new (hidden(n), std::align_val_t{64}, std::nothrow) == nullptr);
        CHECK(::operator new[](hidden(n), std::align_val_t{64}, std::nothrow) == nullptr);
    }
    bool thrown = false;
    try {
        escape(new char[hidden(SIZE_MAX / 2)]);
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown);
}

int calls;

void count_and_give_up() {
    if (++calls == 3) {
        std::set_new_handler(nullptr);
    }
}

// The handler runs until there is none, then comes bad_alloc; it runs for nothrow forms too.
void test_handler_is_called_until_removed() {
    for (int form = 0; form < 4; form++) {
        calls = 0;
        bool thrown = false;
        void *p = nullptr;
        std::set_new_handler(count_and_give_up);
        try {
            p = form == 0   ? ::operator new(hidden(SIZE_MAX))
                : form == 1 ? ::operator new (hidden(SIZE_MAX), std::align_val_t{64})
                : form == 2
                    ? ::operator new(hidden(SIZE_MAX), std::nothrow)
                    : ::operator new[](hidden(SIZE_MAX), std::align_val_t{64}, std::nothrow);
        } catch (const std::bad_alloc &) {
            thrown = true;
        }
        CHECK(calls == 3);
        CHECK(p == nullptr);
        CHECK(thrown == (form < 2));
    }
    CHECK(std::get_new_handler() == nullptr);
}

struct Special : std::bad_alloc {};

void throw_special() {
    calls++;
    throw Special();
}

// What the handler throws comes through the throwing forms and ends in the nothrow forms.
void test_handler_may_throw() {
    calls = 0;
    std::set_new_handler(throw_special);
    int thrown = 0;
    try {
        escape(::operator new(hidden(SIZE_MAX)));
    } catch (const Special &) {
        thrown++;
    }
    try {
        escape(::operator new[](hidden(SIZE_MAX), std::align_val_t{4096}));
    } catch (const Special &) {
        thrown++;
    }
    void *p = ::operator new(hidden(SIZE_MAX), std::nothrow);
    void *q = ::operator new (hidden(SIZE_MAX), std::align_val_t{64}, std::nothrow);
    std::set_new_handler(nullptr);
    CHECK(thrown == 2);
    CHECK(p == nullptr && q == nullptr);
    CHECK(calls == 4);
}

// More than the tests before left behind: what is committed counts already.
constexpr std::size_t big = 256u << 20;

void lift_limit() {
    calls++;
    rlimit limit;
    getrlimit(RLIMIT_DATA, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_DATA, &limit);
}

// 0 when each form fails first, calls the handler once, and then succeeds with the exact size.
int child_with_limit() {
    std::set_new_handler(lift_limit);
    free(malloc(100));
    for (int form = 0; form < 4; form++) {
        rlimit limit;
        getrlimit(RLIMIT_DATA, &limit);
        limit.rlim_cur = 32u << 20;
        setrlimit(RLIMIT_DATA, &limit);
        calls = 0;
        const std::size_t n = big * static_cast<std::size_t>(form + 1) - 4000;
        void *p = form == 0   ? ::operator new(n)
                  : form == 1 ? ::operator new (n, std::align_val_t{16384})
                  : form == 2 ? ::operator new(n, std::nothrow)
                              : ::operator new[](n, std::align_val_t{16384}, std::nothrow);
        if (p == nullptr || calls != 1) {
            return 10 + form;
        }
        static_cast<char *>(p)[n - 1] = 1;
        if (form % 2 == 0) {
            ::operator delete(p, n);
        } else {
            ::operator delete (p, n, std::align_val_t{16384});
        }
    }
    return 0;
}

void test_handler_that_frees_memory() {
    const pid_t child = fork();
    if (child == 0) {
        _exit(child_with_limit());
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
}

// Exceptions allocate, too, and cross threads.
void test_exceptions_in_threads() {
    std::vector<std::thread> threads;
    std::exception_ptr caught[8];
    for (int i = 0; i < 8; i++) {
        threads.emplace_back([&caught, i] {
            for (int k = 0; k < 200; k++) {
                try {
                    escape(::operator new(hidden(SIZE_MAX)));
                } catch (...) {
                    caught[i] = std::current_exception();
                }
            }
        });
    }
    for (auto &t : threads) {
        t.join();
    }
    for (auto &each : caught) {
        CHECK(each != nullptr);
    }
}

struct PerThread {
    std::vector<std::string> strings;
    ~PerThread() {
        strings.emplace_back(1000, 'z');
        std::vector<std::string>(strings).swap(strings);
    }
};
thread_local PerThread per_thread;

void test_thread_local_destructors() {
    for (int i = 0; i < 100; i++) {
        std::thread([] { per_thread.strings.emplace_back(500, 'y'); }).join();
    }
    CHECK(per_thread.strings.empty());
}

struct Global {
    std::string text = std::string(300, 'g');
    ~Global() {
        // After main: the heap must still serve.
        text += std::string(5000, 'h');
        if (text.size() != 5300) {
            std::printf("not ok global_destructor: lost its text\n");
            std::fflush(stdout);
            _exit(1);
        }
    }
};
Global global;

void run(const char *name, void (*test)()) {
    current = name;
    const int before = failures;
    test();
    if (failures == before) {
        std::printf("ok %s\n", name);
    }
    std::fflush(stdout);
}

} // namespace

int main() {
    api_require_firn("test_cxx");
    if (!api_is_ours("_Znwm") || !api_is_ours("_ZdlPvm")) {
        std::printf("not ok test_cxx: operator new or delete is not Firn's\n");
        return 1;
    }
    run("plain", test_plain);
    run("sized", test_sized);
    run("aligned", test_aligned);
    run("bad_alignment_is_bad_alloc", test_bad_alignment_is_bad_alloc);
    run("expressions", test_expressions);
    run("containers", test_containers);
    run("impossible_sizes", test_impossible_sizes);
    run("handler_is_called_until_removed", test_handler_is_called_until_removed);
    run("handler_may_throw", test_handler_may_throw);
    run("handler_that_frees_memory", test_handler_that_frees_memory);
    run("exceptions_in_threads", test_exceptions_in_threads);
    run("thread_local_destructors", test_thread_local_destructors);
    return failures != 0;
}
