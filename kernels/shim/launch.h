// Launching a kernel over a grid of blocks; included after the kernel's source, before the builder's table of kernels.
#pragma once

#include <tuple>
#include <type_traits>
#include <utility>

extern "C" {
extern char __start_shim_shared[] __attribute__((weak));        // the linker's names for the ends of the section
extern char __stop_shim_shared[] __attribute__((weak));
}

namespace shim {

// One argument as Python describes it: where it lies, its size, the size of what it points to (0: no pointer).
struct Argument { void* value; int size, pointee, floating; };

struct Launch {
    const unsigned *grid, *block;
    unsigned shared_bytes;
    const Argument* arguments;
    int count, order;
    std::uint64_t seed;
};

template <class P> std::string describe() {
    if constexpr (std::is_pointer_v<P>) return "a pointer to " + std::to_string(sizeof(std::remove_pointer_t<P>)) + " byte elements";
    else return std::to_string(sizeof(P)) + (std::is_floating_point_v<P> ? " bytes of floating point" : " bytes of integer");
}

template <class P> bool fits(const Argument& a) {
    if constexpr (std::is_pointer_v<P>) return a.pointee == int(sizeof(std::remove_pointer_t<P>));
    else return a.pointee == 0 && a.size == int(sizeof(P)) && bool(a.floating) == std::is_floating_point_v<P>;
}

template <class... P> std::string check_arguments(const Launch& launch) {
    if (launch.count != int(sizeof...(P)))
        return "expected " + std::to_string(sizeof...(P)) + " arguments, got " + std::to_string(launch.count);
    std::string problem;
    int i = 0;
    auto check = [&](bool fine, const std::string& expected) {
        if (!fine && problem.empty()) problem = "expected argument " + std::to_string(i) + " to be " + expected;
        ++i;
    };
    (check(fits<P>(launch.arguments[i]), describe<P>()), ...);
    return problem;
}

inline std::string check_limits(const Launch& launch) {
    const unsigned *g = launch.grid, *b = launch.block;
    std::uint64_t threads = std::uint64_t(b[0]) * b[1] * b[2];
    if (threads == 0 || threads > kMaxThreads || b[2] > 64) return "a block has 1 to 1024 threads and at most 64 in z, got " + show({b[0], b[1], b[2]});
    if (g[0] == 0 || g[0] > 0x7fffffffu || g[1] == 0 || g[2] == 0 || g[1] > 65535 || g[2] > 65535)
        return "a grid has 1 to 2147483647, 65535 and 65535 blocks, got " + show({g[0], g[1], g[2]});
    if (launch.shared_bytes > kMaxShared) return "a block has at most 232448 bytes of dynamic shared memory";
    return "";
}

inline void poison(unsigned dynamic_bytes) {                    // 0xff bytes: NaN as floating point, -1 as integers
    if (__start_shim_shared) std::memset(__start_shim_shared, 0xff, __stop_shim_shared - __start_shim_shared);
    std::memset(dynamic_shared, 0xff, dynamic_bytes);
}

inline void set_up(const Launch& launch) {
    if (block.stacks == nullptr) {
        block.fibers.resize(kMaxThreads);
        block.stacks = static_cast<char*>(mmap(nullptr, kMaxThreads * kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    }
    gridDim = dim3(launch.grid[0], launch.grid[1], launch.grid[2]);
    blockDim = dim3(launch.block[0], launch.block[1], launch.block[2]);
    block.threads = int(blockDim.count());
    block.error.clear();
}

inline void run_grid(const Launch& launch) {
    std::mt19937_64 random(launch.seed);
    std::vector<std::uint64_t> blocks(gridDim.count());
    std::iota(blocks.begin(), blocks.end(), 0);
    arrange(blocks, Order(launch.order), random);
    for (std::uint64_t i : blocks) {
        blockIdx = unflatten(i, gridDim);
        poison(launch.shared_bytes);
        run_block(Order(launch.order), random);
        if (block.error.empty()) continue;
        for (Fiber& fiber : block.fibers) fiber.started = false;        // what they were doing is abandoned
        return;
    }
}

template <class... P, std::size_t... I> void hold(void (*kernel)(P...), const Argument* arguments, std::index_sequence<I...>) {
    std::tuple<P...> values{*static_cast<std::remove_cv_t<P>*>(arguments[I].value)...};
    block.kernel = [=] { std::apply(kernel, values); };
}

template <class... P> std::string launch(void (*kernel)(P...), const Launch& what) {
    std::string problem = check_limits(what);
    if (problem.empty()) problem = check_arguments<P...>(what);
    if (!problem.empty()) return problem;
    set_up(what);
    hold(kernel, what.arguments, std::index_sequence_for<P...>{});
    run_grid(what);
    return block.error;
}

struct Entry {
    const char* name;
    std::string (*run)(const Launch&);
};

inline std::string run_named(const Entry* entries, const char* name, const Launch& launch) {
    std::string known;
    for (; entries->name; ++entries) {
        if (std::strcmp(entries->name, name) == 0) return entries->run(launch);
        known += std::string(known.empty() ? "" : ", ") + entries->name;
    }
    return "there is no such kernel; there are " + known;
}

}  // namespace shim
