// Attention of one query token: the G query heads of a KV head in one pass over its rows, split over rows
// (flash-decoding), online softmax over blocks of 64 rows. Bound by memory up to G = 4; nothing is written per row.
#pragma once
#include "rows.h"

namespace kvasir {
namespace KVASIR_ISA {

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

// Asks for a row before it is needed, so that memory works while the previous block is computed.
template <typename X>
static inline void prefetch_row(const X* row, int dim) {
  for (int64_t at = 0; at < dim * (int64_t)sizeof(X); at += 64) __builtin_prefetch((const char*)row + at, 0, 2);
}

// sum[g, i] = lanes of q[g] . k[i] for kGroup query heads and kRows rows.
template <typename X, int kGroup, int kRows>
static inline void multiply_rows(const X* const* keys, const float* q, int head_dim, F* sum, int row_stride) {
  const int q_stride = padded(head_dim), whole = head_dim / kLanes * kLanes;
  F part[kGroup][kRows];
  for (int g = 0; g < kGroup; g++) {
    for (int i = 0; i < kRows; i++) part[g][i] = zero();
  }
  for (int d = 0; d < whole; d += kLanes) {
    for (int i = 0; i < kRows; i++) {
      const F k = load(keys[i] + d);
      for (int g = 0; g < kGroup; g++) part[g][i] = fma(k, load(q + g * q_stride + d), part[g][i]);
    }
  }
  if (whole < head_dim) {
    for (int i = 0; i < kRows; i++) {
      const F k = load_part(keys[i] + whole, head_dim - whole);
      for (int g = 0; g < kGroup; g++) part[g][i] = fma(k, load(q + g * q_stride + whole), part[g][i]);
    }
  }
  for (int g = 0; g < kGroup; g++) {
    for (int i = 0; i < kRows; i++) sum[g * row_stride + i] = part[g][i];
  }
}

// scores[g, j] = q[g] . k[j] + bias[j] for kGroup query heads. Rows are read nearly in the order of memory, four at a
// time, for the sake of the prefetcher; sums across lanes are made for kAccumulators dot products at once.
template <typename X, int kGroup>
static void score_rows(const VisibleRows<X, kBlockRows>& rows, const float* q, int head_dim, int value_dim, bool ahead,
                       float* scores) {
  constexpr int kRows = kAccumulators / kGroup, kAtOnce = kRows < 4 ? kRows : 4;
  for (int j = 0; j < rows.count; j += kRows) {
    const X* key[kRows];
    for (int i = 0; i < kRows; i++) key[i] = rows.keys[j + i < rows.count ? j + i : rows.count - 1];
    F sum[kAccumulators];
    if (ahead) {
      for (int i = 0; i < kRows && j + i < rows.count; i++) prefetch_row(rows.values[j + i], value_dim);
    }
    for (int i = 0; i < kRows; i += kAtOnce) multiply_rows<X, kGroup, kAtOnce>(key + i, q, head_dim, sum + i, kRows);
    float total[kAccumulators];
    for (int a = 0; a < kAccumulators; a += kLanes) store(total + a, reduce_each(sum + a));
    const int valid = rows.count - j < kRows ? rows.count - j : kRows;
    for (int g = 0; g < kGroup; g++) {
      for (int i = 0; i < valid; i++) scores[g * kBlockRows + j + i] = total[g * kRows + i] + rows.bias[j + i];
    }
  }
}

// Scores of one head to weights, in place; brings the running maximum and sum up to date and rescales what was summed.
static void soften(float* scores, int count, float* max_, float* sum_, float* out, int out_vectors) {
  const int whole = (count + kLanes - 1) / kLanes * kLanes;
  for (int j = count; j < whole; j++) scores[j] = -__builtin_inff();
  F top = broadcast(*max_);
  for (int j = 0; j < whole; j += kLanes) top = max(top, load(scores + j));
  const float highest = reduce_max(top);
  if (highest == -__builtin_inff()) {
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
template <typename X, int kGroup, int kVectors>
static void add_values(const VisibleRows<X, kBlockRows>& rows, const float* weights, float* out, int out_stride, int e,
                       int part, int64_t next_key, int head_dim) {
  F sum[kGroup * kVectors];
  for (int g = 0; g < kGroup; g++) {
    for (int n = 0; n < kVectors; n++) sum[g * kVectors + n] = load(out + g * out_stride + e + n * kLanes);
  }
  for (int j = 0; j < rows.count; j++) {
    if (next_key && e == 0) prefetch_row(rows.keys[j] + next_key, head_dim);
    F v[kVectors];
    for (int n = 0; n < kVectors; n++) {
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

template <typename X, int kGroup>
static void add_all_values(const VisibleRows<X, kBlockRows>& rows, const float* weights, float* out, int value_dim, int64_t next_key, int head_dim) {
  constexpr int kMost = kAccumulators / kGroup > 8 ? 8 : kAccumulators / kGroup;
  const int stride = padded(value_dim), whole = value_dim / kLanes * kLanes;
  int e = 0;
  for (; e + kMost * kLanes <= whole; e += kMost * kLanes) {
    add_values<X, kGroup, kMost>(rows, weights, out, stride, e, 0, next_key, head_dim);
  }
  if constexpr (kMost > 2) {
    for (; e + 2 * kLanes <= whole; e += 2 * kLanes) add_values<X, kGroup, 2>(rows, weights, out, stride, e, 0, next_key, head_dim);
  }
  for (; e < whole; e += kLanes) add_values<X, kGroup, 1>(rows, weights, out, stride, e, 0, next_key, head_dim);
  if (whole < value_dim) add_values<X, kGroup, 1>(rows, weights, out, stride, whole, value_dim - whole, next_key, head_dim);
}

template <typename X, int kGroup>
static void attend_block(const VisibleRows<X, kBlockRows>& rows, const float* q, int head_dim, int value_dim,
                         bool ahead, int64_t next_key, float* scores, Partial state) {
  score_rows<X, kGroup>(rows, q, head_dim, value_dim, ahead, scores);
  const int out_stride = padded(value_dim);
  for (int g = 0; g < kGroup; g++) {
    soften(scores + g * kBlockRows, rows.count, state.max + g, state.sum + g, state.out + g * out_stride,
           vectors_of(value_dim));
  }
  add_all_values<X, kGroup>(rows, scores, state.out, value_dim, ahead ? next_key : 0, head_dim);
}

// All G query heads of a block of rows, four, two and one at a time; the rows come from cache after the first.
template <typename X>
static void attend_group(const VisibleRows<X, kBlockRows>& rows, const float* q, int group, const AttendArgs& args,
                         int64_t key_stride, float* scores, Partial state) {
  const int q_stride = padded(args.head_dim), out_stride = padded(args.value_dim);
  for (int g = 0; g < group;) {
    const Partial part = {state.max + g, state.sum + g, state.out + g * out_stride};
    const float* query = q + g * q_stride;
    if (group - g >= 4) {
      attend_block<X, 4>(rows, query, args.head_dim, args.value_dim, g == 0, key_stride * kBlockRows, scores, part);
      g += 4;
    } else if (group - g >= 2) {
      attend_block<X, 2>(rows, query, args.head_dim, args.value_dim, g == 0, key_stride * kBlockRows, scores, part);
      g += 2;
    } else {
      attend_block<X, 1>(rows, query, args.head_dim, args.value_dim, g == 0, key_stride * kBlockRows, scores, part);
      g += 1;
    }
  }
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
      q[g * q_stride + d] = d < args.head_dim ? query[g * args.head_dim + d] * args.scale : 0.0f;
    }
  }
  const Partial state = Partial::at(partials, number, group, args.value_dim);
  for (int g = 0; g < group; g++) {
    state.max[g] = -__builtin_inff();
    state.sum[g] = 0.0f;
  }
  for (int64_t e = 0; e < (int64_t)group * padded(args.value_dim); e++) state.out[e] = 0.0f;

  const int32_t position = args.first_position + task.token;
  VisibleRows<X, kBlockRows> rows;
  int64_t start = 0;  // of the segment, among the head's rows
  for (int s = 0; s < args.num_segments; s++) {
    const Segment& segment = args.segments[s];
    const int64_t length = segment.lengths[task.head];
    const int64_t end = min64(length, task.end - start);
    for (int64_t j = max64(0, task.begin - start); j < end; j += kBlockRows) {
      rows.clear();
      rows.gather(segment, task.head, j, min64(end, j + kBlockRows), position, position);
      if (rows.count) attend_group(rows, q, group, args, segment.key_row_stride, scores, state);
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
        // NaN must win here, or it would be lost.
        highest = top <= highest ? highest : top;
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
