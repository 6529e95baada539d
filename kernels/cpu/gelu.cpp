// GELU forward and backward over contiguous arrays: one loop, compiled for AVX2 with FMA and for the baseline.
#include "kernels.h"
#include "pool.h"
#include "target.h"

#include "../common/gelu.h"

namespace dtrain {
namespace {

constexpr std::int64_t kGrain = 16384;      // elements: some 30 us of work, a few times what waking a thread costs

template <class T, bool Fma, bool Tanh> DT_FUNCTION void forward_loop(const T* x, T* y, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) y[i] = gelu<T, Fma, Tanh>(x[i]);
}

template <class T, bool Fma, bool Tanh> DT_FUNCTION void backward_loop(const T* grad, const T* x, T* out, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = grad[i] * gelu_slope<T, Fma, Tanh>(x[i]);
}

template <class T, bool Tanh> DT_AVX2 void forward_avx2(const T* x, T* y, std::int64_t n) { forward_loop<T, true, Tanh>(x, y, n); }
template <class T, bool Tanh> void forward_portable(const T* x, T* y, std::int64_t n) { forward_loop<T, kBaselineFma, Tanh>(x, y, n); }

template <class T, bool Tanh> DT_AVX2 void backward_avx2(const T* grad, const T* x, T* out, std::int64_t n) {
    backward_loop<T, true, Tanh>(grad, x, out, n);
}
template <class T, bool Tanh> void backward_portable(const T* grad, const T* x, T* out, std::int64_t n) {
    backward_loop<T, kBaselineFma, Tanh>(grad, x, out, n);
}

}  // namespace

template <class T> void gelu_forward(const T* x, T* y, std::int64_t n, bool tanh_form) {
    auto loop = use_avx2() ? (tanh_form ? forward_avx2<T, true> : forward_avx2<T, false>)
                           : (tanh_form ? forward_portable<T, true> : forward_portable<T, false>);
    parallel_for(n, kGrain, [=](std::int64_t begin, std::int64_t end) { loop(x + begin, y + begin, end - begin); });
}

template <class T> void gelu_backward(const T* grad, const T* x, T* out, std::int64_t n, bool tanh_form) {
    auto loop = use_avx2() ? (tanh_form ? backward_avx2<T, true> : backward_avx2<T, false>)
                           : (tanh_form ? backward_portable<T, true> : backward_portable<T, false>);
    parallel_for(n, kGrain, [=](std::int64_t begin, std::int64_t end) { loop(grad + begin, x + begin, out + begin, end - begin); });
}

template void gelu_forward<float>(const float*, float*, std::int64_t, bool);
template void gelu_forward<double>(const double*, double*, std::int64_t, bool);
template void gelu_backward<float>(const float*, const float*, float*, std::int64_t, bool);
template void gelu_backward<double>(const double*, const double*, double*, std::int64_t, bool);

}  // namespace dtrain
