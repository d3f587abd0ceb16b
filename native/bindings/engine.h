// What calls from JavaScript run on: an instruction set, its threads, and their memory.
#pragma once
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

#include "kvasir/kernels.h"
#include "thread_pool.h"

namespace kvasir {

// Below this, waking threads costs more than they save.
constexpr double kLeastParallelWork = 1 << 20;

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

}  // namespace kvasir
