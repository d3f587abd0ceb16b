// The arguments of `attend`, read and checked: whatever JavaScript passes, the kernels stay within the arrays given.
#pragma once
#include <algorithm>
#include <vector>

#include "call.h"
#include "kvasir/kernels.h"

namespace kvasir {

constexpr double kMaxDim = 1 << 16, kMaxCount = 0x7ffffffe;

inline bool holds(const View& view, Storage storage) {
  if (is_quantized(storage)) return view.type == napi_uint8_array;
  return view.type == (storage == Storage::f32 ? napi_float32_array : napi_uint16_array);
}

// Elements of a row in the array of its type.
inline int64_t row_length(Storage storage, int64_t dim) { return is_quantized(storage) ? row_bytes(storage, dim) : dim; }

// Each of `count` entries in [0, limit).
inline bool within(const int32_t* entries, int64_t count, int64_t limit) {
  for (int64_t i = 0; i < count; i++) {
    if (entries[i] < 0 || entries[i] >= limit) return false;
  }
  return true;
}

// A rotation of `num_tokens` tokens, or none.
inline Rotation read_rotation(Call& call, int64_t num_tokens, int head_dim) {
  Rotation rotation{};
  rotation.rotary_pairs = call.integer("rotaryPairs", 0, head_dim / 2);
  rotation.is_interleaved = call.boolean("isInterleaved");
  const bool is_none = rotation.rotary_pairs == 0;
  const View cos = call.floats("cos", num_tokens * rotation.rotary_pairs, is_none);
  const View sin = call.floats("sin", num_tokens * rotation.rotary_pairs, is_none);
  if (cos.given && sin.given) {
    rotation.cos = cos.as<float>();
    rotation.sin = sin.as<float>();
  }
  return rotation;
}

// Everything that a call points to. Lengths are copied: what they guard must not change under a call in the background.
struct AttendCall {
  AttendArgs args{};
  Segment segments[kMaxSegments];
  std::vector<int32_t> lengths[kMaxSegments];

  void read(Call& call) {
    args.num_tokens = call.integer("numTokens", 0, kMaxCount);
    args.num_heads = call.integer("numHeads", 1, kMaxDim);
    args.num_kv_heads = call.integer("numKvHeads", 1, kMaxDim);
    args.head_dim = call.integer("headDim", 1, kMaxDim);
    args.value_dim = call.integer("valueDim", 1, kMaxDim);
    args.scale = call.finite("scale");
    args.first_position = call.integer("firstPosition", -kMaxCount, kMaxCount);
    args.left = call.integer("left", 0, kNever);
    args.right = call.integer("right", 0, kNever);
    args.sinks = call.integer("sinks", 0, kMaxCount);
    args.softcap = call.finite("softcap");
    if (call.ok() && args.num_heads % args.num_kv_heads != 0) {
      call.fail("expected numHeads to be a multiple of numKvHeads, got " + std::to_string(args.num_heads) + " and " +
                std::to_string(args.num_kv_heads));
    }
    if (call.ok() && (double)args.first_position + args.num_tokens >= kNever) {
      call.fail("expected positions below 2^31 - 1, got " + text_of((double)args.first_position + args.num_tokens));
    }
    if (call.ok() && args.softcap < 0) call.fail("expected a softcap of at least 0, got " + text_of(args.softcap));
    const int64_t rows = (int64_t)args.num_tokens * args.num_heads;
    args.query_storage = (Storage)call.integer("queryStorage", 0, kLastFloat);
    const View query = call.stored("query", rows * args.head_dim), output = call.stored("output", rows * args.value_dim);
    if (call.ok() && (!holds(query, args.query_storage) || !holds(output, args.query_storage))) {
      call.fail("expected query and output in arrays of queryStorage, got other types");
    }
    args.query = query.data;
    args.output = output.data;
    args.lse = call.floats("lse", rows, true).as<float>();  // too short a one is refused, an empty one too
    const View logits = call.floats("logits", 0, true);
    args.logits = logits.as<float>();
    args.alibi_slopes = read_per_head(call, "alibiSlopes", false);
    args.sink_logits = read_per_head(call, "sinkLogits", true);
    args.rotation = read_rotation(call, args.num_tokens, args.head_dim);
    args.is_transformed = call.boolean("hadamard");
    args.num_segments = call.integer("segments", 0, kMaxSegments);
    args.segments = segments;
    for (int s = 0; s < args.num_segments && call.ok(); s++) read_segment(call, &segments[s], lengths[s]);
    if (call.ok() && logits.given) check_logits(call, logits, rows);
  }

  double multiply_adds() const {
    double rows = 0;
    for (int s = 0; s < args.num_segments; s++) {
      for (int k = 0; k < args.num_kv_heads; k++) rows += segments[s].lengths[k];
    }
    const double group = args.num_heads / args.num_kv_heads;
    return rows * group * args.num_tokens * (args.head_dim + args.value_dim);
  }

 private:
  void check_logits(Call& call, const View& logits, int64_t rows) {
    if (args.num_segments != 1) {
      return call.fail("expected one segment for logits, got " + std::to_string(args.num_segments));
    }
    const int64_t needed = rows * segments[0].capacity;
    if (logits.length >= needed) return;
    call.fail("expected at least " + std::to_string(needed) + " elements in logits, got " + std::to_string(logits.length));
  }

  const float* read_per_head(Call& call, const char* name, bool may_be_absent_by_head) {
    const View view = call.floats(name, args.num_heads, true);
    if (!view.given || !call.ok()) return nullptr;
    for (int h = 0; h < args.num_heads; h++) {
      const float value = view.as<float>()[h];
      const bool none = may_be_absent_by_head && value == -INFINITY;
      if (!std::isfinite(value) && !none) {
        call.fail(std::string("expected finite numbers in ") + name + ", got " + text_of(value));
        return nullptr;
      }
    }
    return view.as<float>();
  }

  void read_segment(Call& call, Segment* segment, std::vector<int32_t>& own_lengths) {
    const int64_t K = args.num_kv_heads;
    const Storage key_storage = (Storage)call.integer("keyStorage", 0, kLastStorage);
    const Storage value_storage = (Storage)call.integer("valueStorage", 0, kLastStorage);
    const int64_t key_length = row_length(key_storage, args.head_dim), value_length = row_length(value_storage, args.value_dim);
    const int layout = call.integer("layout", 0, 2);
    const int64_t C = call.integer("capacity", 0, kMaxCount);
    const View lengths = call.ints("lengths", K);
    const View keys = call.stored("keys", 0), values = call.stored("values", 0);
    const View bias = call.floats("bias", 0, true), births = call.ints("births", 0, true);
    const View deaths = call.ints("deaths", 0, true), rows = call.ints("rows", 0, true);
    const View pages = call.ints("pages", 0, true);
    const int64_t page_size = call.integer("pageSize", pages.given ? 1 : 0, kMaxCount);
    const int64_t pages_stride = call.integer("pagesStride", 0, kMaxCount);
    const bool has_first = call.boolean("hasFirstPosition");
    const int32_t first_position = call.integer("segment.firstPosition", -kMaxCount, kMaxCount);
    const View positions = call.ints("positions", 0, true);
    const View mask = call.view("mask.values", {napi_float32_array, napi_uint8_array}, 0, true);
    const int64_t head_stride = call.integer("mask.headStride", 0, kMaxCount);
    const int64_t token_stride = call.integer("mask.tokenStride", 0, kMaxCount);
    if (call.ok() && (has_first || positions.given) && (double)first_position + C >= kNever) {
      call.fail("expected positions below 2^31 - 1, got " + text_of((double)first_position + C));
    }
    if (!call.ok()) return;
    if (!holds(keys, key_storage) || !holds(values, value_storage)) {
      return call.fail("expected keys and values in arrays of keyStorage and valueStorage, got others");
    }
    if (rows.given && pages.given) return call.fail("expected rows or pages, got both");
    if (pages.given && layout == kHeadMajor) return call.fail("expected pages in token-major or shared layout, got head-major");
    if (args.alibi_slopes && !has_first && !positions.given) {
      return call.fail("expected positions in every segment for alibiSlopes, got none");
    }
    const int64_t heads = layout == kShared ? 1 : K;
    // Storage rows that the arrays hold for each head.
    const int64_t stored = std::min(keys.length / (heads * key_length), values.length / (heads * value_length));
    *segment = Segment{};
    segment->keys = (const char*)keys.data;
    segment->values = (const char*)values.data;
    const int64_t head_rows = layout == kHeadMajor ? C : layout == kTokenMajor ? 1 : 0;
    const int64_t row_rows = layout == kTokenMajor ? K : 1;
    const int64_t key_bytes = row_bytes(key_storage, args.head_dim), value_bytes = row_bytes(value_storage, args.value_dim);
    segment->key_storage = key_storage;
    segment->value_storage = value_storage;
    segment->key_head_stride = head_rows * key_bytes;
    segment->value_head_stride = head_rows * value_bytes;
    segment->key_row_stride = row_rows * key_bytes;
    segment->value_row_stride = row_rows * value_bytes;
    segment->capacity = C;
    segment->num_rows = pages.given || layout == kShared ? stored : C;
    own_lengths.assign(lengths.as<int32_t>(), lengths.as<int32_t>() + K);
    segment->lengths = own_lengths.data();
    segment->bias = bias.as<float>();
    segment->births = births.as<int32_t>();
    segment->deaths = deaths.as<int32_t>();
    segment->rows = rows.as<int32_t>();
    segment->pages = pages.as<int32_t>();
    segment->page_size = page_size;
    segment->pages_stride = pages_stride;
    segment->has_positions = has_first || positions.given;
    segment->first_position = first_position;
    segment->positions = positions.as<int32_t>();
    segment->mask = LogitMask{mask.data, mask.type == napi_uint8_array, head_stride, token_stride};
    for (int64_t k = 0; k < K && call.ok(); k++) {
      check_head(call, *segment, k, keys.length / key_length, values.length / value_length, layout, {&bias, &births, &deaths, &positions},
                 rows, pages);
    }
    if (call.ok() && mask.given) check_mask(call, *segment, mask);
  }

  // Heads may end short of the array (a view into the middle of a store): what is used must lie within.
  void check_head(Call& call, const Segment& segment, int64_t k, int64_t key_rows, int64_t value_rows, int layout,
                  std::initializer_list<const View*> lists, const View& rows, const View& pages) {
    const int64_t K = args.num_kv_heads, C = segment.capacity, length = segment.lengths[k];
    if (length < 0 || length > C) {
      return call.fail("expected lengths from 0 to the capacity of " + std::to_string(C) + ", got " + std::to_string(length));
    }
    if (length == 0) return;
    if (pages.given) {
      const int64_t count = (length - 1) / segment.page_size + 1, at = k * segment.pages_stride;
      if (at + count > pages.length) return call.fail("expected pages for every entry, got " + std::to_string(pages.length));
      if (!within(segment.pages + at, count, segment.num_rows / segment.page_size)) {
        return call.fail("expected pages below " + std::to_string(segment.num_rows / segment.page_size) + ", got others");
      }
    } else {
      // By the layout: the last storage row that may be read.
      const int64_t used = layout == kShared ? (rows.given ? 0 : length) : rows.given ? C : length;
      const int64_t last = layout == kShared ? used : layout == kTokenMajor ? (used - 1) * K + k + 1 : k * C + used;
      if (last > key_rows || last > value_rows) {
        return call.fail("expected " + std::to_string(last) + " rows in keys and values, got " +
                         std::to_string(std::min(key_rows, value_rows)));
      }
    }
    const int64_t entries = k * C + (rows.given ? C : length);
    for (const View* view : lists) {
      if (view->given && entries > view->length) {
        return call.fail("expected " + std::to_string(entries) + " elements in bias, births, deaths and positions, got " +
                         std::to_string(view->length));
      }
    }
    if (rows.given && (k * C + length > rows.length || !within(segment.rows + k * C, length, std::min(C, segment.num_rows)))) {
      return call.fail("expected " + std::to_string(k * C + length) + " rows below " +
                       std::to_string(std::min(C, segment.num_rows)) + ", got " + std::to_string(rows.length) + " or others");
    }
  }

  void check_mask(Call& call, const Segment& segment, const View& mask) {
    int64_t longest = 0;
    for (int k = 0; k < args.num_kv_heads; k++) longest = std::max<int64_t>(longest, segment.lengths[k]);
    if (longest == 0 || args.num_tokens == 0) return;
    const int64_t last = (args.num_heads - 1) * segment.mask.head_stride + (args.num_tokens - 1) * segment.mask.token_stride;
    if (last + longest > mask.length) {
      call.fail("expected " + std::to_string(last + longest) + " elements in mask, got " + std::to_string(mask.length));
    }
  }
};

}  // namespace kvasir
