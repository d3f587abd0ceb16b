// A pool that runs `task(i)` for i in [0, count) on its threads and the caller's. Idle threads spin for a moment, since
// the next layer's call is near, then sleep.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace kvasir {

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads) {
    try {
      for (int i = 1; i < num_threads; i++) threads_.emplace_back([this, i] { serve(i); });
    } catch (...) {
      stop();  // a destructor does not run for what was not constructed
      throw;
    }
  }

  ~ThreadPool() { stop(); }

  int num_threads() const { return (int)threads_.size() + 1; }

  // `task(index, thread)`; returns when all are done. Not reentrant: one caller at a time. Threads that have not woken by
  // the time everything is taken are not waited for: on a busy machine that takes milliseconds.
  void run(int count, const std::function<void(int, int)>& task) {
    if (count <= 1 || threads_.empty()) {
      for (int i = 0; i < count; i++) task(i, 0);
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      task_ = &task;
      count_ = count;
      next_.store(0);
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    work(task, count, 0);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      task_ = nullptr;  // nobody begins from here on
    }
    // Spins while the others finish their last task; on an overloaded machine they may need this processor for it.
    for (int spin = 0; busy_.load(std::memory_order_acquire) > 0; spin++) {
      if (spin < kSpins) pause();
      else std::this_thread::yield();
    }
  }

 private:
  static constexpr int kSpins = 2000;

  void stop() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  static void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
  }

  void work(const std::function<void(int, int)>& task, int count, int thread) {
    for (int i = next_.fetch_add(1); i < count; i = next_.fetch_add(1)) task(i, thread);
  }

  void serve(int thread) {
    unsigned seen = 0;
    for (;;) {
      for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen; spin++) pause();
      const std::function<void(int, int)>* task;
      int count;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load() != seen; });
        seen = generation_.load();
        if (stopping_) return;
        if (!task_) continue;  // woke too late
        task = task_;
        count = count_;
        busy_.fetch_add(1);
      }
      work(*task, count, thread);
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  const std::function<void(int, int)>* task_ = nullptr;
  int count_ = 0;
  std::atomic<int> next_{0}, busy_{0};
  std::atomic<unsigned> generation_{0};
  bool stopping_ = false;
};

}  // namespace kvasir
