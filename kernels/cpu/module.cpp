// dtrain._native: the CPU kernels as a plain CPython extension.
//
// Why this binding: the limited API (3.11, whose buffer protocol it needs) makes one wheel serve every later Python,
// there is nothing to install to build it, and a call is cheap (kernels/README.md has the figures; ctypes costs ten
// times as much). Every kernel takes buffers and writes into the last; it returns False, having done nothing, when the
// buffers are not what it computes on (contiguous float32 or float64 of one length), and the caller uses NumPy.
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernels.h"
#include "pool.h"
#include "target.h"

namespace {

constexpr Py_ssize_t kReleaseGil = 8192;        // elements; shorter work ends before another thread could wake

class Buffer {
public:
    Buffer(PyObject* object, int flags) {
        held_ = PyObject_GetBuffer(object, &view_, flags | PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) == 0;
        if (!held_) PyErr_Clear();
    }
    ~Buffer() {
        if (held_) PyBuffer_Release(&view_);
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    // 'f', 'd', or 0 for anything else.
    char kind() const {
        if (!held_ || view_.format == nullptr || view_.format[0] == 0 || view_.format[1] != 0) return 0;
        char letter = view_.format[0];
        return (letter == 'f' && view_.itemsize == 4) || (letter == 'd' && view_.itemsize == 8) ? letter : 0;
    }
    Py_ssize_t length() const { return view_.len / view_.itemsize; }
    bool matches(const Buffer& other) const { return kind() == other.kind() && view_.len == other.view_.len; }
    template <class T> T* data() const { return static_cast<T*>(view_.buf); }

private:
    Py_buffer view_;
    bool held_;
};

template <class F> void without_gil(Py_ssize_t n, F&& work) {
    if (n < kReleaseGil) return work();
    PyThreadState* state = PyEval_SaveThread();
    work();
    PyEval_RestoreThread(state);
}

PyObject* wrong_count(const char* signature, Py_ssize_t given) {
    return PyErr_Format(PyExc_TypeError, "expected %s, got %zd arguments", signature, given);
}

PyObject* gelu_forward(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count != 3) return wrong_count("gelu_forward(x, out, tanh_form)", count);
    int tanh_form = PyObject_IsTrue(args[2]);
    if (tanh_form < 0) return nullptr;
    Buffer x(args[0], 0), out(args[1], PyBUF_WRITABLE);
    if (!x.kind() || !out.matches(x)) Py_RETURN_FALSE;
    auto n = x.length();
    without_gil(n, [&] {
        if (x.kind() == 'f') dtrain::gelu_forward(x.data<const float>(), out.data<float>(), n, tanh_form);
        else dtrain::gelu_forward(x.data<const double>(), out.data<double>(), n, tanh_form);
    });
    Py_RETURN_TRUE;
}

PyObject* gelu_backward(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count != 4) return wrong_count("gelu_backward(grad, x, out, tanh_form)", count);
    int tanh_form = PyObject_IsTrue(args[3]);
    if (tanh_form < 0) return nullptr;
    Buffer grad(args[0], 0), x(args[1], 0), out(args[2], PyBUF_WRITABLE);
    if (!x.kind() || !grad.matches(x) || !out.matches(x)) Py_RETURN_FALSE;
    auto n = x.length();
    without_gil(n, [&] {
        if (x.kind() == 'f') dtrain::gelu_backward(grad.data<const float>(), x.data<const float>(), out.data<float>(), n, tanh_form);
        else dtrain::gelu_backward(grad.data<const double>(), x.data<const double>(), out.data<double>(), n, tanh_form);
    });
    Py_RETURN_TRUE;
}

PyObject* set_num_threads(PyObject*, PyObject* count) {
    long threads = PyLong_AsLong(count);
    if (threads == -1 && PyErr_Occurred()) return nullptr;
    if (threads < 1 || threads > 4096) return PyErr_Format(PyExc_ValueError, "expected 1 to 4096 threads, got %ld", threads);
    dtrain::set_num_threads(static_cast<int>(threads));
    Py_RETURN_NONE;
}

PyObject* get_num_threads(PyObject*, PyObject*) { return PyLong_FromLong(dtrain::get_num_threads()); }
PyObject* running_threads(PyObject*, PyObject*) { return PyLong_FromLong(dtrain::running_threads()); }
PyObject* instruction_set(PyObject*, PyObject*) { return PyUnicode_FromString(dtrain::instruction_set()); }

PyCFunction fast(PyObject* (*function)(PyObject*, PyObject* const*, Py_ssize_t)) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef methods[] = {
    {"gelu_forward", fast(gelu_forward), METH_FASTCALL, "gelu_forward(x, out, tanh_form) -> bool"},
    {"gelu_backward", fast(gelu_backward), METH_FASTCALL, "gelu_backward(grad, x, out, tanh_form) -> bool"},
    {"set_num_threads", set_num_threads, METH_O, "Threads a kernel may use, the caller's included."},
    {"get_num_threads", get_num_threads, METH_NOARGS, "Threads a kernel may use."},
    {"running_threads", running_threads, METH_NOARGS, "Threads the pool has started in this process."},
    {"instruction_set", instruction_set, METH_NOARGS, "avx2 or portable."},
    {nullptr, nullptr, 0, nullptr},
};

int prepare(PyObject*) {
    dtrain::get_num_threads();      // makes the pool and its fork handler now, while nothing else runs
    return 0;
}

PyModuleDef_Slot slots[] = {{Py_mod_exec, reinterpret_cast<void*>(prepare)}, {0, nullptr}};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "dtrain's CPU kernels.", 0, methods, slots, nullptr, nullptr, nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__native() { return PyModuleDef_Init(&definition); }
