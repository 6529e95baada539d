"""Every function on meta arrays gives the shape and dtype NumPy gives on real ones."""

import numpy as np
import pytest

from dtrain.backend import dtypes, meta, namespace
from dtrain.errors import DeviceError, IndexRangeError, ShapeError

A, B, C = np.ones((3, 4), np.float32), np.ones((4, 5), np.float32), np.ones((2, 3, 4), np.float32)
V, I, M = np.ones(4), np.array([[0, 1], [2, 0]]), np.array([True, False, True])


def to_meta(x):
    if isinstance(x, np.ndarray):
        return meta.of(x)
    return type(x)(map(to_meta, x)) if isinstance(x, (list, tuple)) else x


def described(x):
    return [described(y) for y in x] if isinstance(x, (list, tuple)) else (x.shape, x.dtype)


@pytest.mark.parametrize("name, args, options", [
    ("add", (A, C), {}), ("power", (A, 2), {}), ("less", (A, 1.0), {}), ("where", (A > 0, C, 0.0), {}), ("exp", (I,), {}),
    ("clip", (A, 0, None), {}), ("true_divide", (I, 2), {}), ("isnan", (A,), {}), ("round", (A,), {}), ("logical_not", (A,), {}),
    ("sum", (C,), dict(axis=(0, -1))), ("sum", (I,), {}), ("mean", (I,), dict(axis=0)), ("max", (C,), dict(axis=1, keepdims=True)),
    ("sum", (M,), {}), ("any", (A,), dict(axis=0)), ("argmax", (C,), dict(axis=2)), ("argmin", (C,), {}), ("prod", (A,), dict(axis=-1)),
    ("var", (C,), dict(axis=(1, 2), ddof=1)), ("sum", (A,), dict(axis=1, dtype=np.float64)), ("cumsum", (I,), {}), ("cumprod", (C,), dict(axis=1)),
    ("matmul", (A, B), {}), ("matmul", (C, B), {}), ("matmul", (V, B), {}), ("matmul", (C, V), {}), ("matmul", (V, V), {}),
    ("tensordot", (C, A), dict(axes=((1, 2), (0, 1)))), ("tensordot", (A, B), dict(axes=1)), ("einsum", ("ij,jk->ik", A, B), {}),
    ("einsum", ("...ij,jk", C, B), {}), ("einsum", ("bij,ij->b", C, A), {}), ("einsum", ("ii", np.ones((3, 3))), {}),
    ("transpose", (C,), {}), ("transpose", (C, (1, 0, 2)), {}), ("swapaxes", (C, 0, 2), {}), ("moveaxis", (C, 0, -1), {}),
    ("reshape", (C, (6, -1)), {}), ("reshape", (C, -1), {}), ("broadcast_to", (A, (2, 3, 4)), {}), ("expand_dims", (A, (0, 2)), {}),
    ("squeeze", (np.ones((1, 3, 1)),), {}), ("squeeze", (np.ones((1, 3, 1)), 0), {}), ("flip", (A, 0), {}), ("roll", (A, 1), {}),
    ("diagonal", (C,), dict(axis1=1, axis2=2)), ("concatenate", ([A, I.astype(np.int8).reshape(1, 4)],), {}), ("concatenate", ([C, C],), dict(axis=-1)),
    ("stack", ([A, A],), dict(axis=-1)), ("stack", ([A, A, A],), {}), ("split", (C, 2), dict(axis=2)), ("split", (C, [1, 2]), dict(axis=1)),
    ("pad", (A, ((0, 1), (2, 3))), {}), ("pad", (A, 1), {}), ("tile", (A, (2, 1, 3)), {}), ("repeat", (A, 2), dict(axis=1)), ("repeat", (A, 2), {}),
    ("take", (C, I), dict(axis=1)), ("take_along_axis", (np.ones((2, 5)), I), dict(axis=1)), ("sort", (C,), dict(axis=0)), ("argsort", (C,), dict(axis=0)),
    ("searchsorted", (V, A), {}), ("tril", (C,), {}), ("nan_to_num", (A,), {}), ("isclose", (A, C), {}), ("meshgrid", (V, M), {}),
    ("zeros", ((2, 3),), {}), ("ones", (3,), dict(dtype=np.int8)), ("full", ((2,), 3), {}), ("full_like", (A, 7), {}), ("zeros_like", (A,), dict(dtype=bool)),
    ("arange", (5,), {}), ("arange", (1, 10, 3), {}), ("arange", (0.0, 1.0, 0.3), {}), ("arange", (3,), dict(dtype=np.float32)), ("linspace", (0, 1, 7), {}),
    ("eye", (3, 4), {}), ("asarray", ([[1, 2], [3, 4]],), {}), ("array", (A,), dict(ndmin=4)), ("partition", (A, 1), {}), ("ascontiguousarray", (A,), {}),
])
def test_as_numpy(name, args, options):
    ours = meta.functions[name](*map(to_meta, args), **options)
    assert described(ours) == described(getattr(np, name)(*args, **options))


INDICES = [0, -1, slice(1, 3), None, ..., (slice(None), 1), (..., None, 0), (0, slice(None, None, -1)), I, [2, 0], (slice(None), I), (I, 0), (I, slice(None), I),
           (I, None, I), (0, slice(None), I), (..., I), M, (M, 1), (slice(None), slice(None), np.array([True, False, True, True])), (None, I, ..., I), np.array([], int), ()]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_indexing_as_numpy(index):
    x = np.ones((3, 3, 4), np.float32)
    assert described(meta.of(x)[index]) == described(x[index])
    if isinstance(index, np.ndarray) and index.dtype != bool:
        assert meta.of(x)[meta.of(index)].shape == x[index].shape


@pytest.mark.parametrize("expression", ["a + 1", "1.5 - a", "a @ b", "a * a.sum_", "-a", "abs(a)", "a == 2", "a / a", "a // 2", "i % 2", "i & 1", "~i", "2 ** i", "i < a"])
def test_operators_as_numpy(expression):
    values = dict(a=A, b=B, i=np.ones((3, 4), np.int32))
    expression = expression.replace("a.sum_", "b[:, 0]")
    assert described(eval(expression, {}, {k: meta.of(v) for k, v in values.items()})) == described(eval(expression, {}, values))


def test_every_function_operations_may_call_exists():
    missing = [name for name in namespace.FUNCTIONS + namespace.FORWARD_ONLY if name not in meta.functions]
    assert not missing


def test_no_memory_is_used_and_array_facts_hold():
    x = meta.MetaArray((1 << 20, 1 << 20), dtypes.bfloat16.np)
    y = (x + x).reshape(1 << 30, -1).T
    assert y.shape == (1 << 10, 1 << 30) and y.nbytes == 1 << 41 and y.strides == (1 << 31, 2) and y.itemsize == 2 and y.ndim == 2
    assert np.ones(3).__add__(meta.of(V)) is NotImplemented and (np.ones((3, 1)) + meta.of(V)).shape == (3, 4)


def test_in_place_keeps_shape_and_dtype():
    x = before = meta.of(A)
    x += 1.5
    x[0] = V
    assert x is before and x.dtype == np.float32
    with pytest.raises(ShapeError, match="do not fit"):
        x += meta.of(C)
    with pytest.raises(ShapeError, match="do not broadcast"):
        x[0] = np.ones(3)


@pytest.mark.parametrize("read", [float, int, bool, np.asarray, lambda x: x.item(), lambda x: x.tolist(), lambda x: meta.functions["nonzero"](x),
                                  lambda x: meta.of(V)[x > 0]])
def test_reading_values_is_refused(read):
    with pytest.raises(DeviceError, match="meta tensors have no data"):
        read(meta.of(V))


@pytest.mark.parametrize("call, error, match", [
    (lambda: meta.of(A) + meta.of(B), ShapeError, r"\(3, 4\) and \(4, 5\)"),
    (lambda: meta.of(A) @ meta.of(A), ShapeError, "inner sizes 4 and 3"),
    (lambda: meta.of(A).reshape(5, -1), ShapeError, r"cannot reshape \(3, 4\)"),
    (lambda: meta.of(A)[3], IndexRangeError, "out of bounds"),
    (lambda: meta.of(A)[0, 0, I], IndexRangeError, "too many indices"),
    (lambda: meta.functions["sum"](meta.of(A), axis=2), IndexRangeError, r"axis 2 is outside \[-2, 1\]"),
    (lambda: meta.functions["stack"]([meta.of(A), meta.of(B)]), ShapeError, "must be equal"),
    (lambda: meta.functions["concatenate"]([meta.of(A), meta.of(B)]), ShapeError, "must agree"),
    (lambda: meta.functions["einsum"]("ij,jk", meta.of(A), meta.of(A)), ShapeError, "'j' has sizes 4 and 3"),
    (lambda: meta.functions["broadcast_to"](meta.of(A), (5, 4)), ShapeError, "broadcast_to of shape"),
])
def test_errors_name_the_shapes(call, error, match):
    with pytest.raises(error, match=match):
        call()
