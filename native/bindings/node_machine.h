// Memory as kernels want it, and what the machine gives at best.
#pragma once
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "call.h"
#include "engine.h"

namespace kvasir {

constexpr size_t kHugePageBytes = 4 << 20;

// Reads all of a Float32Array with all threads; the caller takes the time.
static napi_value read(napi_env env, napi_callback_info info) {
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
static napi_value multiply_add(napi_env env, napi_callback_info info) {
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
static napi_value prepare(napi_env env, napi_callback_info info) {
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

}  // namespace kvasir
