// Storing rows, rotating heads, and what the machine can do at best.
#pragma once
#include "math.h"

namespace kvasir {
namespace KVASIR_ISA {

static inline void store_row(float* to, const float* from, int dim) { __builtin_memcpy(to, from, (size_t)dim * 4); }
static inline void store_row(uint16_t* to, const float* from, int dim) {
  const int whole = dim / kLanes * kLanes;
  for (int d = 0; d < whole; d += kLanes) store_half(to + d, load(from + d));
  if (whole == dim) return;
  uint16_t last[kLanes];
  store_half(last, load_part(from + whole, dim - whole));
  for (int d = whole; d < dim; d++) to[d] = last[d - whole];
}

template <typename X>
static void store_rows(const StoreArgs& args) {
  for (int k = 0; k < args.num_kv_heads; k++) {
    for (int64_t n = k * args.stride; n < k * args.stride + args.counts[k]; n++) {
      const float* from = args.source + ((int64_t)args.tokens[n] * args.num_kv_heads + k) * args.head_dim;
      store_row((X*)args.target + (k * args.capacity + args.slots[n]) * args.head_dim, from, args.head_dim);
    }
  }
}

static void store_any(const StoreArgs& args) {
  args.storage == Storage::f16 ? store_rows<uint16_t>(args) : store_rows<float>(args);
}

static void rotate(const RotateArgs& args) {
  const int pairs = args.rotary_pairs;
  for (int t = 0; t < args.num_tokens; t++) {
    const float *cos = args.cos + (int64_t)t * pairs, *sin = args.sin + (int64_t)t * pairs;
    for (int h = 0; h < args.num_heads; h++) {
      float* a = args.vectors + ((int64_t)t * args.num_heads + h) * args.head_dim;
      float* b = a + pairs;
      int i = 0;
      for (; i + kLanes <= pairs; i += kLanes) {
        const F x = load(a + i), y = load(b + i), c = load(cos + i), s = load(sin + i);
        store(a + i, sub(mul(x, c), mul(y, s)));
        store(b + i, add(mul(y, c), mul(x, s)));
      }
      for (; i < pairs; i++) {
        const float x = a[i], y = b[i];
        a[i] = x * cos[i] - y * sin[i];
        b[i] = y * cos[i] + x * sin[i];
      }
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

}  // namespace KVASIR_ISA
}  // namespace kvasir
