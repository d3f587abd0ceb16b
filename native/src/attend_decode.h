// Attention of one query token: the G query heads of a KV head in one pass over its rows, split over rows
// (flash-decoding), online softmax over blocks of 32 rows. Bound by memory up to G = 4; nothing is written per row.
#pragma once
#include "rows.h"

namespace kvasir {
namespace KVASIR_ISA {

template <typename X>
using DecodeRows = VisibleRows<X, kBlockRows, false>;

template <int kValue>
struct Constant {
  static constexpr int value = kValue;
};

// The running softmax of G query heads, and where it lies in a block of partials.
struct Partial {
  float* max;  // [G]
  float* sum;  // [G]
  float* out;  // [G, padded E]: weighted sum, not yet divided

  static int64_t floats(int group, int value_dim) { return (int64_t)group * (2 + padded(value_dim)); }
  static Partial at(char* base, int64_t index, int group, int value_dim) {
    float* p = (float*)base + index * floats(group, value_dim);
    return {p, p + group, p + 2 * group};
  }
};

// Asks for what one vector of a row will need, once for each cache line, so that memory works while the block before is
// computed: values while keys are multiplied, the keys of the next block while values are summed.
template <typename X>
static inline void prefetch_vector(const X* at, int vector) {
  if (vector * kLanes * sizeof(X) % 64 < kLanes * sizeof(X)) __builtin_prefetch(at + vector * kLanes, 0, 2);
}

// sum[g, i] = lanes of q[g] . k[i] for kGroup query heads and kRows rows; `ahead`: rows of V to ask for, or null.
template <typename X, int kGroup, int kRows, bool kAhead>
static inline void multiply_rows(const X* const* keys, const X* const* ahead, const float* q, int head_dim, F* sum,
                                 int row_stride) {
  const int q_stride = padded(head_dim), whole = head_dim / kLanes;
  F part[kGroup][kRows];
  for (int g = 0; g < kGroup; g++) {
    for (int i = 0; i < kRows; i++) part[g][i] = zero();
  }
  for (int n = 0; n < whole; n++) {
    for (int i = 0; i < kRows; i++) {
      if (kAhead) prefetch_vector(ahead[i], n);
      const F k = load(keys[i] + n * kLanes);
      for (int g = 0; g < kGroup; g++) part[g][i] = fma(k, load(q + g * q_stride + n * kLanes), part[g][i]);
    }
  }
  if (whole * kLanes < head_dim) {
    for (int i = 0; i < kRows; i++) {
      const F k = load_part(keys[i] + whole * kLanes, head_dim - whole * kLanes);
      for (int g = 0; g < kGroup; g++) part[g][i] = fma(k, load(q + g * q_stride + whole * kLanes), part[g][i]);
    }
  }
  for (int g = 0; g < kGroup; g++) {
    for (int i = 0; i < kRows; i++) sum[g * row_stride + i] = part[g][i];
  }
}

// scores[g, j] = q[g] . k[j] for kGroup query heads. Rows are read nearly in the order of memory, four at a time, for
// the sake of the prefetcher; sums across lanes are made for kAccumulators dot products at once.
template <typename X, int kGroup, bool kAhead>
static void score_rows(const DecodeRows<X>& rows, const float* q, int head_dim, float* scores) {
  constexpr int kRows = kAccumulators / kGroup, kAtOnce = kRows < 4 ? kRows : 4;
  static_assert(kBlockRows % kRows == 0, "the last group must not write past the block");
  for (int j = 0; j < rows.count; j += kRows) {
    const X *key[kRows], *value[kRows];
    for (int i = 0; i < kRows; i++) {
      const int row = j + i < rows.count ? j + i : rows.count - 1;
      key[i] = rows.keys[row];
      value[i] = rows.values[row];
    }
    F sum[kAccumulators];
    for (int i = 0; i < kRows; i += kAtOnce) {
      multiply_rows<X, kGroup, kAtOnce, kAhead>(key + i, value + i, q, head_dim, sum + i, kRows);
    }
    float total[kAccumulators];
    for (int at = 0; at < kAccumulators; at += kLanes) store(total + at, reduce_each(sum + at));
    for (int g = 0; g < kGroup; g++) __builtin_memcpy(scores + g * kBlockRows + j, total + g * kRows, kRows * 4);
  }
}

// Scores of one head to weights, in place; brings the running maximum and sum up to date and rescales what was summed.
static void soften(float* scores, const float* bias, int count, float* max_, float* sum_, float* out, int out_vectors) {
  const int whole = (count + kLanes - 1) / kLanes * kLanes;
  F top = broadcast(*max_);
  for (int j = 0; j < whole; j += kLanes) {
    F score = add(load(scores + j), load(bias + j));
    if (j + kLanes > count) {
      float last[kLanes];
      store(last, score);
      for (int i = count - j; i < kLanes; i++) last[i] = -__builtin_inff();
      score = load(last);
    }
    store(scores + j, score);
    top = max(top, score);
  }
  const float highest = reduce_max(top);
  if (highest == -__builtin_inff()) {
    // Nothing to see so far, unless a NaN hides behind the maximum: that has to reach the output.
    for (int j = 0; j < count; j++) *max_ = scores[j] == scores[j] ? *max_ : scores[j];
    for (int j = 0; j < whole; j += kLanes) store(scores + j, zero());
    return;
  }
  if (highest != *max_) {
    float shrink[kLanes];
    store(shrink, exp_nonpositive(broadcast(*max_ - highest)));
    *sum_ *= shrink[0];
    for (int e = 0; e < out_vectors; e++) store(out + e * kLanes, mul(load(out + e * kLanes), broadcast(shrink[0])));
    *max_ = highest;
  }
  F total = zero();
  for (int j = 0; j < whole; j += kLanes) {
    const F weight = exp_nonpositive(sub(load(scores + j), broadcast(highest)));
    total = add(total, weight);
    store(scores + j, weight);
  }
  *sum_ += reduce_add(total);
}

// out[g, e ...] += sum_j weights[g, j] v[j, e ...] for kVectors vectors from element e on; `part` > 0: a partial one.
// The same elements of the keys `next_block` elements further on are asked for.
template <typename X, int kGroup, int kVectors, bool kAhead>
static void add_values(const DecodeRows<X>& rows, const float* weights, float* out, int out_stride, int e, int part,
                       int64_t next_block) {
  F sum[kGroup * kVectors];
  for (int g = 0; g < kGroup; g++) {
    for (int n = 0; n < kVectors; n++) sum[g * kVectors + n] = load(out + g * out_stride + e + n * kLanes);
  }
  for (int j = 0; j < rows.count; j++) {
    F v[kVectors];
    for (int n = 0; n < kVectors; n++) {
      if (kAhead) prefetch_vector(rows.keys[j] + next_block + e, n);
      v[n] = part ? load_part(rows.values[j] + e, part) : load(rows.values[j] + e + n * kLanes);
    }
    for (int g = 0; g < kGroup; g++) {
      const F weight = broadcast(weights[g * kBlockRows + j]);
      for (int n = 0; n < kVectors; n++) sum[g * kVectors + n] = fma(weight, v[n], sum[g * kVectors + n]);
    }
  }
  for (int g = 0; g < kGroup; g++) {
    for (int n = 0; n < kVectors; n++) store(out + g * out_stride + e + n * kLanes, sum[g * kVectors + n]);
  }
}

template <typename X, int kGroup, bool kAhead>
static void add_all_values(const DecodeRows<X>& rows, const float* weights, float* out, int value_dim,
                           int64_t next_block) {
  constexpr int kMost = kAccumulators / kGroup > 8 ? 8 : kAccumulators / kGroup;
  const int stride = padded(value_dim), whole = value_dim / kLanes * kLanes;
  int e = 0;
  for (; e + kMost * kLanes <= whole; e += kMost * kLanes) {
    add_values<X, kGroup, kMost, kAhead>(rows, weights, out, stride, e, 0, next_block);
  }
  if constexpr (kMost > 4) {
    for (; e + 4 * kLanes <= whole; e += 4 * kLanes) {
      add_values<X, kGroup, 4, kAhead>(rows, weights, out, stride, e, 0, next_block);
    }
  }
  for (; e < whole; e += kLanes) add_values<X, kGroup, 1, kAhead>(rows, weights, out, stride, e, 0, next_block);
  if (whole < value_dim) add_values<X, kGroup, 1, false>(rows, weights, out, stride, whole, value_dim - whole, 0);
}

// One block for kGroup query heads. kAhead: this is the first group to read the block, so it asks for what comes next.
template <typename X, int kGroup, bool kAhead>
static void attend_block(const DecodeRows<X>& rows, const float* q, const AttendArgs& args, float* scores,
                         int64_t next_block, Partial state) {
  score_rows<X, kGroup, kAhead>(rows, q, args.head_dim, scores);
  const int out_stride = padded(args.value_dim);
  for (int g = 0; g < kGroup; g++) {
    soften(scores + g * kBlockRows, rows.bias, rows.count, state.max + g, state.sum + g, state.out + g * out_stride,
           vectors_of(args.value_dim));
  }
  add_all_values<X, kGroup, kAhead>(rows, scores, state.out, args.value_dim, next_block);
}

// All G query heads of a block of rows, four, two and one at a time; the rows come from cache after the first.
template <typename X>
static void attend_group(const DecodeRows<X>& rows, const float* q, int group, const AttendArgs& args, float* scores,
                         int64_t next_block, Partial state) {
  const int q_stride = padded(args.head_dim), out_stride = padded(args.value_dim);
  const auto attend = [&](auto count, int g) {
    constexpr int kGroup = decltype(count)::value;
    const Partial part = {state.max + g, state.sum + g, state.out + (int64_t)g * out_stride};
    if (g == 0) attend_block<X, kGroup, true>(rows, q, args, scores, next_block, part);
    else attend_block<X, kGroup, false>(rows, q + (int64_t)g * q_stride, args, scores, 0, part);
  };
  int g = 0;
  for (; group - g >= 4; g += 4) attend(Constant<4>(), g);
  for (; group - g >= 2; g += 2) attend(Constant<2>(), g);
  for (; group - g >= 1; g += 1) attend(Constant<1>(), g);
}

// Task number -> (token, KV head, split).
struct DecodeTask {
  int token, head;
  int64_t begin, end;  // of the head's rows, all segments end to end
  DecodeTask(const AttendArgs& args, const AttendPlan& plan, int task) {
    const int split = task % plan.num_splits;
    head = task / plan.num_splits % args.num_kv_heads;
    token = task / plan.num_splits / args.num_kv_heads;
    begin = split * plan.rows_per_split;
    end = begin + plan.rows_per_split;
  }
};

static inline int64_t decode_workspace(const AttendArgs& args, char* base, float** q, float** scores) {
  Arena arena{base};
  *q = arena.take<float>((int64_t)(args.num_heads / args.num_kv_heads) * padded(args.head_dim));
  *scores = arena.take<float>(4 * kBlockRows);
  return arena.used;
}

template <typename X>
static void decode_task(const AttendArgs& args, const AttendPlan& plan, int number, char* partials, char* workspace) {
  const DecodeTask task(args, plan, number);
  const int group = args.num_heads / args.num_kv_heads, q_stride = padded(args.head_dim);
  float *q, *scores;
  decode_workspace(args, workspace, &q, &scores);
  const float* query = args.query + ((int64_t)task.token * args.num_heads + task.head * group) * args.head_dim;
  for (int g = 0; g < group; g++) {
    for (int d = 0; d < q_stride; d++) {
      q[(int64_t)g * q_stride + d] = d < args.head_dim ? query[(int64_t)g * args.head_dim + d] * args.scale : 0.0f;
    }
  }
  const Partial state = Partial::at(partials, number, group, args.value_dim);
  for (int g = 0; g < group; g++) {
    state.max[g] = -__builtin_inff();
    state.sum[g] = 0.0f;
  }
  for (int64_t e = 0; e < (int64_t)group * padded(args.value_dim); e++) state.out[e] = 0.0f;

  const int32_t position = args.first_position + task.token;
  DecodeRows<X> rows;
  int64_t start = 0;  // of the segment, among the head's rows
  for (int s = 0; s < args.num_segments; s++) {
    const Segment& segment = args.segments[s];
    const int64_t length = segment.lengths[task.head];
    const int64_t end = min64(length, task.end - start);
    for (int64_t j = max64(0, task.begin - start); j < end; j += kBlockRows) {
      rows.clear();
      rows.gather(segment, task.head, j, min64(end, j + kBlockRows), position, position);
      if (rows.count) attend_group(rows, q, group, args, scores, kBlockRows * segment.key_row_stride, state);
    }
    start += length;
  }
}

// Weighs the splits of each head by their maxima and divides: partials to output and log-sum-exp.
static void decode_merge(const AttendArgs& args, const AttendPlan& plan, const char* partials) {
  const int group = args.num_heads / args.num_kv_heads, stride = padded(args.value_dim);
  for (int64_t head = 0; head < (int64_t)args.num_tokens * args.num_kv_heads; head++) {
    for (int g = 0; g < group; g++) {
      float highest = -__builtin_inff();
      for (int s = 0; s < plan.num_splits; s++) {
        const float top = Partial::at((char*)partials, head * plan.num_splits + s, group, args.value_dim).max[g];
        if (!(top <= highest) && highest == highest) highest = top;  // once NaN, it stays
      }
      float total = 0.0f;
      float* out = args.output + (head * group + g) * args.value_dim;
      for (int e = 0; e < args.value_dim; e++) out[e] = 0.0f;
      for (int s = 0; s < plan.num_splits; s++) {
        const Partial part = Partial::at((char*)partials, head * plan.num_splits + s, group, args.value_dim);
        if (part.max[g] == -__builtin_inff()) continue;
        float weight[kLanes];
        store(weight, exp_nonpositive(broadcast(part.max[g] - highest)));
        total += part.sum[g] * weight[0];
        for (int e = 0; e < args.value_dim; e++) out[e] += part.out[(int64_t)g * stride + e] * weight[0];
      }
      const bool empty = highest == -__builtin_inff();
      for (int e = 0; e < args.value_dim; e++) out[e] = empty ? 0.0f : out[e] / total;
      if (args.lse) args.lse[head * group + g] = empty ? highest : highest + __builtin_logf(total);
    }
  }
}

}  // namespace KVASIR_ISA
}  // namespace kvasir
