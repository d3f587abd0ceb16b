// The kept set (see KeptSet in src/kernels/contract.ts): a min-heap of rows by (score, position) for each KV head, so
// that a token costs O(log W). Tokens of the current call have the ids W, W + 1, ... until the call ends and those that
// stay take rows.
#include "kvasir/kernels.h"

namespace kvasir {
namespace {

class Head {
 public:
  Head(const RetainArgs& args, int k)
      : a_(args),
        k_(k),
        scores_(args.kept_scores + (int64_t)k * args.window),
        positions_(args.kept_positions + (int64_t)k * args.window),
        heap_(args.heap + (int64_t)k * args.window),
        ring_(args.ring + (int64_t)k * args.recent),
        row_deaths_(args.row_deaths ? args.row_deaths + (int64_t)k * args.window : nullptr),
        token_deaths_(args.token_deaths + (int64_t)k * args.num_tokens),
        stride_(args.num_tokens < args.window ? args.num_tokens : args.window),
        slots_(args.slots + (int64_t)k * stride_),
        tokens_(args.tokens + (int64_t)k * stride_),
        heap_length_(args.heap_lengths[k]),
        competing_(args.window - args.sinks - args.recent) {}

  // What a step with a single token looks at first, of all heads at once: one by one each waits for memory.
  static void prefetch(const RetainArgs& a) {
    for (int k = 0; k < a.num_kv_heads; k++) {
      if (a.recent > 0) __builtin_prefetch(a.ring + (int64_t)k * a.recent + ring_place(a, k));
      __builtin_prefetch(a.heap + (int64_t)k * a.window);
    }
    for (int k = 0; k < a.num_kv_heads; k++) {
      const int64_t row = a.recent > 0 ? a.ring[(int64_t)k * a.recent + ring_place(a, k)] : a.heap[(int64_t)k * a.window];
      if (row < 0 || row >= a.window) continue;
      __builtin_prefetch(a.kept_scores + k * (int64_t)a.window + row, 1);
      __builtin_prefetch(a.kept_positions + k * (int64_t)a.window + row, 1);
    }
  }

  Status run() {
    if (!state_is_sane()) return Status::corrupt_state;
    if (row_deaths_) {
      for (int row = 0; row < a_.window; row++) row_deaths_[row] = kNever;
    }
    for (int t = 0; t < a_.num_tokens; t++) take(t);
    if (!give_rows()) return Status::corrupt_state;
    a_.heap_lengths[k_] = heap_length_;
    return Status::ok;
  }

 private:
  static int64_t ring_place(const RetainArgs& a, int k) {
    const double after_sinks = a.accepted[k] - a.sinks;
    return after_sinks >= 0 && after_sinks < 9e15 ? (int64_t)after_sinks % a.recent : 0;
  }

  // The arrays are visible to JavaScript: what they hold is checked before it is used as an index.
  bool state_is_sane() const {
    const int length = a_.lengths[k_];
    if (length < 0 || length > a_.window || heap_length_ < 0 || heap_length_ > competing_) return false;
    if (heap_length_ > length || !(a_.accepted[k_] >= length && a_.accepted[k_] <= 9007199254740992.0)) return false;
    // One step of a single token looks at O(log W) entries of the heap; all of them are checked only in long calls.
    const int depth = a_.num_tokens == 1 ? 0 : heap_length_;
    for (int i = 0; i < depth; i++) {
      if (heap_[i] < 0 || heap_[i] >= a_.window) return false;
    }
    return true;
  }

  int clamp(int id) const { return id < 0 || id >= a_.window + a_.num_tokens ? 0 : id; }
  float score(int id) const { return id < a_.window ? scores_[id] : a_.scores[(int64_t)(id - a_.window) * a_.num_kv_heads + k_]; }
  double position(int id) const { return id < a_.window ? positions_[id] : a_.first_position + (id - a_.window); }
  bool beats(int a, int b) const {
    a = clamp(a);
    b = clamp(b);
    return score(a) != score(b) ? score(a) > score(b) : position(a) > position(b);
  }

  void take(int t) {
    const float mine = a_.scores[(int64_t)t * a_.num_kv_heads + k_];
    token_deaths_[t] = kNever;
    if (mine == -__builtin_inff()) {
      token_deaths_[t] = t;
      return;
    }
    const double number = a_.accepted[k_]++;
    if (number < a_.sinks) return;
    int id = a_.window + t;
    if (a_.recent > 0) {
      const double after_sinks = number - a_.sinks;
      int* place = ring_ + (int64_t)after_sinks % a_.recent;
      const int leaving = *place;
      *place = id;
      if (after_sinks < a_.recent) return;
      id = clamp(leaving);
    }
    compete(id, t);
  }

  void compete(int id, int t) {
    if (heap_length_ < competing_) {
      heap_[heap_length_] = id;
      rise(heap_length_++);
    } else if (competing_ > 0 && beats(id, heap_[0])) {
      evict(clamp(heap_[0]), t);
      heap_[0] = id;
      sink(0);
    } else {
      evict(id, t);
    }
  }

  void evict(int id, int t) {
    if (id >= a_.window) {
      token_deaths_[id - a_.window] = t;
      return;
    }
    if (row_deaths_) row_deaths_[id] = t;
    // At most one eviction a token, and never more rows than W: the list of freed rows fits where rows are handed out.
    if (freed_ < stride_) slots_[freed_++] = id;
  }

  void rise(int i) {
    while (i > 0) {
      const int parent = (i - 1) / 2;
      if (!beats(heap_[parent], heap_[i])) break;
      swap(i, parent);
      i = parent;
    }
    touched_ = i;
  }

  void sink(int i) {
    for (;;) {
      int least = i;
      for (int child = 2 * i + 1; child <= 2 * i + 2; child++) {
        if (child < heap_length_ && beats(heap_[least], heap_[child])) least = child;
      }
      if (least == i) break;
      swap(i, least);
      i = least;
    }
    touched_ = i;
  }

  void swap(int i, int j) {
    const int id = heap_[i];
    heap_[i] = heap_[j];
    heap_[j] = id;
  }

  // Tokens that stay take the freed rows, then fresh ones; ids in heap and ring become rows.
  // False when a row is out of bounds: outputs that overlap other arrays do that.
  bool give_rows() {
    int count = 0, length = a_.lengths[k_];
    for (int t = 0; t < a_.num_tokens; t++) {
      if (token_deaths_[t] != kNever || count == stride_) continue;
      if (count >= freed_) {
        if (length == a_.window) break;
        slots_[count] = length++;
      }
      tokens_[count++] = t;
    }
    a_.counts[k_] = count;
    a_.lengths[k_] = length;
    for (int n = 0; n < count; n++) {
      const int row = slots_[n], id = a_.window + tokens_[n];
      if ((uint32_t)row >= (uint32_t)a_.window || (uint32_t)tokens_[n] >= (uint32_t)a_.num_tokens) return false;
      if (a_.left_positions) {
        a_.left_positions[(int64_t)k_ * stride_ + n] = n < freed_ ? positions_[row] : __builtin_nan("");
        a_.left_scores[(int64_t)k_ * stride_ + n] = n < freed_ ? scores_[row] : __builtin_nanf("");
      }
      scores_[row] = score(id);
      positions_[row] = position(id);
    }
    if (a_.num_tokens == 1) rename_one(count);
    else rename_all(count);
    return true;
  }

  int row_of(int id, int count) const {
    if (id < a_.window) return id;
    int low = 0, high = count;  // tokens_ ascends
    while (low < high) {
      const int middle = (low + high) / 2;
      if (tokens_[middle] < id - a_.window) low = middle + 1;
      else high = middle;
    }
    return low < count ? slots_[low] : 0;
  }

  void rename_one(int count) {
    if (touched_ >= 0 && touched_ < heap_length_) heap_[touched_] = row_of(heap_[touched_], count);
    if (a_.recent > 0 && count > 0 && a_.accepted[k_] > a_.sinks) {
      int* place = ring_ + (int64_t)(a_.accepted[k_] - 1 - a_.sinks) % a_.recent;
      *place = row_of(*place, count);
    }
  }

  void rename_all(int count) {
    for (int i = 0; i < heap_length_; i++) heap_[i] = row_of(heap_[i], count);
    const double used = a_.accepted[k_] - a_.sinks;
    for (int i = 0; i < a_.recent && i < used; i++) ring_[i] = row_of(ring_[i], count);
  }

  const RetainArgs& a_;
  const int k_;
  float* const scores_;
  double* const positions_;
  int32_t *const heap_, *const ring_, *const row_deaths_, *const token_deaths_;
  const int stride_;
  int32_t *const slots_, *const tokens_;
  int heap_length_;
  const int competing_;
  int freed_ = 0;
  int touched_ = -1;  // where the last id put into the heap came to lie
};

}  // namespace

Status retain_check(const RetainArgs& args) {
  if (args.num_tokens == 1) Head::prefetch(args);  // comes while the scores are looked at
  for (int64_t i = 0; i < (int64_t)args.num_tokens * args.num_kv_heads; i++) {
    if (args.scores[i] != args.scores[i]) return Status::nan_score;
  }
  return Status::ok;
}

Status retain_head(const RetainArgs& args, int head) { return Head(args, head).run(); }

}  // namespace kvasir
