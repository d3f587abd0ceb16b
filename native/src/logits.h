// What stands between q . k and the softmax, but for bias and lifetimes: soft cap, ALiBi, masks. And what goes into a
// call's first step and out of its last.
#pragma once
#include "rows.h"

namespace kvasir {
namespace KVASIR_ISA {

// Query `head` of `token` as f32, turned and transformed. Writes whole vectors.
static void load_query(const AttendArgs& args, int64_t token, int head, float* q) {
  const int64_t at = (token * args.num_heads + head) * args.head_dim;
  widen_any(q, at_element(args.query, args.query_storage, at), args.head_dim, args.query_storage);
  if (args.rotation.cos) rotate_head(q, args.rotation, token, 1.0f);
  if (args.is_transformed) hadamard(q, args.head_dim);
}

// Transforms the values back, in place.
static void store_output(const AttendArgs& args, int64_t row, float* values) {
  if (args.is_transformed) hadamard(values, args.value_dim);
  char* to = (char*)at_element(args.output, args.query_storage, row * args.value_dim);
  narrow_any(to, values, args.value_dim, args.query_storage);
}

// The learned sink of a head takes part in the softmax as a row whose value is zero: brings the maximum and the sum of
// a head up to date and returns what its weighted sum has to be multiplied by.
static float add_sink(const AttendArgs& args, int head, float* max_, float* sum) {
  if (!args.sink_logits) return 1.0f;
  const float sink = args.sink_logits[head];
  const float highest = sink > *max_ || sink != sink ? sink : *max_;
  if (highest == -__builtin_inff()) return 1.0f;
  float of_rows[kLanes], of_sink[kLanes];
  store(of_rows, exp_nonpositive(broadcast(*max_ - highest)));
  store(of_sink, exp_nonpositive(broadcast(sink - highest)));
  *sum = *sum * of_rows[0] + of_sink[0];
  *max_ = highest;
  return of_rows[0];
}

static inline F soft_capped(F score, float cap) {
  return mul(broadcast(cap), tanh_of(divide(score, broadcast(cap))));
}

static inline float distance(int32_t a, int32_t b) {
  const int64_t difference = (int64_t)a - b;
  return (float)(difference < 0 ? -difference : difference);
}

// What a mask adds to one logit: -infinity hides it.
static inline float mask_at(const LogitMask& mask, int64_t head, int64_t token, int64_t entry) {
  const int64_t at = head * mask.head_stride + token * mask.token_stride + entry;
  if (mask.is_bytes) return ((const uint8_t*)mask.values)[at] ? 0.0f : -__builtin_inff();
  return ((const float*)mask.values)[at];
}

// A hidden logit is -infinity whatever K holds there, NaN included.
static inline float masked(float score, float mask) { return mask == -__builtin_inff() ? mask : score + mask; }

static inline bool shapes_logits(const AttendArgs& args, const LogitMask* mask) {
  return args.softcap > 0 || args.alibi_slopes || mask;
}

}  // namespace KVASIR_ISA
}  // namespace kvasir
