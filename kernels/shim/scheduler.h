// The threads of one block as fibers, and what they wait for.
//
// A fiber runs until it waits or returns, then the next of its warp runs, in the launch's order. Fibers are made once with
// makecontext and switched with _setjmp and _longjmp, which make no system call: a switch costs some 10 ns.
#pragma once

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <list>
#include <numeric>
#include <random>
#include <string>
#include <vector>

struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    constexpr std::uint64_t count() const { return std::uint64_t(x) * y * z; }
};

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace shim {

template <class To, class From> To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From), "one size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

enum class Order { forward, reverse, random };
enum class State { ready, at_barrier, in_warp, returned };

struct Fiber {
    ucontext_t start;
    jmp_buf resume;
    bool started = false;
    State state = State::ready;
    const char* waits_for = "";
    int line = 0;
};

// One warp operation: who has come and with which word. Copied by each lane once all of `mask` have come.
struct WarpOperation {
    const char* name;
    unsigned mask, arrived, left;
    std::uint64_t words[32];
};

constexpr std::size_t kStack = 128 << 10, kGuard = 4096;
constexpr int kMaxThreads = 1024;

struct Block {
    std::vector<Fiber> fibers;
    std::vector<std::list<WarpOperation>> warps;
    char* stacks = nullptr;
    jmp_buf scheduler;
    std::function<void()> kernel;
    std::string error;
    int threads = 0, current = 0, waiting = 0, barrier_line = 0;
};
static Block block;

inline int lane() { return block.current % warpSize; }
inline uint3 unflatten(std::uint64_t i, dim3 size) {
    return {unsigned(i % size.x), unsigned(i / size.x % size.y), unsigned(i / size.x / size.y)};
}
inline std::string show(uint3 v) {
    return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
}
inline std::string name_thread(int i) {
    return "thread " + show(unflatten(i, blockDim)) + " of block " + show(blockIdx);
}

// ---- switching

inline void pause() {
    if (_setjmp(block.fibers[block.current].resume) == 0) _longjmp(block.scheduler, 1);
}

inline void body() {
    for (;;) {
        block.kernel();
        block.fibers[block.current].state = State::returned;
        pause();
    }
}

inline void prepare(Fiber& fiber, int index) {
    char* stack = block.stacks + index * kStack;
    mprotect(stack, kGuard, PROT_NONE);                 // an overflow stops here and not in a neighbour
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = stack + kGuard;
    fiber.start.uc_stack.ss_size = kStack - kGuard;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, body, 0);
}

inline void enter(int index) {
    Fiber& fiber = block.fibers[index];
    block.current = index;
    threadIdx = unflatten(index, blockDim);
    if (_setjmp(block.scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.resume, 1);
    fiber.started = true;
    prepare(fiber, index);
    setcontext(&fiber.start);
}

// ---- waiting

[[noreturn]] inline void fail(const char* name, int line, const std::string& problem) {
    block.error = name_thread(block.current) + ": " + name + " in line " + std::to_string(line) + " " + problem;
    _longjmp(block.scheduler, 1);
}

inline void wait(State state, const char* name, int line) {
    Fiber& fiber = block.fibers[block.current];
    fiber.state = state;
    fiber.waits_for = name;
    fiber.line = line;
    pause();
}

inline void barrier(int line) {
    if (block.waiting > 0 && block.barrier_line != line)
        fail("__syncthreads", line, "is not where others of its block wait, line " + std::to_string(block.barrier_line));
    block.barrier_line = line;
    if (++block.waiting < block.threads) return wait(State::at_barrier, "__syncthreads", line);
    block.waiting = 0;
    for (int i = 0; i < block.threads; ++i)
        if (block.fibers[i].state == State::at_barrier) block.fibers[i].state = State::ready;
}

// Gives `word` to the lanes of `mask` and returns what all of them gave, once they have.
inline WarpOperation exchange(const char* name, int line, unsigned mask, std::uint64_t word) {
    const unsigned mine = 1u << lane();
    const int first = block.current - lane();
    if (!(mask & mine)) fail(name, line, "has a mask without its own lane");
    auto& open = block.warps[first / warpSize];
    auto found = std::find_if(open.begin(), open.end(), [&](auto& o) { return o.mask == mask && o.arrived != mask && !(o.arrived & mine); });
    if (found == open.end()) found = open.insert(open.end(), WarpOperation{name, mask, 0, 0, {}});
    if (std::strcmp(found->name, name) != 0) fail(name, line, std::string("meets lanes of its mask in ") + found->name);
    found->arrived |= mine;
    found->words[lane()] = word;
    if (found->arrived != mask) {
        wait(State::in_warp, name, line);
    } else {
        for (int i = 0; i < warpSize; ++i)
            if ((mask & ~mine) >> i & 1u) block.fibers[first + i].state = State::ready;
    }
    WarpOperation result = *found;
    if ((found->left |= mine) == mask) open.erase(found);
    return result;
}

// ---- running

inline void explain_deadlock() {
    int waiting = 0, returned = -1;
    for (int i = block.threads - 1; i >= 0; --i) (block.fibers[i].state == State::returned ? returned : waiting) = i;
    const Fiber& fiber = block.fibers[waiting];
    block.error = name_thread(waiting) + " waits for ever: " + fiber.waits_for + " in line " + std::to_string(fiber.line) +
                  (returned < 0 ? ", others wait elsewhere" : ", and thread " + show(unflatten(returned, blockDim)) + " has returned");
}

template <class T> void arrange(std::vector<T>& order, Order wish, std::mt19937_64& random) {
    if (wish == Order::reverse) std::reverse(order.begin(), order.end());
    if (wish == Order::random) std::shuffle(order.begin(), order.end(), random);
}

// Runs a warp's lanes until none of them can go on; false where none could from the start, or one failed.
inline bool run_warp(int warp, Order wish, std::mt19937_64& random) {
    const int first = warp * warpSize, last = std::min(first + warpSize, block.threads);
    bool moved = false;
    for (std::vector<int> lanes;;) {
        lanes.clear();
        for (int i = first; i < last; ++i)
            if (block.fibers[i].state == State::ready) lanes.push_back(i);
        if (lanes.empty()) return moved;
        arrange(lanes, wish, random);
        for (int i : lanes) {
            enter(i);
            if (!block.error.empty()) return false;
        }
        moved = true;
    }
}

// One warp after the other goes as far as it can: a missing barrier lets it overtake the others, and shows.
inline void run_block(Order wish, std::mt19937_64& random) {
    std::vector<int> warps((block.threads + warpSize - 1) / warpSize);
    std::iota(warps.begin(), warps.end(), 0);
    if (wish == Order::reverse) std::reverse(warps.begin(), warps.end());
    block.waiting = 0;
    block.warps.assign(warps.size(), {});
    for (int i = 0; i < block.threads; ++i) block.fibers[i].state = State::ready;
    for (bool moved = true; moved;) {
        moved = false;
        if (wish == Order::random) std::shuffle(warps.begin(), warps.end(), random);
        for (int warp : warps) {
            moved = run_warp(warp, wish, random) || moved;
            if (!block.error.empty()) return;
        }
    }
    for (int i = 0; i < block.threads; ++i)
        if (block.fibers[i].state != State::returned) return explain_deadlock();
}

}  // namespace shim
