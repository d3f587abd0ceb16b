// Storing rows, rotating heads, and what the machine can do at best.
#pragma once
#include "row_kernels.h"

namespace kvasir {
namespace KVASIR_ISA {

static void store_rows(const StoreArgs& args, char* workspace) {
  float* rotated = (float*)workspace;
  for (int k = 0; k < args.num_kv_heads; k++) {
    for (int64_t n = k * args.stride; n < k * args.stride + args.counts[k]; n++) {
      const int64_t token = args.tokens[n];
      const float* from = args.source + (token * args.num_kv_heads + k) * args.head_dim;
      if (args.rotation.cos || args.is_transformed) {
        __builtin_memcpy(rotated, from, (size_t)args.head_dim * 4);
        if (args.rotation.cos) rotate_head(rotated, args.rotation, token, 1.0f);
        if (args.is_transformed) hadamard(rotated, args.head_dim);
        from = rotated;
      }
      char* to = args.target + k * args.head_stride + args.slots[n] * args.row_stride;
      narrow_any(to, from, args.head_dim, args.storage);
    }
  }
}

static void turn_rows(const TurnArgs& args, int64_t from, int64_t to, char* workspace) {
  float* row = (float*)workspace;
  const int64_t bytes = row_bytes(args.storage, args.head_dim);
  const auto widen = kRowKernels[(int)args.storage].widen;
  for (int64_t n = from; n < to; n++) {
    const int64_t at = args.rows[n] * bytes;
    widen(row, args.source + at, args.head_dim);
    if (args.is_transformed) hadamard(row, args.head_dim);  // its own inverse
    rotate_head(row, args.rotation, args.turns[n], 1.0f);
    if (args.is_transformed) hadamard(row, args.head_dim);
    narrow_any(args.target + at, row, args.head_dim, args.storage);
  }
}

static void rotate(const RotateArgs& args) {
  for (int64_t t = 0; t < args.num_tokens; t++) {
    for (int h = 0; h < args.num_heads; h++) {
      float* head = args.vectors + (t * args.num_heads + h) * args.head_dim;
      rotate_head(head, args.rotation, t, args.is_inverse ? -1.0f : 1.0f);
    }
  }
}

static float read_all(const float* data, int64_t count) {
  F sum[8];
  for (int i = 0; i < 8; i++) sum[i] = zero();
  for (int64_t at = 0; at + 8 * kLanes <= count; at += 8 * kLanes) {
    for (int i = 0; i < 8; i++) sum[i] = add(sum[i], load(data + at + i * kLanes));
  }
  for (int i = 1; i < 8; i++) sum[0] = add(sum[0], sum[i]);
  return reduce_add(sum[0]);
}

// Enough independent chains to hide the latency of a fused multiply-add on two ports.
static float multiply_add(int64_t iterations, double* flops) {
  constexpr int kChains = 12;
  F sum[kChains];
  for (int i = 0; i < kChains; i++) sum[i] = broadcast(1.0f + (float)i);
  F factor = broadcast(0.999f), term = broadcast(0.001f);
  for (int64_t n = 0; n < iterations; n++) {
    for (int i = 0; i < kChains; i++) sum[i] = fma(sum[i], factor, term);
  }
  for (int i = 1; i < kChains; i++) sum[0] = add(sum[0], sum[i]);
  *flops = 2.0 * (double)iterations * kChains * kLanes;
  return reduce_add(sum[0]);
}

static float dot_products(int64_t iterations) {
  constexpr int kChains = 12;
  F sum[kChains];
  for (int i = 0; i < kChains; i++) sum[i] = zero();
  const F factor = broadcast(0.999f);
  for (int64_t n = 0; n < iterations; n++) {
    for (int i = 0; i < kChains; i++) {
#if defined(KVASIR_BF16_DOT)
      sum[i] = _mm512_dpbf16_ps(sum[i], (__m512bh)factor, (__m512bh)factor);
#else
      sum[i] = fma(sum[i], factor, factor);
#endif
    }
  }
  for (int i = 1; i < kChains; i++) sum[0] = add(sum[0], sum[i]);
  return reduce_add(sum[0]);
}

}  // namespace KVASIR_ISA
}  // namespace kvasir
