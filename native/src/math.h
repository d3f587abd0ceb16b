// What every instruction set derives from its few primitives.
#pragma once
#include "kvasir/kernels.h"

namespace kvasir {
namespace KVASIR_ISA {

// Below, powers of e and of 2 are smaller than the least normal f32: flushed to zero.
constexpr float kLowestExp = -87.33654f, kLowestExp2 = -126.0f;

// e^x for x <= 0, and 2^t for t <= 0, within 2 ulp; exactly 0 below the lowest and for -infinity; NaN stays NaN.
#if defined(__AVX512DQ__)

// What is left of t above its floor.
static inline F fraction(F t) { return _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }

// 2^floor(t) times 2^r, 0 <= r < 1, by a minimax polynomial of degree 6: the instructions that take off and put back whole
// exponents (the last takes the floor of t) make it shorter than the ways below. 0 where x < lowest.
static inline F power_of_two(F t, F r, F x, float lowest) {
  F p = broadcast(2.1612919875e-4f);
  p = fma(p, r, broadcast(1.2467845144e-3f));
  p = fma(p, r, broadcast(9.6754516938e-3f));
  p = fma(p, r, broadcast(5.5485280563e-2f));
  p = fma(p, r, broadcast(2.4022930556e-1f));
  p = fma(p, r, broadcast(6.9314704444e-1f));
  p = fma(p, r, broadcast(1.0f));
  return scale_or_zero(p, t, x, lowest);
}

// What rounding x log2(e) to t lost, and log2(e) to a float, is added to the fraction.
static inline F exp_nonpositive(F x) {
  const F log2e = broadcast(1.44269504088896341f), t = mul(x, log2e);
  const F lost = fma(x, broadcast(1.92596303e-8f), _mm512_fmsub_ps(x, log2e, t));
  return power_of_two(t, add(fraction(t), lost), x, kLowestExp);
}

static inline F exp2_nonpositive(F t) { return power_of_two(t, fraction(t), t, kLowestExp2); }

#else

// Cody-Waite reduction to |r| <= ln(2)/2, then the minimax polynomial of degree 5 of Cephes' expf.
static inline F exp_nonpositive(F x) {
  F clamped = max(broadcast(kLowestExp), x);  // second operand last: a NaN passes through
  F n = round_even(mul(clamped, broadcast(1.44269504088896341f)));
  F r = fma(n, broadcast(-0.693359375f), clamped);
  r = fma(n, broadcast(2.12194440e-4f), r);
  F p = broadcast(1.9875691500e-4f);
  p = fma(p, r, broadcast(1.3981999507e-3f));
  p = fma(p, r, broadcast(8.3334519073e-3f));
  p = fma(p, r, broadcast(4.1665795894e-2f));
  p = fma(p, r, broadcast(1.6666665459e-1f));
  p = fma(p, r, broadcast(5.0000001201e-1f));
  p = fma(mul(p, r), r, add(r, broadcast(1.0f)));
  return scale_or_zero(p, n, x, kLowestExp);
}

// A minimax polynomial of degree 6 over |r| <= 1/2.
static inline F exp2_nonpositive(F t) {
  const F clamped = max(broadcast(kLowestExp2), t), n = round_even(clamped), r = sub(clamped, n);
  F p = broadcast(1.5357461234e-4f);
  p = fma(p, r, broadcast(1.3398749288e-3f));
  p = fma(p, r, broadcast(9.6184220165e-3f));
  p = fma(p, r, broadcast(5.5503327399e-2f));
  p = fma(p, r, broadcast(2.4022647738e-1f));
  p = fma(p, r, broadcast(6.9314718246e-1f));
  p = fma(p, r, broadcast(1.0f));
  return scale_or_zero(p, n, t, kLowestExp2);
}

#endif

// tanh within 4 ulp or so: near zero, where the quotient of exponentials cancels, the odd polynomial of Cephes' tanhf.
static inline F tanh_of(F x) {
  const F size = magnitude(x), e = exp_nonpositive(mul(size, broadcast(-2.0f)));
  const F far = with_sign_of(divide(sub(broadcast(1.0f), e), add(broadcast(1.0f), e)), x);
  const F square = mul(x, x);
  F p = broadcast(-5.70498872745e-3f);
  p = fma(p, square, broadcast(2.06390887954e-2f));
  p = fma(p, square, broadcast(-5.37397155531e-2f));
  p = fma(p, square, broadcast(1.33314422036e-1f));
  p = fma(p, square, broadcast(-3.33332819422e-1f));
  return where_below(size, broadcast(0.625f), fma(mul(p, square), x, x), far);
}

static inline int vectors_of(int dim) { return (dim + kLanes - 1) / kLanes; }
// Elements that `dim` floats take when each row begins a new vector.
static inline int padded(int dim) { return vectors_of(dim) * kLanes; }
static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

// Hands out aligned pieces of a block; with a null base it only counts.
struct Arena {
  char* base;
  int64_t used = 0;
  template <typename X>
  X* take(int64_t count) {
    X* piece = (X*)(base + used);
    used += (count * (int64_t)sizeof(X) + 63) / 64 * 64;
    return piece;
  }
};

}  // namespace KVASIR_ISA
}  // namespace kvasir
