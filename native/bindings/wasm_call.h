// Reads the calls of `attend`: rows of f64 numbers, pointers included, in the order in which src/kernels/calls.ts writes
// them.
#pragma once
#include "kvasir/kernels.h"

namespace kvasir {

// Takes the numbers of a call one after the other.
struct Row {
  const double* at;
  template <typename X>
  X* pointer() {
    return (X*)(uintptr_t)*at++;
  }
  int32_t integer() { return (int32_t)*at++; }
  double number() { return *at++; }
};

inline Rotation read_rotation(Row& row) {
  Rotation rotation;
  rotation.rotary_pairs = row.integer();
  rotation.is_interleaved = row.integer();
  rotation.cos = row.pointer<float>();
  rotation.sin = row.pointer<float>();
  return rotation;
}

inline void read_segment(Row& row, const AttendArgs& args, Segment* segment) {
  const int64_t K = args.num_kv_heads;
  segment->key_storage = (Storage)row.integer();
  segment->value_storage = (Storage)row.integer();
  const int64_t key_bytes = row_bytes(segment->key_storage, args.head_dim);
  const int64_t value_bytes = row_bytes(segment->value_storage, args.value_dim);
  const int layout = row.integer();
  const int64_t C = segment->capacity = row.integer();
  segment->lengths = row.pointer<int32_t>();
  segment->keys = row.pointer<char>();
  segment->values = row.pointer<char>();
  segment->bias = row.pointer<float>();
  segment->births = row.pointer<int32_t>();
  segment->deaths = row.pointer<int32_t>();
  segment->rows = row.pointer<int32_t>();
  segment->pages = row.pointer<int32_t>();
  segment->page_size = row.integer();
  segment->pages_stride = row.integer();
  segment->has_positions = row.integer();
  segment->first_position = row.integer();
  segment->positions = row.pointer<int32_t>();
  if (segment->positions) segment->has_positions = 1;
  segment->mask.values = row.pointer<char>();
  segment->mask.head_stride = row.integer();
  segment->mask.token_stride = row.integer();
  segment->mask.is_bytes = row.integer();
  segment->num_rows = row.integer();
  const int64_t head_rows = layout == kHeadMajor ? C : layout == kTokenMajor ? 1 : 0;
  const int64_t row_rows = layout == kTokenMajor ? K : 1;
  segment->key_head_stride = head_rows * key_bytes;
  segment->value_head_stride = head_rows * value_bytes;
  segment->key_row_stride = row_rows * key_bytes;
  segment->value_row_stride = row_rows * value_bytes;
}

inline void read_attend(Row row, AttendArgs* args, Segment* segments) {
  args->num_tokens = row.integer();
  args->num_heads = row.integer();
  args->num_kv_heads = row.integer();
  args->head_dim = row.integer();
  args->value_dim = row.integer();
  args->scale = (float)row.number();
  args->first_position = row.integer();
  args->left = row.integer();
  args->right = row.integer();
  args->sinks = row.integer();
  args->softcap = (float)row.number();
  args->query_storage = (Storage)row.integer();
  args->query = row.pointer<char>();
  args->output = row.pointer<char>();
  args->lse = row.pointer<float>();
  args->logits = row.pointer<float>();
  args->alibi_slopes = row.pointer<float>();
  args->sink_logits = row.pointer<float>();
  args->rotation = read_rotation(row);
  args->is_transformed = row.integer();
  args->num_segments = row.integer();
  args->segments = segments;
  for (int s = 0; s < args->num_segments && s < kMaxSegments; s++) read_segment(row, *args, &segments[s]);
}

// The numbers of `weigh`: its own, then those of `attend`.
struct WeighCall {
  WeighArgs args;
  Segment segments[kMaxSegments];

  explicit WeighCall(const double* numbers) {
    Row row{numbers};
    args.first_token = row.integer();
    for (float*& mass : args.masses) mass = row.pointer<float>();
    read_attend(row, &args.attend, segments);
    args.lse = args.attend.lse;
  }
};

}  // namespace kvasir
