// Something for g++ to chew on under the preload: templates in quantity. Never run.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <sstream>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

template <int N> struct chain {
    using value = std::tuple<typename chain<N - 1>::value, std::integral_constant<int, N>>;
    static int sum(const std::vector<int> &v) {
        return chain<N - 1>::sum(v) + std::accumulate(v.begin(), v.end(), N);
    }
};
template <> struct chain<0> {
    using value = int;
    static int sum(const std::vector<int> &) {
        return 0;
    }
};

using item = std::variant<int, double, std::string, std::shared_ptr<std::vector<std::string>>>;

static std::string describe(const item &i) {
    return std::visit(
        [](const auto &v) {
            std::ostringstream out;
            if constexpr (std::is_same_v<std::decay_t<decltype(v)>,
                                         std::shared_ptr<std::vector<std::string>>>) {
                for (const auto &s : *v) {
                    out << s << ',';
                }
            } else {
                out << v;
            }
            return out.str();
        },
        i);
}

int run(int argc, char **argv) {
    std::map<std::string, std::unordered_map<int, std::set<std::string>>> index;
    for (int i = 1; i < argc; i++) {
        std::istringstream text(argv[i]);
        std::string word, value;
        while (text >> word >> value) {
            index[word][i].insert(value);
        }
    }
    std::vector<std::function<int(int)>> steps;
    for (int i = 0; i < 10; i++) {
        steps.emplace_back([i](int x) { return x * i + 1; });
    }
    std::vector<item> items{1, 2.5, std::string("three"),
                            std::make_shared<std::vector<std::string>>(3, "four")};
    std::sort(items.begin(), items.end(),
              [](const item &a, const item &b) { return describe(a) < describe(b); });
    for (const auto &i : items) {
        puts(describe(i).c_str());
    }
    return chain<24>::sum({1, 2, 3}) + steps[3](argc) + static_cast<int>(index.size()) +
           static_cast<int>(sizeof(chain<16>::value));
}
