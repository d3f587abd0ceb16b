// How calls reach the workers of a WebAssembly module with shared memory: a board of jobs that lies in that memory, as
// do all statics, so that every instance sees the same one. The thread that owns the module posts jobs; workers take
// tasks until none are left, and whoever finishes a job's last task merges its results. Which thread does what has no
// influence on them.
#pragma once
#include "wasm_call.h"

namespace kvasir {

enum class JobKind : int32_t { attend = 0, read = 1, multiply_add = 2, seek = 3 };
enum JobState : int32_t { kRunning = 0, kDone = 1, kFailed = 2 };

constexpr int kMaxThreads = 256;
// Slot 0 is for the calls that the owner waits for: workers look there first. The others are calls in the background.
constexpr int kSlots = 16;
// About 20 microseconds: the next layer's call is often that near.
constexpr int kSpins = 20000;

struct Job {
  // A slot is used again only after each of its tasks is finished, and a task is taken by bringing `remaining` down
  // from above zero: so whoever has taken one may read the rest.
  int32_t remaining, unfinished, state, has_failed;
  JobKind kind;
  int32_t num_tasks;
  AttendArgs args;
  Segment segments[kMaxSegments];
  AttendPlan plan;
  SeekArgs seek_args;
  SeekPlan seek_plan;
  char* partials;
  char* workspaces;  // one for each thread
  int64_t workspace_bytes;
  // Of the measurements: what is read or how often, and a sum for each task.
  const float* data;
  int64_t count;
  double* sums;
};

struct Board {
  int32_t epoch;     // goes up with each job: what sleeping workers wait for
  int32_t sleepers;
  int32_t is_closed;
  int32_t num_threads;  // the owner's included; a worker past them helps in the background only
  int32_t held[kMaxThreads + 1];  // 1 + the slot whose task a thread is at, 0 for none
  Job jobs[kSlots];
};

static Board board;

template <typename X>
static inline X atomic_load(X* at) {
  return __atomic_load_n(at, __ATOMIC_SEQ_CST);
}
template <typename X>
static inline void atomic_store(X* at, X value) {
  __atomic_store_n(at, value, __ATOMIC_SEQ_CST);
}

static void run_task(const KernelTable& table, Job& job, int task, char* workspace) {
  if (job.kind == JobKind::attend) {
    table.attend_task(job.args, job.plan, task, job.partials, workspace);
  } else if (job.kind == JobKind::seek) {
    table.seek_task(job.seek_args, job.seek_plan, task, job.partials, workspace);
  } else if (job.kind == JobKind::read) {
    const int64_t begin = job.count * task / job.num_tasks, end = job.count * (task + 1) / job.num_tasks;
    job.sums[task] = table.read(job.data + begin, end - begin);
  } else {
    double flops;
    const float sum = table.multiply_add(job.count, &flops);
    job.sums[task] = flops + (sum != sum ? 1 : 0);
  }
}

// The thread's own workspace: in the background the owner takes no part.
static char* workspace_of(const Job& job, int slot, int thread) {
  return job.workspaces + (slot == 0 || thread == 0 ? thread : thread - 1) * job.workspace_bytes;
}

// The number of a task that is this thread's now; -1: none are left.
static int take_task(Job& job) {
  int32_t remaining = atomic_load(&job.remaining);
  while (remaining > 0) {
    if (__atomic_compare_exchange_n(&job.remaining, &remaining, remaining - 1, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST)) {
      return job.num_tasks - remaining;
    }
  }
  return -1;
}

static void end_job(Job& job, int32_t state) {
  atomic_store(&job.state, state);
  __builtin_wasm_memory_atomic_notify(&job.state, 1);
}

// One task of the thread's less to do; true when it was the job's last. After that the slot belongs to the owner.
static bool finish_task(const KernelTable& table, Job& job, int thread, char* workspace) {
  const bool is_last = __atomic_fetch_sub(&job.unfinished, 1, __ATOMIC_SEQ_CST) == 1;
  const bool has_failed = is_last && atomic_load(&job.has_failed);
  if (is_last && !has_failed && job.kind == JobKind::attend) {
    table.attend_merge(job.args, job.plan, job.partials, workspace);
  }
  if (is_last && !has_failed && job.kind == JobKind::seek) {
    table.seek_merge(job.seek_args, job.seek_plan, job.partials);
  }
  atomic_store(&board.held[thread], 0);
  if (is_last) end_job(job, has_failed ? kFailed : kDone);
  return is_last;
}

// Takes a task of the job and does it. Returns 0 when there was none, 1 after one, 2 when that finished the job.
static int help(const KernelTable& table, int slot, int thread) {
  Job& job = board.jobs[slot];
  const int task = take_task(job);
  if (task < 0) return 0;
  char* workspace = workspace_of(job, slot, thread);
  atomic_store(&board.held[thread], slot + 1);
  run_task(table, job, task, workspace);
  return finish_task(table, job, thread, workspace) ? 2 : 1;
}

static void post(Job& job) {
  job.state = kRunning;
  job.has_failed = 0;
  job.unfinished = job.num_tasks;
  atomic_store(&job.remaining, job.num_tasks);
  __atomic_fetch_add(&board.epoch, 1, __ATOMIC_SEQ_CST);
  if (atomic_load(&board.sleepers) > 0) __builtin_wasm_memory_atomic_notify(&board.epoch, job.num_tasks);
}

// A slot with tasks left that this worker may take, -1 for none: first the call that the owner waits for, then the one
// that the worker was at.
static int find_job(int thread, int last) {
  if (thread < board.num_threads && atomic_load(&board.jobs[0].remaining) > 0) return 0;
  for (int i = 0; i < kSlots; i++) {
    const int slot = (last + i) % kSlots;
    if (slot != 0 && atomic_load(&board.jobs[slot].remaining) > 0) return slot;
  }
  return -1;
}

// Until the board changes: awake for a moment, then asleep.
static void await_change(int32_t epoch) {
  for (int spin = 0; spin < kSpins; spin++) {
    if (atomic_load(&board.epoch) != epoch) return;
  }
  __atomic_fetch_add(&board.sleepers, 1, __ATOMIC_SEQ_CST);
  __builtin_wasm_memory_atomic_wait32(&board.epoch, epoch, -1);
  __atomic_fetch_sub(&board.sleepers, 1, __ATOMIC_SEQ_CST);
}

// The life of a worker: returns the slot of a background job that it has finished, to be told to the owner, or -1 when
// the board is closed.
static int serve(const KernelTable& table, int thread) {
  int last = 1;
  for (;;) {
    const int32_t epoch = atomic_load(&board.epoch);
    if (atomic_load(&board.is_closed)) return -1;
    const int slot = find_job(thread, last);
    if (slot < 0) {
      await_change(epoch);
      continue;
    }
    if (slot > 0) last = slot;
    if (help(table, slot, thread) == 2 && slot > 0) return slot;
  }
}

// The owner works on the call that it waits for, then waits for what others have taken. Where it may not sleep (the
// main thread of a page) it keeps spinning: that is one task's time at most.
static int32_t complete(const KernelTable& table, int slot, bool may_sleep) {
  Job& job = board.jobs[slot];
  while (help(table, slot, 0) == 1) {
  }
  for (int spin = 0; atomic_load(&job.state) == kRunning; spin++) {
    if (may_sleep && spin > kSpins) __builtin_wasm_memory_atomic_wait32(&job.state, kRunning, -1);
  }
  return job.state;
}

// What a thread was at when it broke off counts as finished, and its job as failed. Returns the slot of a background
// job that has come to its end by that, else -1.
static int abandon(const KernelTable& table, int thread) {
  const int slot = atomic_load(&board.held[thread]) - 1;
  if (slot < 0) return -1;
  Job& job = board.jobs[slot];
  atomic_store(&job.has_failed, 1);
  bool has_ended = true;
  if (atomic_load(&job.unfinished) > 0) {
    has_ended = finish_task(table, job, thread, nullptr);
  } else {  // it was merging
    atomic_store(&board.held[thread], 0);
    end_job(job, kFailed);
  }
  return has_ended && slot > 0 ? slot : -1;
}

static void close_board() {
  atomic_store(&board.is_closed, 1);
  __atomic_fetch_add(&board.epoch, 1, __ATOMIC_SEQ_CST);
  __builtin_wasm_memory_atomic_notify(&board.epoch, kMaxThreads);
}

}  // namespace kvasir
