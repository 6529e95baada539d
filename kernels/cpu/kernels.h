// The CPU kernels, as the Python binding sees them. Arrays are contiguous; every result depends on its element alone.
#pragma once

#include <cstdint>

namespace dtrain {

template <class T> void gelu_forward(const T* x, T* y, std::int64_t n, bool tanh_form);
template <class T> void gelu_backward(const T* grad, const T* x, T* out, std::int64_t n, bool tanh_form);

}  // namespace dtrain
