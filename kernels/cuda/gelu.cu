// GELU forward and backward, elementwise over contiguous arrays, in the exact (erf) and the tanh form.
#include "primitives.cuh"

#include "../common/gelu.h"

namespace dtrain {

template <class T, bool Tanh> DT_FUNCTION void forward(const T* x, T* out, long long n) {
    using E = Element<T>;
    for (long long i = first_index(); i < n; i += grid_stride())
        out[i] = E::store(gelu<typename E::Compute, true, Tanh>(E::load(x[i])));
}

template <class T, bool Tanh> DT_FUNCTION void backward(const T* grad, const T* x, T* out, long long n) {
    using E = Element<T>;
    for (long long i = first_index(); i < n; i += grid_stride())
        out[i] = E::store(E::load(grad[i]) * gelu_slope<typename E::Compute, true, Tanh>(E::load(x[i])));
}

}  // namespace dtrain

#define DT_GELU(form, tanh_form, name, T)                                                                              \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
    gelu_##form##_forward_##name(const T* __restrict__ x, T* __restrict__ out, long long n) {                          \
        dtrain::forward<T, tanh_form>(x, out, n);                                                                      \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
    gelu_##form##_backward_##name(const T* __restrict__ grad, const T* __restrict__ x, T* __restrict__ out, long long n) { \
        dtrain::backward<T, tanh_form>(grad, x, out, n);                                                               \
    }

#define DT_GELU_FORMS(name, T)       \
    DT_GELU(none, false, name, T)    \
    DT_GELU(tanh, true, name, T)

DT_GELU_FORMS(float32, float)
DT_GELU_FORMS(float64, double)
DT_GELU_FORMS(float16, __half)
DT_GELU_FORMS(bfloat16, __nv_bfloat16)
