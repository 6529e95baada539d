"""Where the constants of kernels/common/gelu.h come from; `python tests/kernels/gelu_coefficients.py` prints them.

Each function is interpolated at Chebyshev nodes with 50 digits and rounded once. The scaled tail (1 + a) R(a), with
R(a) = exp(a^2/2) Phi(-a), is smooth in t = (a - K) / (a + K) (Shepherd and Laframboise, "Chebyshev approximation of
(1 + 2x) exp(x^2) erfc x", Mathematics of Computation 36, 1981).
"""

from __future__ import annotations

import mpmath as mp

PRECISIONS = {
    "float": dict(tail_centre=3.5, tail_end=15, tail_degree=10, exp_degree=4, bits=24, ln2_bits=15),
    "double": dict(tail_centre=5, tail_end=39, tail_degree=22, exp_degree=10, bits=53, ln2_bits=42),
}


def derive(precision: str) -> dict[str, list[float]]:
    """The constants of one precision by name, as exactly representable Python floats, lowest power first."""
    p = PRECISIONS[precision]
    with mp.workdps(50):
        centre, end = mp.mpf(p["tail_centre"]), mp.mpf(p["tail_end"])
        reach = mp.log(2) / 2 * mp.mpf("1.01")
        c1 = 2 * mp.sqrt(2 / mp.pi)
        c2 = c1 * mp.mpf("0.044715")
        ln2_high = rounded(mp.log(2), p["ln2_bits"])
        exact = {
            "tail": interpolate(lambda t: _tail(centre * (1 + t) / (1 - t)), mp.mpf(-1), (end - centre) / (end + centre), p["tail_degree"]),
            "exp_rest": interpolate(_exp_rest, -reach, reach, p["exp_degree"]),
            "log2_e": [1 / mp.log(2)],
            "ln2": [mp.mpf(ln2_high), mp.log(2) - ln2_high],
            "inv_sqrt_2pi": [1 / mp.sqrt(2 * mp.pi)],
            "tanh_linear": _pair(c1, p["bits"]),
            "tanh_cubic": _pair(c2, p["bits"]),
        }
        return {name: [rounded(value, p["bits"]) for value in values] for name, values in exact.items()}


def interpolate(f, low, high, degree: int) -> list:
    """Monomial coefficients, lowest first, of the polynomial through f at the Chebyshev nodes of [low, high]."""
    n = degree + 1
    nodes = [(high - low) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * n)) + (high + low) / 2 for i in range(n)]
    vandermonde = mp.matrix(n, n)
    for i, t in enumerate(nodes):
        for k in range(n):
            vandermonde[i, k] = t**k
    return list(mp.lu_solve(vandermonde, mp.matrix([f(t) for t in nodes])))


def rounded(value, bits: int) -> float:
    """``value`` to the nearest number of ``bits`` significant bits."""
    mantissa, exponent = mp.frexp(value)
    return float(mp.ldexp(mp.nint(mp.ldexp(mantissa, bits)), int(exponent) - bits))


def _pair(value, bits: int) -> list:
    high = mp.mpf(rounded(value, bits))
    return [high, value - high]


def _tail(a):
    return (1 + a) * mp.erfc(a / mp.sqrt(2)) / 2 * mp.exp(a * a / 2)


def _exp_rest(r):
    """(exp(r) - 1 - r) / r^2."""
    return mp.nsum(lambda k: r**k / mp.factorial(k + 2), [0, 40]) if r else mp.mpf("0.5")


if __name__ == "__main__":
    for precision in PRECISIONS:
        for name, values in derive(precision).items():
            print(precision, name, *(value.hex() for value in values), sep="  ")
