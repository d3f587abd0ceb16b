// The kernels as a WebAssembly module without a C library: JavaScript owns all memory (it places blocks above
// __heap_base) and passes each call as a row of f64 numbers, pointers included. The memory is imported and may be
// shared: workers with instances of their own then find their tasks in it.
#include "interface.h"
#include "wasm_board.h"

#define TEXT_OF(value) #value
#define VERSIONED(name, version) name "_" TEXT_OF(version)
#define EXPORT(name) __attribute__((export_name(#name)))

extern "C" __attribute__((import_module("env"), import_name("log"))) double kvasir_log(double);
extern "C" float logf(float x) { return (float)kvasir_log(x); }

namespace kvasir {
namespace vec4 {
extern const KernelTable table;
}

// Does nothing: its name says which version this is, and can be read before anything is compiled.
__attribute__((export_name(VERSIONED("interface", KVASIR_INTERFACE)))) extern "C" void interface_version() {}

// Tokens of a tile, or 1: calls that are cut between tiles give the same bits.
EXPORT(tile_tokens) extern "C" int32_t tile_tokens(int32_t T, int32_t H, int32_t K, int32_t D, int32_t E) {
  AttendArgs args{};
  args.num_tokens = T;
  args.num_heads = H;
  args.num_kv_heads = K;
  args.head_dim = D;
  args.value_dim = E;
  AttendPlan plan;
  vec4::table.attend_plan(args, &plan);
  return plan.is_tiled ? plan.tile_tokens : 1;
}

// Bytes of scratch that the call needs on so many threads.
EXPORT(attend_scratch) extern "C" double attend_scratch(const double* numbers, int32_t threads) {
  AttendArgs args;
  Segment segments[kMaxSegments];
  read_attend(Row{numbers}, &args, segments);
  AttendPlan plan;
  vec4::table.attend_plan(args, &plan);
  return (double)(plan.partial_bytes + 64 + threads * plan.workspace_bytes);
}

static char* workspaces_after(char* scratch, const AttendPlan& plan) {
  return scratch + (plan.partial_bytes + 63) / 64 * 64;
}

EXPORT(attend) extern "C" void attend(const double* numbers, char* scratch) {
  AttendArgs args;
  Segment segments[kMaxSegments];
  read_attend(Row{numbers}, &args, segments);
  AttendPlan plan;
  vec4::table.attend_plan(args, &plan);
  char* workspace = workspaces_after(scratch, plan);
  for (int task = 0; task < plan.num_tasks; task++) vec4::table.attend_task(args, plan, task, scratch, workspace);
  vec4::table.attend_merge(args, plan, scratch, workspace);
}

EXPORT(open_board) extern "C" void open_board(int32_t threads) { board.num_threads = threads; }

EXPORT(post_attend) extern "C" void post_attend(int32_t slot, const double* numbers, char* scratch) {
  Job& job = board.jobs[slot];
  read_attend(Row{numbers}, &job.args, job.segments);
  vec4::table.attend_plan(job.args, &job.plan);
  job.kind = JobKind::attend;
  job.num_tasks = job.plan.num_tasks;
  job.partials = scratch;
  job.workspaces = workspaces_after(scratch, job.plan);
  job.workspace_bytes = job.plan.workspace_bytes;
  post(job);
}

static SeekArgs read_seek(const double* numbers) {
  Row row{numbers};
  SeekArgs args;
  args.num_heads = row.integer();
  args.num_kv_heads = row.integer();
  args.head_dim = row.integer();
  args.scale = (float)row.number();
  args.capacity = row.integer();
  args.num_rows = row.integer();
  args.most = row.integer();
  args.query = row.pointer<float>();
  args.bounds = row.pointer<char>();
  args.storage = (Storage)row.integer();
  args.bias = row.pointer<float>();
  args.rows = row.pointer<int32_t>();
  args.lengths = row.pointer<int32_t>();
  return args;
}

static SeekPlan plan_of(const SeekArgs& args) {
  SeekPlan plan;
  vec4::table.seek_plan(args, &plan);
  return plan;
}

// Bytes of scratch that `seek` needs on so many threads.
EXPORT(seek_scratch) extern "C" double seek_scratch(const double* numbers, int32_t threads) {
  const SeekPlan plan = plan_of(read_seek(numbers));
  return (double)(threads * plan.workspace_bytes + plan.partial_bytes);
}

EXPORT(seek) extern "C" void seek(const double* numbers, char* scratch) {
  const SeekArgs args = read_seek(numbers);
  const SeekPlan plan = plan_of(args);
  char* partials = scratch + plan.workspace_bytes;
  for (int task = 0; task < plan.num_tasks; task++) vec4::table.seek_task(args, plan, task, partials, scratch);
  vec4::table.seek_merge(args, plan, partials);
}

EXPORT(post_seek) extern "C" void post_seek(const double* numbers, char* scratch) {
  Job& job = board.jobs[0];
  job.seek_args = read_seek(numbers);
  job.seek_plan = plan_of(job.seek_args);
  job.kind = JobKind::seek;
  job.num_tasks = (int32_t)job.seek_plan.num_tasks;
  job.workspaces = scratch;
  job.workspace_bytes = job.seek_plan.workspace_bytes;
  job.partials = scratch + board.num_threads * job.workspace_bytes;
  post(job);
}

// `sums`: 8 bytes a task; `data`: null for multiply_add.
EXPORT(post_measurement) extern "C" void post_measurement(const float* data, double count, int32_t tasks, double* sums) {
  Job& job = board.jobs[0];
  job.kind = data ? JobKind::read : JobKind::multiply_add;
  job.num_tasks = tasks;
  job.data = data;
  job.count = (int64_t)count;
  job.sums = sums;
  job.workspace_bytes = 0;
  post(job);
}

EXPORT(complete) extern "C" int32_t complete_job(int32_t slot, int32_t may_sleep) {
  return complete(vec4::table, slot, may_sleep);
}
EXPORT(job_state) extern "C" int32_t job_state(int32_t slot) { return atomic_load(&board.jobs[slot].state); }
EXPORT(serve) extern "C" int32_t serve_board(int32_t thread) { return serve(vec4::table, thread); }
EXPORT(abandon) extern "C" int32_t abandon_task(int32_t thread) { return abandon(vec4::table, thread); }
EXPORT(close_board) extern "C" void close_jobs() { close_board(); }

// Bytes of scratch that `weigh` needs.
EXPORT(weigh_scratch) extern "C" double weigh_scratch(const double* numbers) {
  WeighCall call(numbers);
  WeighPlan plan;
  vec4::table.weigh_plan(call.args, &plan);
  return (double)plan.workspace_bytes;
}

EXPORT(weigh) extern "C" void weigh(const double* numbers, char* scratch) {
  WeighCall call(numbers);
  WeighPlan plan;
  vec4::table.weigh_plan(call.args, &plan);
  for (int task = 0; task < plan.num_tasks; task++) vec4::table.weigh_task(call.args, plan, task, scratch);
}

// Rows and where they go; the list of which rows is the caller's.
static void read_target(Row& row, StoreArgs* args, int64_t K) {
  args->num_kv_heads = K;
  args->head_dim = row.integer();
  const int layout = row.integer();
  const int64_t C = row.integer();
  args->source = row.pointer<float>();
  args->target = row.pointer<char>();
  args->storage = (Storage)row.integer();
  args->rotation = read_rotation(row);
  args->is_transformed = row.integer();
  const int64_t bytes = row_bytes(args->storage, args->head_dim);
  args->head_stride = layout == kHeadMajor ? C * bytes : layout == kTokenMajor ? bytes : 0;
  args->row_stride = layout == kTokenMajor ? K * bytes : bytes;
}

// Stores rows of several arrays as `list` says.
static void store_targets(Row& row, const StoreArgs& list, int64_t K, char* scratch) {
  const int num_targets = row.integer();
  for (int i = 0; i < num_targets; i++) {
    StoreArgs target = list;
    read_target(row, &target, K);
    vec4::table.store(target, scratch);
  }
}

// `scratch`: head_dim * 4 bytes of the widest target.
EXPORT(store) extern "C" void store(const double* numbers, char* scratch) {
  Row row{numbers};
  StoreArgs list;
  row.integer();  // numTokens
  const int64_t K = row.integer();
  list.stride = row.integer();
  list.counts = row.pointer<int32_t>();
  list.tokens = row.pointer<int32_t>();
  list.slots = row.pointer<int32_t>();
  store_targets(row, list, K, scratch);
}

// `scratch`: head_dim * 4 bytes and a vector.
EXPORT(turn) extern "C" void turn(const double* numbers, char* scratch) {
  Row row{numbers};
  TurnArgs args;
  row.integer();  // numTokens
  args.head_dim = row.integer();
  row.integer();  // capacity
  args.source = row.pointer<char>();
  args.target = row.pointer<char>();
  args.storage = (Storage)row.integer();
  args.is_transformed = row.integer();
  args.count = row.integer();
  args.rows = row.pointer<int32_t>();
  args.turns = row.pointer<int32_t>();
  args.rotation = read_rotation(row);
  if (args.rotation.cos) vec4::table.turn(args, 0, args.count, scratch);
}

EXPORT(rotate) extern "C" void rotate(const double* numbers) {
  Row row{numbers};
  RotateArgs args;
  args.num_tokens = row.integer();
  args.num_heads = row.integer();
  args.head_dim = row.integer();
  args.vectors = row.pointer<float>();
  args.is_inverse = row.integer();
  args.rotation = read_rotation(row);
  if (args.rotation.cos) vec4::table.rotate(args);
}

static Status read_and_retain(Row& row, RetainArgs& args) {
  args.num_kv_heads = row.integer();
  args.window = row.integer();
  args.sinks = row.integer();
  args.recent = row.integer();
  args.num_tokens = row.integer();
  args.first_position = row.number();
  args.kept_scores = row.pointer<float>();
  args.kept_positions = row.pointer<double>();
  args.lengths = row.pointer<int32_t>();
  args.heap = row.pointer<int32_t>();
  args.heap_lengths = row.pointer<int32_t>();
  args.accepted = row.pointer<double>();
  args.ring = row.pointer<int32_t>();
  args.scores = row.pointer<float>();
  args.row_deaths = row.pointer<int32_t>();
  args.token_deaths = row.pointer<int32_t>();
  args.counts = row.pointer<int32_t>();
  args.tokens = row.pointer<int32_t>();
  args.slots = row.pointer<int32_t>();
  args.left_positions = row.pointer<double>();
  args.left_scores = row.pointer<float>();
  Status status = retain_check(args);
  for (int head = 0; head < args.num_kv_heads && status == Status::ok; head++) status = retain_head(args, head);
  return status;
}

EXPORT(retain) extern "C" int32_t retain(const double* numbers) {
  Row row{numbers};
  RetainArgs args;
  return (int32_t)read_and_retain(row, args);
}

// `scratch`: head_dim * 4 bytes of the widest target.
EXPORT(keep) extern "C" int32_t keep(const double* numbers, char* scratch) {
  Row row{numbers};
  RetainArgs args;
  const Status status = read_and_retain(row, args);
  if (status != Status::ok) return (int32_t)status;
  StoreArgs list;
  list.stride = args.num_tokens < args.window ? args.num_tokens : args.window;
  list.counts = args.counts;
  list.tokens = args.tokens;
  list.slots = args.slots;
  store_targets(row, list, args.num_kv_heads, scratch);
  return (int32_t)status;
}

// `scratch`: num_rows * 8 bytes.
EXPORT(select) extern "C" void select(const double* numbers, char* scratch) {
  Row row{numbers};
  SelectArgs args;
  const int num_kv_heads = row.integer();
  args.capacity = row.integer();
  args.num_rows = row.integer();
  args.window = row.integer();
  args.scores = row.pointer<float>();
  args.rows = row.pointer<int32_t>();
  args.lengths = row.pointer<int32_t>();
  for (int head = 0; head < num_kv_heads; head++) select_head(args, head, scratch);
}

EXPORT(read) extern "C" float read(const float* data, double count) { return vec4::table.read(data, (int64_t)count); }

EXPORT(multiply_add) extern "C" double multiply_add(double iterations) {
  double flops;
  const float sum = vec4::table.multiply_add((int64_t)iterations, &flops);
  return flops + (sum != sum ? 1 : 0);
}

}  // namespace kvasir
