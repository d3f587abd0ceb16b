// `attend`, on the caller's thread or in the background, and `weigh`.
#pragma once
#include <exception>
#include <memory>
#include <new>
#include <string>

#include "attend_call.h"
#include "engine.h"

namespace kvasir {

// From this on, leaving the caller's thread is worth it.
constexpr double kLeastAsyncWork = 1 << 24;

static void run_attend(Engine* engine, const AttendCall& call) {
  std::lock_guard<std::mutex> lock(engine->busy);
  const AttendArgs& args = call.args;
  AttendPlan plan;
  engine->table->attend_plan(args, &plan);
  char* partials = Engine::grown(engine->partials, plan.partial_bytes);
  run_tasks(engine, plan.num_tasks, call.multiply_adds(), plan.workspace_bytes, [&](int task, char* workspace) {
    engine->table->attend_task(args, plan, task, partials, workspace);
  });
  engine->table->attend_merge(args, plan, partials, Engine::grown(engine->workspaces[0], plan.workspace_bytes));
}

static napi_value attend(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Engine* engine = (Engine*)call.external();
  AttendCall attend;
  attend.read(call);
  if (call.ok() && attend.args.num_tokens > 0) run_attend(engine, attend);
  return nullptr;
}

// A call in the background. `arguments` keeps the engine and the arrays alive.
struct AttendWork {
  AttendCall call;
  Engine* engine = nullptr;
  napi_ref arguments = nullptr;
  napi_deferred deferred = nullptr;
  napi_async_work work = nullptr;
  bool out_of_memory = false;
  std::string failure;
};

static void finish_attend(napi_env env, napi_status status, void* data) {
  std::unique_ptr<AttendWork> work((AttendWork*)data);
  napi_value value, code, message;
  if (status == napi_ok && !work->out_of_memory && work->failure.empty()) {
    napi_get_undefined(env, &value);
    napi_resolve_deferred(env, work->deferred, value);
  } else {
    napi_create_string_utf8(env, work->out_of_memory ? "KVASIR_MEMORY" : "KVASIR_FAILURE", NAPI_AUTO_LENGTH, &code);
    const char* text = work->out_of_memory      ? "not enough memory for the call's scratch"
                       : work->failure.empty() ? "the call was cancelled"
                                               : work->failure.c_str();
    napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message);
    napi_create_error(env, code, message, &value);
    napi_reject_deferred(env, work->deferred, value);
  }
  napi_delete_reference(env, work->arguments);
  napi_delete_async_work(env, work->work);
}

// As `attend`, on another thread: returns a promise. A short call is done at once and returns undefined.
static napi_value attend_async(napi_env env, napi_callback_info info) {
  Call call(env, info);
  std::unique_ptr<AttendWork> work(new AttendWork);
  work->engine = (Engine*)call.external();
  work->call.read(call);
  if (!call.ok() || work->call.args.num_tokens == 0) return nullptr;
  if (work->call.multiply_adds() < kLeastAsyncWork) {
    run_attend(work->engine, work->call);
    return nullptr;
  }
  napi_value promise, name;
  napi_create_reference(env, call.all(), 1, &work->arguments);
  napi_create_promise(env, &work->deferred, &promise);
  napi_create_string_utf8(env, "kvasir.attend", NAPI_AUTO_LENGTH, &name);
  const auto execute = [](napi_env, void* data) {
    AttendWork* work = (AttendWork*)data;
    try {
      run_attend(work->engine, work->call);
    } catch (const std::bad_alloc&) {
      work->out_of_memory = true;
    } catch (const std::exception& error) {
      work->failure = error.what();
    }
  };
  napi_create_async_work(env, nullptr, name, execute, finish_attend, work.get(), &work->work);
  if (napi_queue_async_work(env, work->work) != napi_ok) {
    call.fail("cannot queue work");
    return nullptr;
  }
  work.release();
  return promise;
}

static napi_value weigh(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Engine* engine = (Engine*)call.external();
  WeighArgs args{};
  args.first_token = call.integer("firstToken", 0, kMaxCount);
  View masses[kMaxSegments];
  for (View& mass : masses) mass = call.floats("masses", 0, true);
  AttendCall attend;
  attend.read(call);
  if (call.ok() && !attend.args.lse) call.fail("expected a Float32Array for lse, got none");
  for (int s = 0; s < attend.args.num_segments && call.ok(); s++) {
    const Segment& segment = attend.segments[s];
    int64_t least = 0;
    for (int64_t k = 0; k < attend.args.num_kv_heads; k++) {
      const int64_t length = segment.lengths[k];
      if (length > 0) least = k * segment.capacity + (segment.rows ? segment.capacity : length);
    }
    if (masses[s].length < least) {
      call.fail("expected at least " + std::to_string(least) + " elements in masses, got " +
                std::to_string(masses[s].length));
    }
    args.masses[s] = masses[s].as<float>();
  }
  if (!call.ok()) return nullptr;
  args.attend = attend.args;
  args.lse = attend.args.lse;
  std::lock_guard<std::mutex> lock(engine->busy);
  WeighPlan plan;
  engine->table->weigh_plan(args, &plan);
  run_tasks(engine, plan.num_tasks, attend.multiply_adds(), plan.workspace_bytes, [&](int task, char* workspace) {
    engine->table->weigh_task(args, plan, task, workspace);
  });
  return nullptr;
}

}  // namespace kvasir
