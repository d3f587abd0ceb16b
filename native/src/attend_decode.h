// Attention of one query token: the G query heads of a KV head in one pass over its rows, split over rows
// (flash-decoding), online softmax over blocks of rows.
#pragma once
#include "logits.h"
#include "packed_query.h"

namespace kvasir {
namespace KVASIR_ISA {

// The running softmax of G query heads, and where it lies in a block of partials. Heads that do nothing have a place too.
struct Partial {
  float* max;  // [places]
  float* sum;  // [places, lanes]: to be added up
  float* out;  // [places, padded E]: weighted sum, not yet divided

  static int64_t floats(int group, int value_dim) {
    return (int64_t)head_places(group) * (1 + kLanes + padded(value_dim));
  }
  static Partial at(char* base, int64_t index, int group, int value_dim) {
    float* p = (float*)base + index * floats(group, value_dim);
    const int places = head_places(group);
    return {p, p + places, p + (1 + kLanes) * places};
  }
};

// One task: G query heads of a token against a range of a KV head's rows.
struct Decode {
  const AttendArgs& args;
  int token, head, group;
  int64_t begin, end;  // of the head's entries, all segments end to end
  float* q;            // [places, padded D], turned and scaled; zeros from G on
  PackedQueries packed;
  float* scores;       // [kMostHeads, kBlockRows]
  float* row;          // [padded E]
  Partial state;

  Decode(const AttendArgs& args_, const AttendPlan& plan, int task, char* partials, char* workspace)
      : args(args_), group(args_.num_heads / args_.num_kv_heads) {
    const int split = task % plan.num_splits;
    head = task / plan.num_splits % args.num_kv_heads;
    token = task / plan.num_splits / args.num_kv_heads;
    begin = split * plan.rows_per_split;
    end = begin + plan.rows_per_split;
    place(args, workspace, this);
    state = Partial::at(partials, task, group, args.value_dim);
  }

  static int64_t place(const AttendArgs& args, char* base, Decode* decode) {
    Arena arena{base};
    const int group = args.num_heads / args.num_kv_heads;
    float* q = arena.take<float>((int64_t)head_places(group) * padded(args.head_dim));
    char* packed = arena.take<char>(PackedQueries::bytes(group, args.head_dim));
    float* scores = arena.take<float>(kMostHeads * kBlockRows);
    float* row = arena.take<float>(padded(args.value_dim));
    if (decode) {
      decode->q = q;
      decode->packed = PackedQueries::over(q, packed, group, args.head_dim);
      decode->scores = scores;
      decode->row = row;
    }
    return arena.used;
  }
};

// Soft cap, ALiBi and mask of the scores [count, kBlockRows] of query heads from `first` on. Returns whether a mask hid a row.
static bool shape_scores(const Decode& decode, const DecodeRows& rows, int first, int count) {
  const AttendArgs& args = decode.args;
  bool hides = false;
  for (int g = 0; g < count; g++) {
    float* scores = decode.scores + g * kBlockRows;
    const int head = decode.head * decode.group + first + g;
    if (args.softcap > 0) {
      for (int j = 0; j < kBlockRows; j += kLanes) store(scores + j, soft_capped(load(scores + j), args.softcap));
    }
    if (args.alibi_slopes) {
      const int32_t position = args.first_position + decode.token;
      for (int j = 0; j < rows.count; j++) scores[j] -= args.alibi_slopes[head] * distance(position, rows.positions[j]);
    }
    for (int j = 0; rows.mask && j < rows.count; j++) {
      const float mask = mask_at(*rows.mask, head, decode.token, rows.entries[j]);
      scores[j] = masked(scores[j], mask);
      hides = hides || mask == -__builtin_inff();
    }
  }
  return hides;
}

// The highest of the scores of a block, whose maxima by lane are `top`; NaN where there is one, which `top` may have lost.
static float highest_of(const float* scores, F top) {
  for (int j = 0; j < kBlockRows; j += kLanes) {
    if (any_above(load(scores + j), broadcast(__builtin_inff()))) return __builtin_nanf("");
  }
  float each[kLanes];
  store(each, top);
  float highest = each[0];
  for (int i = 1; i < kLanes; i++) highest = each[i] > highest ? each[i] : highest;
  return highest;
}

// Raises the maximum of a head to that of `scores` and rescales what was summed so far.
static void raise_max(const float* scores, F top, float* max_, float* sum, float* out, int out_vectors) {
  const float among = highest_of(scores, top);
  const float highest = *max_ != *max_ || among <= *max_ ? *max_ : among;  // once NaN, it stays
  if (highest == *max_) return;
  const F shrink = exp_nonpositive(broadcast(*max_ - highest));
  store(sum, mul(load(sum), shrink));
  for (int e = 0; e < out_vectors; e++) store(out + e * kLanes, mul(load(out + e * kLanes), shrink));
  *max_ = highest;
}

// Scores of one head to weights, in place; brings the running maximum and sum (a vector of partial sums) up to
// date. Only a new maximum needs more than comparing with the old one, and that is rare after the first blocks.
static inline void soften(float* scores, float* max_, float* sum, float* out, int out_vectors) {
  const F old = broadcast(*max_);
  F top = load(scores);
  for (int j = kLanes; j < kBlockRows; j += kLanes) top = max(top, load(scores + j));
  if (any_above(top, old) || !(*max_ > -__builtin_inff())) raise_max(scores, top, max_, sum, out, out_vectors);
  if (*max_ == -__builtin_inff()) {
    for (int j = 0; j < kBlockRows; j += kLanes) store(scores + j, zero());
    return;
  }
  const F reference = broadcast(*max_);
  F total = load(sum);
  for (int j = 0; j < kBlockRows; j += kLanes) {
    const F weight = exp_nonpositive(sub(load(scores + j), reference));
    total = add(total, weight);
    store(scores + j, weight);
  }
  store(sum, total);
}

// Bias, and -infinity past the last row.
static inline void finish_scores(const DecodeRows& rows, float* scores) {
  if (rows.has_bias) {
    for (int j = 0; j < rows.count; j++) scores[j] += rows.bias[j];
  }
  for (int j = rows.count; j < kBlockRows; j++) scores[j] = -__builtin_inff();
}

// The weighted sum where a mask hides rows from some heads only: what they hold must not meet a weight of 0, since it
// may be NaN.
static void add_seen_rows(const Decode& decode, const DecodeRows& rows, int count, float* out) {
  const int value_dim = decode.args.value_dim, stride = padded(value_dim);
  const RowKernels& kernels = kRowKernels[(int)rows.value_storage];
  for (int j = 0; j < rows.count; j++) {
    kernels.widen(decode.row, rows.values[j], value_dim);
    for (int g = 0; g < count; g++) {
      const float weight = decode.scores[g * kBlockRows + j];
      if (weight == 0.0f) continue;
      for (int e = 0; e < value_dim; e++) out[g * stride + e] += weight * decode.row[e];
    }
  }
}

// What a head's logits of the range of this task lie in.
static float* logits_of(const Decode& decode, int g) {
  const AttendArgs& args = decode.args;
  const int64_t head = (int64_t)decode.token * args.num_heads + decode.head * decode.group + g;
  return args.logits + head * args.segments[0].capacity;
}

// Until they are seen, rows have a logit of -infinity.
static void clear_logits(const Decode& decode) {
  const int64_t end = min64(decode.end, decode.args.segments[0].lengths[decode.head]);
  for (int g = 0; g < decode.group; g++) {
    for (int64_t j = decode.begin; j < end; j++) logits_of(decode, g)[j] = -__builtin_inff();
  }
}

// One block of rows for 2^log_count query heads from `first` on, the last of which may be idle. The first heads to read a
// block ask for what comes next: the block's values, then the keys of the next one.
static void attend_heads(Decode& decode, const DecodeRows& rows, const char* const* next_keys, int first,
                         int log_count) {
  const AttendArgs& args = decode.args;
  const int left = decode.group - first, count = left < 1 << log_count ? left : 1 << log_count;
  const int stride = padded(args.value_dim), asks = first == 0;
  float* out = decode.state.out + (int64_t)first * stride;
  const RowKernels &of_keys = kRowKernels[(int)rows.key_storage], &of_values = kRowKernels[(int)rows.value_storage];
  of_keys.score[log_count][asks](rows, decode.packed.from(first, log_count, rows.key_storage), args.head_dim, decode.scores);
  const bool hides = shapes_logits(args, rows.mask) && shape_scores(decode, rows, first, count);
  for (int g = 0; g < count; g++) {
    float* scores = decode.scores + g * kBlockRows;
    if (rows.has_bias || rows.count < kBlockRows) finish_scores(rows, scores);
    for (int j = 0; args.logits && j < rows.count; j++) logits_of(decode, first + g)[rows.entries[j]] = scores[j];
    soften(scores, decode.state.max + first + g, decode.state.sum + (first + g) * kLanes, out + g * stride,
           vectors_of(args.value_dim));
  }
  if (hides) add_seen_rows(decode, rows, count, out);
  else of_values.add[log_count][asks](rows, next_keys, decode.scores, out, args.value_dim);
}

// All G query heads, as many as go together at a time; after the first the rows come from cache.
static void attend_block(Decode& decode, const DecodeRows& rows, const DecodeRows& next) {
  const char* const* next_keys = next.count >= rows.count ? next.keys : rows.keys;
  for (int first = 0, log; first < decode.group; first += 1 << log) {
    log = log_heads(decode.group - first, rows.key_storage);
    attend_heads(decode, rows, next_keys, first, log);
  }
}

static void decode_task(const AttendArgs& args, const AttendPlan& plan, int number, char* partials, char* workspace) {
  const MatrixUnit unit(wants_registers(args));
  (void)unit;
  Decode decode(args, plan, number, partials, workspace);
  for (int g = 0; g < decode.group; g++) {
    float* q = decode.q + (int64_t)g * padded(args.head_dim);
    load_query(args, decode.token, decode.head * decode.group + g, q);
    for (int d = 0; d < args.head_dim; d++) q[d] *= args.scale;
    decode.state.max[g] = -__builtin_inff();
    store(decode.state.sum + g * kLanes, zero());
  }
  clear_idle_queries(decode.q, decode.group, args.head_dim);
  __builtin_memset(decode.state.out, 0, 4 * (int64_t)head_places(decode.group) * padded(args.value_dim));

  if (args.logits && args.num_segments > 0) clear_logits(decode);
  const int32_t position = args.first_position + decode.token;
  const Sight sight(args, position, position);
  DecodeRows blocks[2];
  int current = 0;
  int64_t start = 0;  // of the segment, among the head's entries
  for (int s = 0; s < args.num_segments; s++) {
    const Segment& segment = args.segments[s];
    const int64_t length = segment.lengths[decode.head], end = min64(length, decode.end - start);
    for (int64_t j = max64(0, decode.begin - start); j < end; j += kBlockRows) {
      DecodeRows& next = blocks[1 - current];
      next.clear();
      next.gather(segment, decode.head, j, min64(end, j + kBlockRows), sight);
      if (next.count == 0) continue;
      if (blocks[current].count) attend_block(decode, blocks[current], next);
      current = 1 - current;
    }
    start += length;
  }
  if (blocks[current].count) attend_block(decode, blocks[current], blocks[current]);
}

// Weighs the splits of each head by their maxima and divides: partials to output and log-sum-exp.
static void decode_merge(const AttendArgs& args, const AttendPlan& plan, char* partials, char* workspace) {
  const int group = args.num_heads / args.num_kv_heads, stride = padded(args.value_dim);
  float* out = (float*)workspace;
  for (int64_t head = 0; head < (int64_t)args.num_tokens * args.num_kv_heads; head++) {
    for (int g = 0; g < group; g++) {
      float highest = -__builtin_inff();
      for (int s = 0; s < plan.num_splits; s++) {
        const float top = Partial::at(partials, head * plan.num_splits + s, group, args.value_dim).max[g];
        if (!(top <= highest) && highest == highest) highest = top;  // once NaN, it stays
      }
      float total = 0.0f;
      for (int e = 0; e < args.value_dim; e++) out[e] = 0.0f;
      for (int s = 0; s < plan.num_splits; s++) {
        const Partial part = Partial::at(partials, head * plan.num_splits + s, group, args.value_dim);
        if (part.max[g] == -__builtin_inff()) continue;
        float weight[kLanes];
        store(weight, exp_nonpositive(broadcast(part.max[g] - highest)));
        total += reduce_add(load(part.sum + g * kLanes)) * weight[0];
        for (int e = 0; e < args.value_dim; e++) out[e] += part.out[(int64_t)g * stride + e] * weight[0];
      }
      const float of_rows = add_sink(args, head % args.num_kv_heads * group + g, &highest, &total);
      const bool empty = highest == -__builtin_inff();
      for (int e = 0; e < args.value_dim; e++) out[e] = empty ? 0.0f : out[e] * of_rows / total;
      store_output(args, head * group + g, out);
      if (args.lse) args.lse[head * group + g] = empty ? highest : highest + __builtin_logf(total);
    }
  }
}

}  // namespace KVASIR_ISA
}  // namespace kvasir
