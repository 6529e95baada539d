// GELU and its derivative for one element, in one body for the CPU loops and the CUDA kernels.
//
// The usual x/2 (1 + erf(x / sqrt 2)) loses every digit for negative x, where 1 + erf cancels. Here the small tail
// Phi(-|x|) = exp(-x^2/2) R(|x|) is computed to full relative precision, x^2 with its rounding error, and one exp serves
// value and derivative. Tails are carried 2^kShift too large, so that subnormal results are rounded once.
// Nothing branches and nothing reads a table: compilers turn the loops around these functions into vector code.
//
// The includer defines DT_FUNCTION (how a function is marked) and dtrain::fused(a, b, c) for float and double.
// Constants: tests/kernels/gelu_coefficients.py derives them, and a test compares.
#pragma once

namespace dtrain {

// Exact: the hardware has fused multiply-add. Without it products are split in halves, and nothing may be contracted.
template <class T, bool Fma> DT_FUNCTION T madd(T a, T b, T c) {
    if constexpr (Fma) return fused(a, b, c);
    else return a * b + c;
}

template <class T, bool Fma> DT_FUNCTION T horner(T, T last) { return last; }

template <class T, bool Fma, class... Rest> DT_FUNCTION T horner(T t, T first, Rest... rest) {
    return madd<T, Fma>(horner<T, Fma>(t, rest...), t, first);
}

template <class T> struct Gelu;

template <> struct Gelu<float> {
    union Word { float value; unsigned bits; };
    static constexpr int kShift = 64, kMantissa = 23, kBias = 127;
    static constexpr float kUnshift = 0x1p-64f, kRound = 0x1.8p23f, kSplit = 4097.0f;
    static constexpr float kTailCentre = 3.5f, kTailEnd = 14.5f, kTanhEnd = 11.0f;
    static constexpr float kLog2e = 0x1.715476p+0f, kInvSqrt2Pi = 0x1.988454p-2f;
    static constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
    static constexpr float kLinear = 0x1.988454p+0f, kLinearLow = -0x1.857936p-25f;
    static constexpr float kCubic = 0x1.2444f2p-4f, kCubicLow = 0x1.49b16ap-29f;

    template <bool Fma> static DT_FUNCTION float tail(float t) {
        return horner<float, Fma>(t,
            0x1.ea09d8p-2f, -0x1.903b08p-4f, 0x1.9c96dap-11f, 0x1.37ae0ep-5f, -0x1.efc092p-6f, 0x1.54537ep-7f,
            0x1.24eddap-12f, -0x1.78aadp-10f, 0x1.98925p-14f, 0x1.ace45cp-13f, 0x1.eb6ac2p-16f);
    }
    template <bool Fma> static DT_FUNCTION float exp_rest(float r) {
        return horner<float, Fma>(r,
            0x1.0p-1f, 0x1.5554d8p-3f, 0x1.555516p-5f, 0x1.12106cp-7f, 0x1.6d1606p-10f);
    }
};

template <> struct Gelu<double> {
    union Word { double value; unsigned long long bits; };
    static constexpr int kShift = 128, kMantissa = 52, kBias = 1023;
    static constexpr double kUnshift = 0x1p-128, kRound = 0x1.8p52, kSplit = 134217729.0;
    static constexpr double kTailCentre = 5.0, kTailEnd = 39.0, kTanhEnd = 22.0;
    static constexpr double kLog2e = 0x1.71547652b82fep+0, kInvSqrt2Pi = 0x1.9884533d43651p-2;
    static constexpr double kLn2High = 0x1.62e42fefa38p-1, kLn2Low = 0x1.ef35793c7673p-45;
    static constexpr double kLinear = 0x1.9884533d43651p+0, kLinearLow = -0x1.cbc0d30ebfd15p-54;
    static constexpr double kCubic = 0x1.2444f2a4d8b4bp-4, kCubicLow = -0x1.6c843a29d1c7p-61;

    template <bool Fma> static DT_FUNCTION double tail(double t) {
        return horner<double, Fma>(t,
            0x1.d8979b0f2b39dp-2, -0x1.76ff86859eb0bp-4, 0x1.fc66cc64a144dp-6, 0x1.47c1d03052affp-7,
            -0x1.b08e0007b6b9bp-6, 0x1.92037bab66223p-6, -0x1.f11aab029cdcap-7, 0x1.ab6d0385e766bp-8,
            -0x1.b75f4fb23871ap-10, 0x1.05721e2631b57p-17, 0x1.7e61edf9d1baap-13, -0x1.c1b262a42fa71p-15,
            -0x1.4c12054032717p-17, 0x1.300b2a4475b1p-17, -0x1.282ad7636928cp-24, -0x1.5fa721853f404p-20,
            0x1.0bd25b68f0d02p-23, 0x1.ab44b280bef68p-23, -0x1.793cd01221cbfp-26, -0x1.139d524431f51p-25,
            0x1.83eccc918fd7ap-32, 0x1.1577042e5d7b7p-28, 0x1.a861c75e7695fp-31);
    }
    template <bool Fma> static DT_FUNCTION double exp_rest(double r) {
        return horner<double, Fma>(r,
            0x1.0p-1, 0x1.5555555555557p-3, 0x1.5555555555556p-5, 0x1.111111110ff87p-7, 0x1.6c16c16c16212p-10,
            0x1.a01a01aca0134p-13, 0x1.a01a01a741b3cp-16, 0x1.71ddffef9e7b1p-19, 0x1.27e4da1a3bf04p-22,
            0x1.af52906239de4p-26, 0x1.1f75aba0b1e2ep-29);
    }
};

template <class T> struct Pair { T high, low; };

// a * b exactly, as a rounded product and its error (Dekker 1971, where there is no fused multiply-add).
template <class T, bool Fma> DT_FUNCTION Pair<T> product(T a, T b) {
    T high = a * b;
    if constexpr (Fma) {
        return {high, fused(a, b, -high)};
    } else {
        T ca = Gelu<T>::kSplit * a, cb = Gelu<T>::kSplit * b;
        T ah = ca - (ca - a), bh = cb - (cb - b);
        T al = a - ah, bl = b - bh;
        return {high, ((ah * bh - high) + ah * bl + al * bh) + al * bl};
    }
}

// a + b exactly (Knuth).
template <class T> DT_FUNCTION Pair<T> sum(T a, T b) {
    T high = a + b, part = high - a;
    return {high, (a - (high - part)) + (b - part)};
}

// exp(v.high + v.low) * 2^kShift for v between about -ln2 * (kBias + kShift - 2) and 0.
template <class T, bool Fma> DT_FUNCTION T exp_shifted(Pair<T> v) {
    using G = Gelu<T>;
    typename G::Word power;
    power.value = madd<T, Fma>(v.high, G::kLog2e, G::kRound);      // the nearest integer, in the lowest bits
    T k = power.value - G::kRound;
    power.bits = (power.bits + (G::kBias + G::kShift)) << G::kMantissa;
    T r = madd<T, Fma>(k, -G::kLn2High, v.high);
    r = madd<T, Fma>(k, -G::kLn2Low, r) + v.low;
    return madd<T, Fma>(r * r, G::template exp_rest<Fma>(r), r + T(1)) * power.value;
}

// What value and derivative share; tail = Phi(-|x|) or sigmoid(-|v|), density its slope, both 2^kShift too large.
template <class T> struct Parts { T tail, density; };

template <class T, bool Fma> DT_FUNCTION Parts<T> erf_parts(T x) {
    using G = Gelu<T>;
    T magnitude = x < 0 ? -x : x;
    T a = magnitude < G::kTailEnd ? magnitude : G::kTailEnd;
    Pair<T> square = product<T, Fma>(a, a);
    T e = exp_shifted<T, Fma>({T(-0.5) * square.high, T(-0.5) * square.low});
    e = magnitude < G::kTailEnd ? e : T(0);                         // so that infinities give PyTorch's NaN
    T t = (a - G::kTailCentre) / (a + G::kTailCentre);
    return {e * (G::template tail<Fma>(t) / (a + T(1))), e * G::kInvSqrt2Pi};
}

template <class T, bool Fma> DT_FUNCTION Parts<T> tanh_parts(T x) {
    using G = Gelu<T>;
    T magnitude = x < 0 ? -x : x;
    T a = magnitude < G::kTanhEnd ? magnitude : G::kTanhEnd;
    Pair<T> square = product<T, Fma>(a, a), cubic = product<T, Fma>(square.high, G::kCubic);
    cubic.low += madd<T, Fma>(square.low, G::kCubic, square.high * G::kCubicLow);
    Pair<T> slope = sum<T>(G::kLinear, cubic.high);
    slope.low += cubic.low + G::kLinearLow;
    Pair<T> v = product<T, Fma>(a, slope.high);
    v.low = madd<T, Fma>(a, slope.low, v.low);
    T e = exp_shifted<T, Fma>({-v.high, -v.low});
    e = magnitude < G::kTanhEnd ? e : T(0);
    T inverse = T(1) / madd<T, Fma>(e, G::kUnshift, T(1));
    T rate = madd<T, Fma>(T(3) * square.high, G::kCubic, G::kLinear);
    T tail = e * inverse;
    return {tail, tail * inverse * rate};
}

template <class T, bool Fma, bool Tanh> DT_FUNCTION Parts<T> gelu_parts(T x) {
    if constexpr (Tanh) return tanh_parts<T, Fma>(x);
    else return erf_parts<T, Fma>(x);
}

template <class T, bool Fma, bool Tanh> DT_FUNCTION T gelu(T x) {
    Parts<T> p = gelu_parts<T, Fma, Tanh>(x);
    T left = (x * p.tail) * Gelu<T>::kUnshift;
    return x < 0 ? left : x * (T(1) - p.tail * Gelu<T>::kUnshift);
}

template <class T, bool Fma, bool Tanh> DT_FUNCTION T gelu_slope(T x) {
    Parts<T> p = gelu_parts<T, Fma, Tanh>(x);
    T left = madd<T, Fma>(x, p.density, p.tail) * Gelu<T>::kUnshift;
    T right = madd<T, Fma>(x, p.density, -p.tail) * Gelu<T>::kUnshift + T(1);
    return x < 0 ? left : right;
}

}  // namespace dtrain
