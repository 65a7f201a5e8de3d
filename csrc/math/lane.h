// A Lane is what one activation, loss or update rule computes on at a time: a SIMD register on the
// CPU (16, 8 or 4 floats), one float or double in a CUDA thread. The maths is written once for
// both.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#if defined(__CUDACC__)
#define TORCHNN_FN __host__ __device__ __forceinline__
#elif !defined(TORCHNN_FN)  // tests compile sooner
// always_inline, so that one source serves every instruction set: the code is compiled inside the
// entry point that carries the target attribute.
#define TORCHNN_FN __attribute__((always_inline)) inline
#endif

namespace torchnn {

// The type of the numbers in a Lane.
template <class Lane>
struct LaneElement {
  using type = Lane;
};
template <class Lane>
using ElementOf = typename LaneElement<Lane>::type;

// ---- scalars: the lane of a CUDA thread, and of the tails ----

TORCHNN_FN float exp(float x) { return ::expf(x); }
TORCHNN_FN double exp(double x) { return ::exp(x); }
TORCHNN_FN float expm1(float x) { return ::expm1f(x); }
TORCHNN_FN double expm1(double x) { return ::expm1(x); }
TORCHNN_FN float abs(float x) { return ::fabsf(x); }
TORCHNN_FN double abs(double x) { return ::fabs(x); }
TORCHNN_FN float log(float x) { return ::logf(x); }
TORCHNN_FN double log(double x) { return ::log(x); }
TORCHNN_FN float sqrt(float x) { return ::sqrtf(x); }
TORCHNN_FN double sqrt(double x) { return ::sqrt(x); }

// a / b for b from 1 to 2, where a GPU needs no care for ranges: two instructions instead of ten,
// off by two units in the last place at most either way.
template <class Lane>
TORCHNN_FN Lane divide_by_one_to_two(Lane a, Lane b) {
  return a / b;
}
#if defined(__CUDA_ARCH__)
template <>
TORCHNN_FN float divide_by_one_to_two(float a, float b) {
  float reciprocal;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(b));
  return a * reciprocal;
}
#endif

#if !defined(__CUDACC__)

// ---- SIMD registers: GCC and Clang vector extensions, which any target can lower ----

template <class T, int bytes>
struct VectorType {
  typedef T type __attribute__((vector_size(bytes)));
};
template <class T, int bytes>
using Vector = typename VectorType<T, bytes>::type;

template <class V>
using Element = std::remove_cvref_t<decltype(V{}[0])>;
template <class V>
inline constexpr int lanes = sizeof(V) / sizeof(Element<V>);
template <class V>
concept Simd = sizeof(V) > sizeof(double) && requires(V v) { v[0]; };
template <Simd V>
struct LaneElement<V> {
  using type = Element<V>;
};

// The address need not be aligned: tensors may be slices.
template <Simd V>
TORCHNN_FN V load(const Element<V>* p) {
  typedef V Unaligned __attribute__((aligned(alignof(Element<V>)), may_alias));
  return *reinterpret_cast<const Unaligned*>(p);
}

template <Simd V>
TORCHNN_FN void store(Element<V>* p, V v) {
  typedef V Unaligned __attribute__((aligned(alignof(Element<V>)), may_alias));
  *reinterpret_cast<Unaligned*>(p) = v;
}

// The halves of a register added up, until 16 bytes (four floats or two doubles) are left.
template <Simd V>
TORCHNN_FN Vector<Element<V>, 16> fold(V v) {
  if constexpr (sizeof(V) == 16) {
    return v;
  } else {
    using Half = Vector<Element<V>, sizeof(V) / 2>;
    Half halves[2];
    __builtin_memcpy(halves, &v, sizeof(V));
    return fold(Half(halves[0] + halves[1]));
  }
}

// The sums over four registers, stored one after the other.
template <class V>
  requires std::is_same_v<Element<V>, float>
TORCHNN_FN void store_sums(float* p, V v0, V v1, V v2, V v3) {
  const auto a = fold(v0), b = fold(v1), c = fold(v2), d = fold(v3);
  const auto ab =
      __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const auto cd =
      __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store(p,
        __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7));
}

template <class V>
  requires std::is_same_v<Element<V>, double>
TORCHNN_FN void store_sums(double* p, V v0, V v1, V v2, V v3) {
  const auto a = fold(v0), b = fold(v1), c = fold(v2), d = fold(v3);
  store(p, __builtin_shufflevector(a, b, 0, 2) + __builtin_shufflevector(a, b, 1, 3));
  store(p + 2, __builtin_shufflevector(c, d, 0, 2) + __builtin_shufflevector(c, d, 1, 3));
}

template <Simd V>
TORCHNN_FN Element<V> sum(V v) {
  const auto folded = fold(v);
  if constexpr (lanes<decltype(folded)> == 2)
    return folded[0] + folded[1];
  else
    return (folded[0] + folded[1]) + (folded[2] + folded[3]);
}

template <Simd V>
TORCHNN_FN V abs(V x) {
  using I = decltype(V{} < V{});  // signed integers of the same width
  return (V)((I)x & ~(I)-V{});    // all bits but those of -0
}

template <Simd V>
TORCHNN_FN V sqrt(V x) {
  for (int i = 0; i < lanes<V>; ++i) x[i] = sqrt(x[i]);  // one instruction, the compiler finds
  return x;
}

// What exp needs to know of a floating type. ln2 is split so that n * ln2_high is exact.
template <class T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  using Integer = int32_t;
  static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
  static constexpr float round = 0x1.8p23f;            // x + round - round rounds x to an integer
  static constexpr float lowest = -104, highest = 89;  // e^x is 0 below, infinite above
  static constexpr float lowest_normal = -88;          // e^x is subnormal, and so is 2^n
  static constexpr int mantissa_bits = 23, exponent_bias = 127, degree = 7, log1p_terms = 9;
};
template <>
struct ExpConstants<double> {
  using Integer = int64_t;
  static constexpr double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double round = 0x1.8p52;
  static constexpr double lowest = -746, highest = 710, lowest_normal = -709;
  static constexpr int mantissa_bits = 52, exponent_bias = 1023, degree = 13, log1p_terms = 18;
};

// e^x - 1 = (1 + m) 2^n - 1, with n the nearest integer to x / ln 2 and m = e^r - 1 on the rest r,
// |r| <= ln(2) / 2, by the Taylor series: the first term left out is below a tenth of an ulp. Its
// terms are added up in pairs, so that fewer of them wait for one another.
template <Simd V>
struct ExpParts {
  using T = Element<V>;
  using C = ExpConstants<T>;
  using I = decltype(V{} < V{});  // signed integers of the same width
  V m;
  I n;

  TORCHNN_FN explicit ExpParts(V x) {  // lowest <= x <= highest, or NaN
    constexpr T log2_e = T(1.4426950408889634074);
    V rounded = x * log2_e + C::round;
    n = (I)rounded - (I)(V{} + C::round);
    rounded -= C::round;
    V r = (x - rounded * C::ln2_high) - rounded * C::ln2_low;
    static_assert(C::degree % 2 == 1);
    const V square = r * r;
    V series = pair(r, C::degree - 1);
#pragma GCC unroll 16
    for (int k = C::degree - 3; k >= 2; k -= 2) series = series * square + pair(r, k);
    m = series * square + r;
  }

  // Terms k and k + 1, over r^k.
  static TORCHNN_FN V pair(V r, int k) { return r * terms.of[k + 1] + terms.of[k]; }

  struct Terms {
    T of[C::degree + 1];  // 1 / k!
    constexpr Terms() : of{1} {
      T factorial = 1;
      for (int k = 1; k <= C::degree; ++k) of[k] = 1 / (factorial *= T(k));
    }
  };
  static constexpr Terms terms{};

  static TORCHNN_FN V power_of_two(I n) { return (V)((n + C::exponent_bias) << C::mantissa_bits); }
};

template <Simd V>
TORCHNN_FN V exp(V x) {
  using C = ExpConstants<Element<V>>;
  x = x < C::lowest ? V{} + C::lowest : x;  // comparisons, not min and max: NaN stays NaN
  x = x > C::highest ? V{} + C::highest : x;
  ExpParts<V> e(x);
  auto half = e.n >> 1;  // two factors, since 2^n alone over- or underflows at the ends
  return (1 + e.m) * e.power_of_two(half) * e.power_of_two(e.n - half);
}

// For x <= 0, where 2^n does not overflow. Where 2^n is no normal number, e^x is taken for 0.
template <Simd V>
TORCHNN_FN V exp_nonpositive(V x) {
  using C = ExpConstants<Element<V>>;
  ExpParts<V> e(x < C::lowest_normal ? V{} + C::lowest_normal : x);  // not max: NaN stays NaN
  return (1 + e.m) * e.power_of_two(e.n);
}

// For x <= 0, where 2^n does not matter once it is below the last bit of 1.
template <Simd V>
TORCHNN_FN V expm1_nonpositive(V x) {
  x = x < -40 ? V{} - 40 : x;
  ExpParts<V> e(x);
  V scale = e.power_of_two(e.n);
  return scale * e.m + (scale - 1);
}

// log(1 + t) for t in [0, 1], as 2 atanh(s) with s = t / (2 + t) <= 1/3, by its series: each term
// is at most a ninth of the one before.
template <Simd V>
TORCHNN_FN V log1p_fraction(V t) {
  using T = Element<V>;
  constexpr int terms = ExpConstants<T>::log1p_terms;
  const V s = t / (2 + t), square = s * s;
  V series = V{} + T(1) / (2 * terms - 1);
#pragma GCC unroll 20
  for (int k = terms - 1; k >= 1; --k) series = series * square + T(1) / (2 * k - 1);
  return 2 * s * series;
}

// log x for x >= 1, as n ln(2) + log m with x = m 2^n and m in [1, 2).
template <Simd V>
TORCHNN_FN V log_from_one(V x) {
  using T = Element<V>;
  using C = ExpConstants<T>;
  using I = decltype(V{} < V{});  // signed integers of the same width
  constexpr auto one = typename C::Integer(1) << C::mantissa_bits;  // in the exponent
  const I n = ((I)x >> C::mantissa_bits) - C::exponent_bias;
  const V m = (V)(((I)x & (one - 1)) | (one * C::exponent_bias));
  const V log = __builtin_convertvector(n, V) * T(0.69314718055994530942) + log1p_fraction(m - 1);
  return x < std::numeric_limits<T>::infinity() ? log : x;  // and NaN stays NaN
}

// log x for normal numbers; that of 0 is -infinity, and of what is below, NaN.
template <Simd V>
TORCHNN_FN V log(V x) {
  constexpr Element<V> infinity = std::numeric_limits<Element<V>>::infinity();
  const V log = log_from_one(x);
  return x <= 0 ? (x < 0 ? V{} + std::numeric_limits<Element<V>>::quiet_NaN() : V{} - infinity)
                : log;
}

// e^(u^2) erfc(u) / 2 for u >= 0 as a polynomial in s = 2 / (1 + 0.4 u) - 1, which goes from 1 to
// -1: its expansion in Chebyshev polynomials, by powers of s.
template <class T>
inline constexpr double tail_powers[] = {
    0.105403181144729068,     0.185868298985249865,     0.125856661754189093,
    0.0625179087081907871,    0.0199604863401609424,    0.00198891329031143199,
    -0.00131768524520799862,  -0.000419049582543610041, 0.000106905512296083783,
    0.0000439343324416431931, -9.55029903972327639e-6};
template <>
inline constexpr double tail_powers<double>[] = {
    0.105403182030571721,    0.185868366974521139,      0.125856596608740594,
    0.0625165261868497748,   0.0199612695371936185,     0.00199685063934303242,
    -0.00132118297371473741, -0.000437958296738205687,  0.000114190135239526475,
    0.000064441792438492341, -0.0000170910084606193198, -9.31815363483324001e-6,
    3.77707968388886535e-6,  1.17261568520400909e-6,    -9.0799544536187864e-7,
    -7.0157076066001438e-8,  1.95616367624351858e-7,    -1.52886819050282865e-8,
    -3.18701988926218917e-8, 3.68729479487639414e-9,    2.8400227302653914e-9};

// The probability that a standard normal number is below x.
template <Simd V>
TORCHNN_FN V normal_cdf(V x) {
  using T = Element<V>;
  constexpr int powers = sizeof(tail_powers<T>) / sizeof(double);
  constexpr T slope = T(0.4 * 0.70710678118654752440);
  const V s = 2 / (1 + slope * abs(x)) - 1;
  V series = V{} + T(tail_powers<T>[powers - 1]);
#pragma GCC unroll 24
  for (int k = powers - 2; k >= 0; --k) series = series * s + T(tail_powers<T>[k]);
  const V tail = series * exp_nonpositive(T(-0.5) * x * x);
  return x < 0 ? tail : 1 - tail;
}

#endif  // !__CUDACC__

TORCHNN_FN float log1p_fraction(float t) { return ::log1pf(t); }
TORCHNN_FN double log1p_fraction(double t) { return ::log1p(t); }
TORCHNN_FN float log_from_one(float x) { return ::logf(x); }
TORCHNN_FN double log_from_one(double x) { return ::log(x); }
TORCHNN_FN float normal_cdf(float x) { return 0.5f * ::erfcf(-0.70710678f * x); }
TORCHNN_FN double normal_cdf(double x) { return 0.5 * ::erfc(-0.70710678118654752440 * x); }
TORCHNN_FN float exp_nonpositive(float x) { return ::expf(x); }
TORCHNN_FN double exp_nonpositive(double x) { return ::exp(x); }
TORCHNN_FN float expm1_nonpositive(float x) { return ::expm1f(x); }
TORCHNN_FN double expm1_nonpositive(double x) { return ::expm1(x); }

}  // namespace torchnn
