// What caches are made of: rows are stored and turned, and which stay is chosen.
#pragma once
#include "engine.h"
#include "keep_call.h"

namespace kvasir {

// Scratch of its own: storing must not wait for a call in the background.
static void run_store(Engine* engine, const StoreArgs& args) {
  std::vector<float> scratch(args.rotation.cos || args.is_transformed ? args.head_dim + 16 : 0);
  engine->table->store(args, (char*)scratch.data());
}

static napi_value store(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Engine* engine = (Engine*)call.external();
  StoreCall store;
  read_store(call, &store);
  for (int i = 0; i < store.num_targets && call.ok(); i++) run_store(engine, store.targets[i]);
  return nullptr;
}

// Rows a task, and about how many operations a number takes.
constexpr int64_t kTurnedRows = 64;
constexpr double kTurningWork = 16;

static napi_value turn(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Engine* engine = (Engine*)call.external();
  TurnArgs args{};
  read_turn(call, &args);
  if (!call.ok() || args.count == 0 || !args.rotation.cos) return nullptr;
  std::lock_guard<std::mutex> lock(engine->busy);
  const int64_t tasks = (args.count + kTurnedRows - 1) / kTurnedRows;
  run_tasks(engine, tasks, kTurningWork * args.count * args.head_dim, 4 * (args.head_dim + 16), [&](int task, char* workspace) {
    const int64_t from = task * kTurnedRows;
    engine->table->turn(args, from, std::min(args.count, from + kTurnedRows), workspace);
  });
  return nullptr;
}

static napi_value rotate(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Engine* engine = (Engine*)call.external();
  RotateArgs args{};
  const int64_t T = args.num_tokens = call.integer("numTokens", 0, kMaxCount);
  args.num_heads = call.integer("numHeads", 1, kMaxDim);
  args.head_dim = call.integer("headDim", 1, kMaxDim);
  args.vectors = call.floats("vectors", T * args.num_heads * args.head_dim).as<float>();
  args.is_inverse = call.boolean("isInverse");
  args.rotation = read_rotation(call, T, args.head_dim);
  if (call.ok() && args.rotation.cos) engine->table->rotate(args);
  return nullptr;
}

static Status run_retain(Engine* engine, const RetainArgs& args) {
  std::lock_guard<std::mutex> lock(engine->busy);
  Status status = retain_check(args);
  if (status != Status::ok) return status;
  const int K = args.num_kv_heads;
  if ((int64_t)args.num_tokens * K < 256) {
    for (int head = 0; head < K; head++) {
      const Status each = retain_head(args, head);
      if (status == Status::ok) status = each;
    }
    return status;
  }
  std::vector<Status> statuses(K, Status::ok);
  engine->pool.run(K, [&](int head, int) { statuses[head] = retain_head(args, head); });
  for (Status each : statuses) status = status == Status::ok ? each : status;
  return status;
}

static napi_value status_value(napi_env env, Status status) {
  napi_value result;
  napi_create_int32(env, (int32_t)status, &result);
  return result;
}

// Returns a Status.
static napi_value retain(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Engine* engine = (Engine*)call.external();
  RetainArgs args{};
  read_retain(call, &args);
  return call.ok() ? status_value(env, run_retain(engine, args)) : nullptr;
}

// Retains and stores what stays. Returns a Status.
static napi_value keep(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Engine* engine = (Engine*)call.external();
  KeepCall keep;
  keep.read(call);
  if (!call.ok()) return nullptr;
  const Status status = run_retain(engine, keep.retain);
  // Slots are what `retain` wrote, but arrays of a careless caller may overlap.
  if (status == Status::ok) keep.store.check(call);
  for (int i = 0; i < keep.store.num_targets && status == Status::ok && call.ok(); i++) run_store(engine, keep.store.targets[i]);
  return status_value(env, status);
}

static napi_value select(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Engine* engine = (Engine*)call.external();
  SelectArgs args{};
  const int64_t K = call.integer("numKvHeads", 1, kMaxDim);
  args.capacity = call.integer("capacity", 0, kMaxCount);
  args.num_rows = call.integer("numRows", 0, args.capacity);
  args.window = call.integer("window", 1, kMaxCount);
  args.scores = call.floats("scores", K * args.capacity).as<float>();
  args.rows = call.ints("rows", K * args.capacity).as<int32_t>();
  args.lengths = call.ints("lengths", K).as<int32_t>();
  if (!call.ok()) return nullptr;
  std::lock_guard<std::mutex> lock(engine->busy);
  std::vector<char*> workspaces;
  for (std::vector<char>& block : engine->workspaces) workspaces.push_back(Engine::grown(block, 8 * (int64_t)args.num_rows));
  engine->pool.run((int)K, [&](int head, int thread) { select_head(args, head, workspaces[thread]); });
  return nullptr;
}

static napi_value seek(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Engine* engine = (Engine*)call.external();
  SeekArgs args{};
  read_seek(call, &args);
  if (!call.ok()) return nullptr;
  std::lock_guard<std::mutex> lock(engine->busy);
  SeekPlan plan;
  engine->table->seek_plan(args, &plan);
  char* partials = Engine::grown(engine->partials, plan.partial_bytes);
  const double work = (double)args.num_rows * args.num_heads * args.head_dim;
  run_tasks(engine, plan.num_tasks, work, plan.workspace_bytes, [&](int task, char* workspace) {
    engine->table->seek_task(args, plan, task, partials, workspace);
  });
  engine->table->seek_merge(args, plan, partials);
  return nullptr;
}

}  // namespace kvasir
