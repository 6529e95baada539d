"""Calls of the core operations, one line each: name, function of (module, operands...), and the operands as (kind, shape).

The module is dtrain or PyTorch: the parity tests compare the two, the tests beside this file check gradients on every device.
"""

import numpy as np

F, I, B, P = "float", "int", "bool", "positive"


def data(kind, shape, seed):
    rng = np.random.default_rng(seed)
    if kind == I:
        return rng.integers(-3, 4, shape)
    if kind == B:
        return rng.random(shape) > 0.5
    values = rng.standard_normal(shape)
    return np.abs(values) + 0.5 if kind == P else values


# name, function of (module, operands...), operands as (kind, shape)
CASES = [
    ("add", lambda m, a, b: a + b, (F, (3, 4)), (F, (4,))),
    ("add alpha", lambda m, a, b: m.add(a, b, alpha=2.5), (F, (3, 1)), (F, (3, 4))),
    ("add scalar", lambda m, a: 2 + a, (F, (2, 3))),
    ("sub", lambda m, a, b: a - b, (F, (2, 1, 4)), (F, (3, 1))),
    ("rsub", lambda m, a: 1 - a, (F, (3,))),
    ("mul", lambda m, a, b: a * b, (F, ()), (F, (2, 3))),
    ("div", lambda m, a, b: a / b, (F, (3, 4)), (P, (4,))),
    ("div ints", lambda m, a, b: a / (b + 10), (I, (3, 4)), (I, (4,))),
    ("div floor", lambda m, a, b: m.div(a, b, rounding_mode="floor"), (F, (3, 4)), (P, (4,))),
    ("div trunc", lambda m, a, b: m.div(a, b + 7, rounding_mode="trunc"), (I, (3, 4)), (I, (4,))),
    ("pow 2", lambda m, a: a**2, (F, (3, 4))),
    ("pow 3.5", lambda m, a: a**3.5, (P, (3, 4))),
    ("pow 0", lambda m, a: a**0, (F, (3, 4))),
    ("pow tensor", lambda m, a, b: a**b, (P, (3, 4)), (F, (4,))),
    ("rpow", lambda m, a: 2.0**a, (F, (3, 4))),
    ("remainder", lambda m, a, b: a % b, (F, (3, 4)), (P, (4,))),
    ("maximum", lambda m, a, b: m.maximum(a, b), (F, (3, 4)), (F, (4,))),
    ("maximum ties", lambda m, a: m.maximum(a, a * 1), (F, (3, 4))),
    ("minimum", lambda m, a, b: m.minimum(a, b), (F, (3, 4)), (F, (3, 1))),
    ("where", lambda m, c, a, b: m.where(c, a, b), (B, (3, 4)), (F, (3, 4)), (F, (4,))),
    ("where scalar", lambda m, c, a: m.where(c, a, 0.5), (B, (3, 4)), (F, (3, 4))),
    ("lerp", lambda m, a, b: m.lerp(a, b, 0.3), (F, (3, 4)), (F, (3, 4))),
    ("clamp", lambda m, a: a.clamp(-0.5, 0.7), (F, (3, 4))),
    ("clamp min", lambda m, a: m.clamp(a, min=0), (F, (3, 4))),
    ("clamp tensor", lambda m, a, b: m.clamp(a, max=b), (F, (3, 4)), (F, (4,))),
    ("neg", lambda m, a: -a, (F, (3, 4))),
    ("abs", lambda m, a: a.abs(), (F, (3, 4))),
    ("exp", lambda m, a: a.exp(), (F, (3, 4))),
    ("expm1", lambda m, a: m.expm1(a), (F, (3, 4))),
    ("log", lambda m, a: a.log(), (P, (3, 4))),
    ("log2", lambda m, a: a.log2(), (P, (3, 4))),
    ("log10", lambda m, a: a.log10(), (P, (3, 4))),
    ("log1p", lambda m, a: a.log1p(), (P, (3, 4))),
    ("sqrt", lambda m, a: a.sqrt(), (P, (3, 4))),
    ("rsqrt", lambda m, a: a.rsqrt(), (P, (3, 4))),
    ("square", lambda m, a: a.square(), (F, (3, 4))),
    ("reciprocal", lambda m, a: a.reciprocal(), (P, (3, 4))),
    ("sin", lambda m, a: a.sin(), (F, (3, 4))),
    ("cos", lambda m, a: a.cos(), (F, (3, 4))),
    ("tan", lambda m, a: m.tan(a * 0.3), (F, (3, 4))),
    ("asin", lambda m, a: m.asin(a * 0.1), (F, (3, 4))),
    ("acos", lambda m, a: m.acos(a * 0.1), (F, (3, 4))),
    ("atan", lambda m, a: m.atan(a), (F, (3, 4))),
    ("sinh", lambda m, a: m.sinh(a), (F, (3, 4))),
    ("cosh", lambda m, a: m.cosh(a), (F, (3, 4))),
    ("tanh", lambda m, a: a.tanh(), (F, (3, 4))),
    ("sigmoid", lambda m, a: a.sigmoid(), (F, (3, 4))),
    ("floor", lambda m, a: a.floor(), (F, (3, 4))),
    ("round", lambda m, a: m.round(a * 10), (F, (3, 4))),
    ("sign", lambda m, a: a.sign(), (F, (3, 4))),
    ("exp int", lambda m, a: a.exp(), (I, (3, 4))),
    ("eq", lambda m, a, b: a == b, (I, (3, 4)), (I, (4,))),
    ("lt scalar", lambda m, a: a < 0.1, (F, (3, 4))),
    ("logical", lambda m, a, b: (a & b) | ~a ^ b, (B, (3, 4)), (B, (4,))),
    ("bitwise", lambda m, a, b: (a & 3) | (b ^ 5), (I, (3, 4)), (I, (4,))),
    ("isnan", lambda m, a: m.isnan(m.log(a)), (F, (3, 4))),
    ("floor_divide", lambda m, a: a // 2, (I, (3, 4))),
    ("masked_fill", lambda m, a, c: a.masked_fill(c, -1.5), (F, (3, 4)), (B, (4,))),
    ("addcmul", lambda m, a, b, c: m.addcmul(a, b, c, value=0.5), (F, (3, 4)), (F, (3, 4)), (F, (4,))),
    # reductions
    ("sum", lambda m, a: a.sum(), (F, (3, 4))),
    ("sum 0-d", lambda m, a: a.sum(0), (F, ())),
    ("sum dims", lambda m, a: a.sum((0, 2), keepdim=True), (F, (2, 3, 4))),
    ("sum bool", lambda m, a: a.sum(), (B, (3, 4))),
    ("sum empty", lambda m, a: a.sum(1), (F, (3, 0))),
    ("mean", lambda m, a: a.mean(-1), (F, (3, 4))),
    ("var", lambda m, a: a.var(1), (F, (3, 4))),
    ("var biased", lambda m, a: a.var(1, unbiased=False, keepdim=True), (F, (3, 4))),
    ("std", lambda m, a: a.std(), (F, (3, 4))),
    ("prod", lambda m, a: a.prod(1), (F, (3, 4))),
    ("prod zero", lambda m, a: (a * (a > 0)).prod(), (F, (2, 3))),
    ("max", lambda m, a: a.max(), (F, (3, 4))),
    ("max dim", lambda m, a: a.max(1)[0], (F, (3, 4))),
    ("max indices", lambda m, a: a.max(1)[1], (F, (3, 4))),
    ("min dim", lambda m, a: a.min(0, keepdim=True).values, (F, (3, 4))),
    ("amax", lambda m, a: a.amax((0, 1)), (F, (3, 4, 2))),
    ("amin ties", lambda m, a: m.floor(a).amin(1), (F, (3, 9))),
    ("argmax", lambda m, a: a.argmax(), (F, (3, 4))),
    ("argmin dim", lambda m, a: a.argmin(1, keepdim=True), (F, (3, 4))),
    ("any all", lambda m, a: a.any(1) | a.all(1), (B, (3, 4))),
    ("cumsum", lambda m, a: a.cumsum(1), (F, (3, 4))),
    ("cumsum bool", lambda m, a: a.cumsum(0), (B, (3, 4))),
    ("logsumexp", lambda m, a: a.logsumexp(1), (F, (3, 4))),
    ("norm", lambda m, a: a.norm(), (F, (3, 4))),
    ("norm dim", lambda m, a: a.norm(dim=1, keepdim=True), (F, (3, 4))),
    ("norm 1", lambda m, a: a.norm(p=1, dim=0), (F, (3, 4))),
    ("norm 3", lambda m, a: a.norm(p=3), (F, (3, 4))),
    ("norm inf", lambda m, a: a.norm(p=float("inf")), (F, (3, 4))),
    ("count_nonzero", lambda m, a: m.count_nonzero(a, 1), (I, (3, 4))),
    # shapes
    ("reshape", lambda m, a: a.reshape(2, -1), (F, (3, 4))),
    ("view", lambda m, a: a.view(4, 3) * 2, (F, (3, 4))),
    ("permute", lambda m, a: a.permute(2, 0, 1), (F, (2, 3, 4))),
    ("transpose", lambda m, a: a.transpose(0, -1), (F, (2, 3, 4))),
    ("T", lambda m, a: a.T, (F, (3, 4))),
    ("mT", lambda m, a: a.mT, (F, (2, 3, 4))),
    ("movedim", lambda m, a: a.movedim((0, 1), (2, 0)), (F, (2, 3, 4))),
    ("squeeze", lambda m, a: a.squeeze(), (F, (1, 3, 1))),
    ("squeeze dim", lambda m, a: a.squeeze(0).squeeze(0), (F, (1, 3, 1))),
    ("unsqueeze", lambda m, a: a.unsqueeze(-1), (F, (3, 4))),
    ("flatten", lambda m, a: a.flatten(1), (F, (2, 3, 4))),
    ("unflatten", lambda m, a: a.unflatten(1, (2, -1)), (F, (3, 4))),
    ("expand", lambda m, a: a.expand(2, -1, 4) * 2, (F, (3, 1))),
    ("repeat", lambda m, a: a.repeat(2, 1, 3), (F, (3, 4))),
    ("tile", lambda m, a: m.tile(a, (2,)), (F, (3, 4))),
    ("repeat_interleave", lambda m, a: a.repeat_interleave(2, 1), (F, (3, 4))),
    ("cat", lambda m, a, b: m.cat([a, b], 1), (F, (3, 4)), (F, (3, 2))),
    ("cat dtypes", lambda m, a, b: m.cat([a, b]), (F, (3,)), (I, (2,))),
    ("stack", lambda m, a, b: m.stack([a, b], -1), (F, (3, 4)), (F, (3, 4))),
    ("split", lambda m, a: a.split(2, 1)[1] * 3, (F, (3, 5))),
    ("split sizes", lambda m, a: a.split([1, 4], 1)[1], (F, (3, 5))),
    ("chunk", lambda m, a: a.chunk(3, 1)[2], (F, (3, 5))),
    ("unbind", lambda m, a: a.unbind(1)[2], (F, (3, 5))),
    ("narrow", lambda m, a: a.narrow(1, 1, 3), (F, (3, 5))),
    ("flip", lambda m, a: a.flip(0, 1), (F, (3, 5))),
    ("roll", lambda m, a: a.roll((1, -2), (0, 1)), (F, (3, 5))),
    ("roll flat", lambda m, a: a.roll(4), (F, (3, 5))),
    ("tril", lambda m, a: a.tril(-1), (F, (2, 4, 5))),
    ("triu", lambda m, a: a.triu(1), (F, (4, 5))),
    ("meshgrid", lambda m, a, b: m.meshgrid(a, b, indexing="xy")[0], (F, (3,)), (F, (4,))),
    # indexing
    ("index int", lambda m, a: a[1], (F, (3, 4))),
    ("index all ints", lambda m, a: a[1, 2], (F, (3, 4))),
    ("index slice", lambda m, a: a[:, 1:3], (F, (3, 4))),
    ("index step", lambda m, a: a[::2, None, -1], (F, (3, 4))),
    ("index ellipsis", lambda m, a: a[..., 0], (F, (2, 3, 4))),
    ("index list", lambda m, a: a[[0, 2, 2]], (F, (3, 4))),
    ("index mask", lambda m, a, c: a[c], (F, (3, 4)), (B, (3, 4))),
    ("index mask row", lambda m, a, c: a[c, 1:], (F, (3, 4)), (B, (3,))),
    ("index tensors", lambda m, a, i: a[i, i.abs()], (F, (7, 4)), (I, (5,))),
    ("index mixed", lambda m, a, i: a[:, i, None, 1], (F, (3, 7, 4)), (I, (5,))),
    ("gather", lambda m, a, i: a.gather(1, i.abs()), (F, (3, 5)), (I, (3, 4))),
    ("gather small", lambda m, a, i: a.gather(0, i.abs()), (F, (5, 5)), (I, (3, 4))),
    ("scatter", lambda m, a, b: a.scatter(1, m.tensor([[0, 2], [1, 3], [3, 0]], device=a.device), b), (F, (3, 5)), (F, (3, 2))),
    ("scatter value", lambda m, a: a.scatter(0, m.tensor([[0, 2], [1, 0]], device=a.device), 1.5), (F, (3, 5))),
    ("scatter_add", lambda m, a, i, b: a.scatter_add(1, i.abs(), b), (F, (3, 5)), (I, (3, 4)), (F, (3, 4))),
    ("index_select", lambda m, a, i: a.index_select(1, i.abs()), (F, (3, 5)), (I, (6,))),
    ("index_add", lambda m, a, i, b: a.index_add(0, i.abs(), b), (F, (4, 5)), (I, (6,)), (F, (6, 5))),
    ("index_put", lambda m, a, b: a.index_put((m.tensor([0, 1], device=a.device),), b), (F, (3, 5)), (F, (2, 5))),
    ("masked_select", lambda m, a, c: a.masked_select(c), (F, (3, 4)), (B, (4,))),
    ("nonzero", lambda m, a: a.nonzero(), (B, (3, 4))),
    ("sort", lambda m, a: a.sort(1, descending=True)[0], (F, (3, 6))),
    ("argsort", lambda m, a: a.argsort(0), (F, (7, 2))),
    ("topk", lambda m, a: a.topk(2, 1)[0], (F, (3, 6))),
    ("take_along_dim", lambda m, a, i: m.take_along_dim(a, i.abs(), 1), (F, (3, 5)), (I, (1, 4))),
    # products
    ("matmul", lambda m, a, b: a @ b, (F, (3, 4)), (F, (4, 2))),
    ("matmul batch", lambda m, a, b: a @ b, (F, (2, 1, 3, 4)), (F, (5, 4, 2))),
    ("matmul vec", lambda m, a, b: a @ b, (F, (2, 3, 4)), (F, (4,))),
    ("vec matmul", lambda m, a, b: a @ b, (F, (4,)), (F, (4, 2))),
    ("dot", lambda m, a, b: m.dot(a, b), (F, (4,)), (F, (4,))),
    ("bmm", lambda m, a, b: m.bmm(a, b), (F, (2, 3, 4)), (F, (2, 4, 2))),
    ("outer", lambda m, a, b: m.outer(a, b), (F, (4,)), (F, (3,))),
    ("addmm", lambda m, a, b, c: m.addmm(a, b, c, beta=0.5, alpha=2), (F, (2,)), (F, (3, 4)), (F, (4, 2))),
    ("einsum", lambda m, a, b: m.einsum("bij,bjk->bik", a, b), (F, (2, 3, 4)), (F, (2, 4, 5))),
    ("einsum dots", lambda m, a, b: m.einsum("...i,ji->...j", a, b), (F, (2, 3, 4)), (F, (5, 4))),
    ("einsum diag", lambda m, a: m.einsum("ii->i", a), (F, (4, 4))),
    ("einsum sum", lambda m, a, b: m.einsum("ij,kj->", a, b), (F, (2, 3)), (F, (4, 3))),
    # in place and through views
    ("inplace", lambda m, a, b: (a * 1).mul_(b).add_(1).tanh_(), (F, (3, 4)), (F, (4,))),
    ("setitem slice", lambda m, a, b: _set(a, slice(1, 2), b), (F, (3, 4)), (F, (4,))),
    ("setitem mask", lambda m, a, c: _set(a, c, 2.0), (F, (3, 4)), (B, (3, 4))),
    ("setitem index", lambda m, a, b: _set(a, [0, 2], b), (F, (3, 4)), (F, (2, 4))),
    ("view write", lambda m, a, b: _view_write(a, b), (F, (3, 4)), (F, (4,))),
    ("view then base", lambda m, a, b: _base_write(a, b), (F, (3, 4)), (F, (3, 4))),
    ("augmented", lambda m, a, b: _augment(a, b), (F, (3, 4)), (F, (3,))),
    ("to", lambda m, a: a.to(m.float64) * 2, (F, (3, 4))),
    ("copy_", lambda m, a, b: (a * 1).copy_(b) * a, (F, (3, 4)), (F, (4,))),
]


def _set(a, key, value):
    out = a * 1
    out[key] = value
    return out * out


def _view_write(a, b):
    base = a * 2
    row = base[1]
    row.mul_(b)
    return base * base + row


def _base_write(a, b):
    base = a * 2
    view = base.t()[1:]
    base.mul_(b)
    return view * view


def _augment(a, b):
    out = a * 1
    out[:, 1] += b
    out[0, :] *= 2
    return out * a
