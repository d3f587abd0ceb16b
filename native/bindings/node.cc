// The kernels as a Node addon. Every function takes flat positional arguments (reading properties would cost more than
// a short decode step), checks them against the sizes they imply, and throws a plain Error that the TypeScript side
// wraps. Nothing but a call in the background, which holds on to its arrays, keeps a pointer into
// JavaScript memory after it returns.
#include <node_api.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

#include "attend_call.h"
#include "dispatch.h"
#include "keep_call.h"
#include "thread_pool.h"

namespace kvasir {
namespace {

constexpr int kMaxThreads = 256;
constexpr size_t kHugePageBytes = 4 << 20;

// What `open` hands to JavaScript: an instruction set, threads, and memory that grows to the largest call.
struct Engine {
  const KernelTable* table;
  ThreadPool pool;
  std::vector<char> partials;
  std::vector<std::vector<char>> workspaces;
  std::mutex busy;  // one call at a time: a call in the background keeps others waiting

  Engine(const KernelTable* chosen, int threads) : table(chosen), pool(threads), workspaces(threads) {}

  // 64-byte aligned memory of at least `bytes`.
  static char* grown(std::vector<char>& block, int64_t bytes) {
    ASAN_UNPOISON_MEMORY_REGION(block.data(), block.size());
    if ((int64_t)block.size() < bytes + 64) {
      std::vector<char>().swap(block);  // nothing in it is wanted: old and new need not fit together
      block.resize(bytes + 64);
    }
    char* aligned = (char*)(((uintptr_t)block.data() + 63) & ~(uintptr_t)63);
    // Larger calls before this one left more than it may use.
    ASAN_POISON_MEMORY_REGION(aligned + bytes, block.data() + block.size() - (aligned + bytes));
    return aligned;
  }
};

// Below this, waking threads costs more than they save; from the second on, leaving the caller's thread is worth it.
constexpr double kLeastParallelWork = 1 << 20, kLeastAsyncWork = 1 << 24;

// Runs a function of this file; what the standard library throws (no memory, no thread) becomes a JavaScript error.
template <napi_value (*kFunction)(napi_env, napi_callback_info)>
napi_value guarded(napi_env env, napi_callback_info info) {
  try {
    return kFunction(env, info);
  } catch (const std::bad_alloc& error) {
    napi_throw_error(env, "KVASIR_MEMORY", "not enough memory for the call's scratch");
  } catch (const std::exception& error) {
    napi_throw_error(env, "KVASIR_FAILURE", error.what());
  }
  return nullptr;
}

// Runs `task(number, workspace)` for each number below `count`: short work on this thread, the rest on all.
template <typename Task>
void run_tasks(Engine* engine, int64_t count, double multiply_adds, int64_t workspace_bytes, const Task& task) {
  if (count > INT32_MAX) throw std::length_error("the call has more than 2^31 parts");
  std::vector<char*> workspaces;
  for (std::vector<char>& block : engine->workspaces) workspaces.push_back(Engine::grown(block, workspace_bytes));
  if (multiply_adds < kLeastParallelWork) {
    for (int number = 0; number < count; number++) task(number, workspaces[0]);
  } else {
    engine->pool.run((int)count, [&](int number, int thread) { task(number, workspaces[thread]); });
  }
}

void run_attend(Engine* engine, const AttendCall& call) {
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

napi_value attend(napi_env env, napi_callback_info info) {
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

void finish_attend(napi_env env, napi_status status, void* data) {
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
napi_value attend_async(napi_env env, napi_callback_info info) {
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

napi_value weigh(napi_env env, napi_callback_info info) {
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

// Scratch of its own: storing must not wait for a call in the background.
void run_store(Engine* engine, const StoreArgs& args) {
  std::vector<float> scratch(args.rotation.cos || args.is_transformed ? args.head_dim + 16 : 0);
  engine->table->store(args, (char*)scratch.data());
}

napi_value store(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Engine* engine = (Engine*)call.external();
  StoreArgs args{};
  const int64_t T = call.integer("numTokens", 0, kMaxCount), K = call.integer("numKvHeads", 1, kMaxDim);
  read_row_list(call, &args, K);
  const int64_t C = read_target(call, &args, T, K);
  if (call.ok()) check_row_list(call, args, T, K, C);
  if (call.ok()) run_store(engine, args);
  return nullptr;
}

napi_value rotate(napi_env env, napi_callback_info info) {
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

Status run_retain(Engine* engine, const RetainArgs& args) {
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

napi_value status_value(napi_env env, Status status) {
  napi_value result;
  napi_create_int32(env, (int32_t)status, &result);
  return result;
}

// Returns a Status.
napi_value retain(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Engine* engine = (Engine*)call.external();
  RetainArgs args{};
  read_retain(call, &args);
  return call.ok() ? status_value(env, run_retain(engine, args)) : nullptr;
}

// Retains and stores what stays. Returns a Status.
napi_value keep(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Engine* engine = (Engine*)call.external();
  KeepCall keep;
  keep.read(call);
  if (!call.ok()) return nullptr;
  const Status status = run_retain(engine, keep.retain);
  if (status == Status::ok) keep.check(call);
  for (int i = 0; i < keep.num_targets && status == Status::ok && call.ok(); i++) run_store(engine, keep.targets[i]);
  return status_value(env, status);
}

napi_value select(napi_env env, napi_callback_info info) {
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

// Reads all of a Float32Array with all threads; the caller takes the time.
napi_value read(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Engine* engine = (Engine*)call.external();
  const View data = call.floats("data", 0);
  if (!call.ok()) return nullptr;
  std::lock_guard<std::mutex> lock(engine->busy);
  const int parts = engine->pool.num_threads() * 4;
  std::vector<float> sums(parts);
  engine->pool.run(parts, [&](int part, int) {
    const int64_t begin = data.length * part / parts, end = data.length * (part + 1) / parts;
    sums[part] = engine->table->read(data.as<float>() + begin, end - begin);
  });
  float sum = 0;
  for (float part : sums) sum += part;
  napi_value result;
  napi_create_double(env, sum, &result);
  return result;
}

// Runs fused multiply-adds on all threads and returns how many floating point operations that was.
napi_value multiply_add(napi_env env, napi_callback_info info) {
  Call call(env, info);
  Engine* engine = (Engine*)call.external();
  const double iterations = call.integer("iterations", 0, kMaxCount);
  if (!call.ok()) return nullptr;
  std::lock_guard<std::mutex> lock(engine->busy);
  const int parts = engine->pool.num_threads();
  std::vector<double> flops(parts);
  std::vector<float> sums(parts);
  engine->pool.run(parts, [&](int part, int) { sums[part] = engine->table->multiply_add((int64_t)iterations, &flops[part]); });
  double total = 0;
  for (int i = 0; i < parts; i++) total += flops[i] + (sums[i] != sums[i] ? 1 : 0);
  napi_value result;
  napi_create_double(env, total, &result);
  return result;
}

// Readies a new ArrayBuffer for kernels: asks the system for huge pages (a cache of many megabytes read end to end
// spends a good part of its time on page walks otherwise) and returns the bytes to its first 64-byte boundary.
napi_value prepare(napi_env env, napi_callback_info info) {
  size_t count = 1, length = 0;
  napi_value buffer, result;
  void* data = nullptr;
  if (napi_get_cb_info(env, info, &count, &buffer, nullptr, nullptr) != napi_ok || count < 1 ||
      napi_get_arraybuffer_info(env, buffer, &data, &length) != napi_ok) {
    napi_throw_error(env, "KVASIR_NATIVE", "expected an ArrayBuffer");
    return nullptr;
  }
#if defined(__linux__)
  constexpr uintptr_t kPage = 4096;
  const uintptr_t begin = ((uintptr_t)data + kPage - 1) & ~(kPage - 1), end = ((uintptr_t)data + length) & ~(kPage - 1);
  if (length >= kHugePageBytes) madvise((void*)begin, end - begin, MADV_HUGEPAGE);
#endif
  napi_create_uint32(env, (uint32_t)((64 - (uintptr_t)data % 64) % 64), &result);
  return result;
}

// open(threads, isa | undefined) -> engine. Unknown sets are refused.
napi_value open(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value values[2], result;
  double threads = 0;
  napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  if (count < 1 || napi_get_value_double(env, values[0], &threads) != napi_ok || !(threads >= 1 && threads <= kMaxThreads)) {
    napi_throw_error(env, "KVASIR_NATIVE", "expected a number of threads from 1 to 256");
    return nullptr;
  }
  char wanted[16] = "";
  size_t length = 0;
  napi_valuetype type = napi_undefined;
  if (count > 1) napi_typeof(env, values[1], &type);
  if (type != napi_undefined && napi_get_value_string_utf8(env, values[1], wanted, sizeof wanted, &length) != napi_ok) {
    napi_throw_error(env, "KVASIR_NATIVE", "expected the name of an instruction set");
    return nullptr;
  }
  const KernelTable* tables[kMostTables];
  const int available = available_tables(tables);
  for (int i = 0; i < available; i++) {
    if (type != napi_undefined && strcmp(wanted, tables[i]->name) != 0) continue;
    std::unique_ptr<Engine> engine(new Engine(tables[i], (int)threads));
    const auto destroy = [](napi_env, void* data, void*) { delete (Engine*)data; };
    if (napi_create_external(env, engine.get(), destroy, nullptr, &result) != napi_ok) return nullptr;
    engine.release();
    napi_type_tag_object(env, result, &kEngineTag);
    return result;
  }
  napi_throw_error(env, "KVASIR_NATIVE", "this processor lacks the instruction set asked for");
  return nullptr;
}

// Names of the instruction sets that can be opened, best first.
napi_value instruction_sets(napi_env env, napi_callback_info) {
  const KernelTable* tables[kMostTables];
  const int available = available_tables(tables);
  napi_value result, name;
  napi_create_array_with_length(env, available, &result);
  for (int i = 0; i < available; i++) {
    napi_create_string_utf8(env, tables[i]->name, NAPI_AUTO_LENGTH, &name);
    napi_set_element(env, result, i, name);
  }
  return result;
}

napi_value init(napi_env env, napi_value exports) {
  const struct {
    const char* name;
    napi_callback function;
  } functions[] = {
      {"open", guarded<open>},
      {"instructionSets", guarded<instruction_sets>},
      {"prepare", guarded<prepare>},
      {"attend", guarded<attend>},
      {"attendAsync", guarded<attend_async>},
      {"weigh", guarded<weigh>},
      {"store", guarded<store>},
      {"rotate", guarded<rotate>},
      {"retain", guarded<retain>},
      {"keep", guarded<keep>},
      {"select", guarded<select>},
      {"read", guarded<read>},
      {"multiplyAdd", guarded<multiply_add>},
  };
  for (const auto& entry : functions) {
    napi_value function;
    napi_create_function(env, entry.name, NAPI_AUTO_LENGTH, entry.function, nullptr, &function);
    napi_set_named_property(env, exports, entry.name, function);
  }
  return exports;
}

}  // namespace
}  // namespace kvasir

NAPI_MODULE_INIT() { return kvasir::init(env, exports); }
