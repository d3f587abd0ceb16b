// The kernels as a WebAssembly module without a C library: JavaScript owns all memory (it places blocks above
// __heap_base) and passes each call as a row of f64 numbers, pointers included, in the order of the fields below.
#include "kvasir/kernels.h"

#define EXPORT(name) __attribute__((export_name(#name)))

extern "C" __attribute__((import_module("env"), import_name("log"))) double kvasir_log(double);
extern "C" float logf(float x) { return (float)kvasir_log(x); }

namespace kvasir {
namespace vec4 {
extern const KernelTable table;
}
namespace {

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

constexpr int kMaxSegments = 4;
enum Layout { kHeadMajor = 0, kTokenMajor = 1, kShared = 2 };

int64_t bytes_of(Storage storage) { return storage == Storage::f32 ? 4 : 2; }

Rotation read_rotation(Row& row) {
  Rotation rotation;
  rotation.rotary_pairs = row.integer();
  rotation.is_interleaved = row.integer();
  rotation.cos = row.pointer<float>();
  rotation.sin = row.pointer<float>();
  return rotation;
}

void read_segment(Row& row, const AttendArgs& args, Segment* segment) {
  const int64_t K = args.num_kv_heads;
  const int64_t D = args.head_dim * bytes_of(args.storage), E = args.value_dim * bytes_of(args.storage);
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
  segment->key_head_stride = head_rows * D;
  segment->value_head_stride = head_rows * E;
  segment->key_row_stride = row_rows * D;
  segment->value_row_stride = row_rows * E;
}

void read_attend(Row row, AttendArgs* args, Segment* segments) {
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
  args->alibi_slopes = row.pointer<float>();
  args->sink_logits = row.pointer<float>();
  args->rotation = read_rotation(row);
  args->storage = (Storage)row.integer();
  args->num_segments = row.integer();
  args->segments = segments;
  for (int s = 0; s < args->num_segments && s < kMaxSegments; s++) read_segment(row, *args, &segments[s]);
}

}  // namespace

// Bytes of scratch that the call needs.
EXPORT(attend_scratch) extern "C" double attend_scratch(const double* numbers) {
  AttendArgs args;
  Segment segments[kMaxSegments];
  read_attend(Row{numbers}, &args, segments);
  AttendPlan plan;
  vec4::table.attend_plan(args, &plan);
  return (double)(plan.partial_bytes + 64 + plan.workspace_bytes);
}

EXPORT(attend) extern "C" void attend(const double* numbers, char* scratch) {
  AttendArgs args;
  Segment segments[kMaxSegments];
  read_attend(Row{numbers}, &args, segments);
  AttendPlan plan;
  vec4::table.attend_plan(args, &plan);
  char* workspace = scratch + (plan.partial_bytes + 63) / 64 * 64;
  for (int task = 0; task < plan.num_tasks; task++) vec4::table.attend_task(args, plan, task, scratch, workspace);
  vec4::table.attend_merge(args, plan, scratch, workspace);
}

// `scratch`: head_dim * 4 bytes.
EXPORT(store) extern "C" void store(const double* numbers, char* scratch) {
  Row row{numbers};
  StoreArgs args;
  row.integer();  // numTokens
  const int64_t K = args.num_kv_heads = row.integer();
  args.head_dim = row.integer();
  const int layout = row.integer();
  const int64_t C = row.integer();
  args.stride = row.integer();
  args.source = row.pointer<float>();
  args.target = row.pointer<char>();
  args.counts = row.pointer<int32_t>();
  args.tokens = row.pointer<int32_t>();
  args.slots = row.pointer<int32_t>();
  args.storage = (Storage)row.integer();
  args.rotation = read_rotation(row);
  const int64_t bytes = args.head_dim * bytes_of(args.storage);
  args.head_stride = layout == kHeadMajor ? C * bytes : layout == kTokenMajor ? bytes : 0;
  args.row_stride = layout == kTokenMajor ? K * bytes : bytes;
  vec4::table.store(args, scratch);
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

EXPORT(retain) extern "C" int32_t retain(const double* numbers) {
  Row row{numbers};
  RetainArgs args;
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
  Status status = retain_check(args);
  for (int head = 0; head < args.num_kv_heads && status == Status::ok; head++) status = retain_head(args, head);
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
