// The arguments of `store`, `retain`, `keep`, `turn` and `seek`, read and checked.
#pragma once
#include "attend_call.h"

namespace kvasir {

// Rows of f32 and where they go. Returns the rows that a slot may name.
inline int64_t read_target(Call& call, StoreArgs* args, int64_t T, int64_t K) {
  args->num_kv_heads = K;
  const int64_t D = args->head_dim = call.integer("headDim", 1, kMaxDim);
  const int layout = call.integer("layout", 0, 2);
  const int64_t C = call.integer("capacity", 0, kMaxCount);
  args->source = call.floats("source", T * K * D).as<float>();
  const View target = call.stored("target", 0);
  args->storage = (Storage)call.integer("storage", 0, kLastStorage);
  args->rotation = read_rotation(call, T, (int)D);
  args->is_transformed = call.boolean("hadamard");
  if (call.ok() && !holds(target, args->storage)) call.fail("expected a target of the storage type, got another");
  const int64_t needed = (layout == kShared ? 1 : K) * C * row_length(args->storage, D);
  if (call.ok() && target.length < needed) {
    call.fail("expected at least " + std::to_string(needed) + " elements in target, got " + std::to_string(target.length));
  }
  if (!call.ok()) return 0;
  const int64_t row = row_bytes(args->storage, D);
  args->target = (char*)target.data;
  args->head_stride = layout == kHeadMajor ? C * row : layout == kTokenMajor ? row : 0;
  args->row_stride = layout == kTokenMajor ? K * row : row;
  return C;
}

// Fails where a pair of the list names a token or a row that is not there.
inline void check_row_list(Call& call, const StoreArgs& args, int64_t T, int64_t K, int64_t C) {
  for (int64_t k = 0; k < K && call.ok(); k++) {
    const int64_t count = args.counts[k], at = k * args.stride;
    if (count < 0 || count > args.stride) call.fail("expected counts within the stride, got " + std::to_string(count));
    else if (!within(args.tokens + at, count, T)) call.fail("expected tokens below numTokens, got others");
    else if (!within(args.slots + at, count, C)) call.fail("expected slots below the capacity, got others");
  }
}

inline void read_retain(Call& call, RetainArgs* args) {
  const int64_t K = args->num_kv_heads = call.integer("numKvHeads", 1, kMaxDim);
  const int64_t W = args->window = call.integer("window", 1, kMaxCount);
  args->sinks = call.integer("sinks", 0, W);
  args->recent = call.integer("recent", 0, W - args->sinks);
  const int64_t T = args->num_tokens = call.integer("numTokens", 0, kMaxCount - W);
  args->first_position = call.number("firstPosition");
  const int64_t stride = T < W ? T : W;
  args->kept_scores = call.floats("kept.scores", K * W).as<float>();
  args->kept_positions = call.doubles("kept.positions", K * W).as<double>();
  args->lengths = call.ints("kept.lengths", K).as<int32_t>();
  args->heap = call.ints("kept.heap", K * W).as<int32_t>();
  args->heap_lengths = call.ints("kept.heapLengths", K).as<int32_t>();
  args->accepted = call.doubles("kept.accepted", K).as<double>();
  args->ring = call.ints("kept.ring", K * args->recent).as<int32_t>();
  args->scores = call.floats("scores", T * K).as<float>();
  args->row_deaths = call.ints("rowDeaths", K * W, true).as<int32_t>();
  args->token_deaths = call.ints("tokenDeaths", K * T).as<int32_t>();
  args->counts = call.ints("counts", K).as<int32_t>();
  args->tokens = call.ints("tokens", K * stride).as<int32_t>();
  args->slots = call.ints("slots", K * stride).as<int32_t>();
  args->left_positions = call.doubles("leftPositions", K * stride, true).as<double>();
  args->left_scores = call.floats("leftScores", args->left_positions ? K * stride : 0, !args->left_positions).as<float>();
}

constexpr int kMaxTargets = 3;

// Stores of the same rows of several arrays.
struct StoreCall {
  int64_t T, K;
  StoreArgs targets[kMaxTargets]{};
  int64_t capacities[kMaxTargets]{};
  int num_targets = 0;

  // The targets of `list`, which says what goes where, with `least` rows a head each.
  void read(Call& call, int64_t num_tokens, int64_t num_kv_heads, const StoreArgs& list, int64_t least) {
    T = num_tokens;
    K = num_kv_heads;
    num_targets = call.integer("targets", 0, kMaxTargets);
    for (int i = 0; i < num_targets && call.ok(); i++) {
      targets[i] = list;
      capacities[i] = read_target(call, &targets[i], T, K);
      if (call.ok() && capacities[i] < least) {
        call.fail("expected targets of at least " + std::to_string(least) + " rows, got " + std::to_string(capacities[i]));
      }
    }
  }

  void check(Call& call) const {
    for (int i = 0; i < num_targets; i++) check_row_list(call, targets[i], T, K, capacities[i]);
  }
};

inline void read_store(Call& call, StoreCall* store) {
  StoreArgs list{};
  const int64_t T = call.integer("numTokens", 0, kMaxCount), K = call.integer("numKvHeads", 1, kMaxDim);
  list.stride = call.integer("stride", 0, kMaxCount);
  list.counts = call.ints("counts", K).as<int32_t>();
  list.tokens = call.ints("tokens", K * list.stride).as<int32_t>();
  list.slots = call.ints("slots", K * list.stride).as<int32_t>();
  store->read(call, T, K, list, 0);
  if (call.ok()) store->check(call);
}

// `retain`, and stores of what stays.
struct KeepCall {
  RetainArgs retain{};
  StoreCall store;

  void read(Call& call) {
    read_retain(call, &retain);
    StoreArgs list{};
    list.stride = retain.num_tokens < retain.window ? retain.num_tokens : retain.window;
    list.counts = retain.counts;
    list.tokens = retain.tokens;
    list.slots = retain.slots;
    // Before anything changes: whatever stays must have room.
    store.read(call, retain.num_tokens, retain.num_kv_heads, list, retain.window);
  }
};

inline void read_turn(Call& call, TurnArgs* args) {
  const int64_t T = call.integer("numTokens", 0, kMaxCount);
  args->head_dim = call.integer("headDim", 1, kMaxDim);
  const int64_t C = call.integer("capacity", 0, kMaxCount);
  const View source = call.stored("source", 0), target = call.stored("target", 0);
  args->storage = (Storage)call.integer("storage", 0, kLastStorage);
  args->is_transformed = call.boolean("hadamard");
  args->count = call.integer("count", 0, kMaxCount);
  args->rows = call.ints("rows", args->count).as<int32_t>();
  args->turns = call.ints("turns", args->count).as<int32_t>();
  args->rotation = read_rotation(call, T, args->head_dim);
  if (!call.ok()) return;
  args->source = (const char*)source.data;
  args->target = (char*)target.data;
  const int64_t needed = C * row_length(args->storage, args->head_dim), given = std::min(source.length, target.length);
  if (!holds(source, args->storage) || !holds(target, args->storage)) {
    call.fail("expected source and target of the storage type, got others");
  } else if (given < needed) {
    call.fail("expected at least " + std::to_string(needed) + " elements in source and target, got " + std::to_string(given));
  } else if (!within(args->rows, args->count, C) || !within(args->turns, args->count, T)) {
    call.fail("expected rows below the capacity and turns below numTokens, got others");
  }
}

inline void read_seek(Call& call, SeekArgs* args) {
  const int64_t H = args->num_heads = call.integer("numHeads", 1, kMaxDim);
  const int64_t K = args->num_kv_heads = call.integer("numKvHeads", 1, kMaxDim);
  const int64_t D = args->head_dim = call.integer("headDim", 1, kMaxDim);
  args->scale = call.finite("scale");
  const int64_t C = args->capacity = call.integer("capacity", 0, kMaxCount);
  args->num_rows = call.integer("numRows", 0, C);
  args->most = call.integer("most", 1, kMaxCount);
  args->query = call.floats("query", H * D).as<float>();
  const View bounds = call.stored("bounds", 0);
  args->bounds = bounds.as<char>();
  args->storage = (Storage)call.integer("storage", 0, kLastStorage);
  args->bias = call.floats("bias", K * C).as<float>();
  args->rows = call.ints("rows", K * args->most).as<int32_t>();
  args->lengths = call.ints("lengths", K).as<int32_t>();
  if (!call.ok()) return;
  const int64_t needed = K * C * row_length(args->storage, 2 * D);
  if (H % K != 0) {
    call.fail("expected numHeads to be a multiple of numKvHeads, got " + std::to_string(H) + " and " + std::to_string(K));
  } else if (!holds(bounds, args->storage)) {
    call.fail("expected bounds of the storage type, got others");
  } else if (bounds.length < needed) {
    call.fail("expected at least " + std::to_string(needed) + " elements in bounds, got " + std::to_string(bounds.length));
  }
}

}  // namespace kvasir
