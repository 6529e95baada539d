// One small pool of threads for all CPU kernels.
//
// Its threads sleep in a condition variable and never spin: a spinning pool beside OpenBLAS's own costs an order of
// magnitude. A second thread that asks while the pool is busy (ranks that are threads) runs its work alone, at once.
// A forked child starts with one thread and an empty pool of its own; set_num_threads there makes it grow again.
#pragma once

#include <cstdint>
#include <type_traits>

namespace dtrain {

using Slice = void (*)(void* context, std::int64_t begin, std::int64_t end);

// Calls slice(context, begin, end) over disjoint parts of [0, n), each of `grain` elements or a little more; returns when
// all are done. Threads take the next part when they have done one, so that a thread the system has not woken, or has put
// aside for another program, holds up at most one part. `slice` must not throw.
void parallel_for(std::int64_t n, std::int64_t grain, Slice slice, void* context);

template <class F> void parallel_for(std::int64_t n, std::int64_t grain, F&& body) {
    using Body = std::remove_reference_t<F>;
    parallel_for(n, grain, [](void* f, std::int64_t begin, std::int64_t end) { (*static_cast<Body*>(f))(begin, end); }, &body);
}

void set_num_threads(int count);
int get_num_threads();
int running_threads();      // threads the pool has started in this process, the caller's not counted

}  // namespace dtrain
