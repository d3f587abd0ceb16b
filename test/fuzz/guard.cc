// Memory for fuzzing that faults at the first byte before or after it: AddressSanitizer does not see what vector
// instructions with masks touch. And an external that is nobody's engine.
#include <node_api.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace {

struct Mapping {
  void* begin;
  size_t bytes;
};

// allocate(bytes, atEnd) -> ArrayBuffer between two unreadable pages, flush with the one at its end or its start.
napi_value allocate(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value values[2], result;
  int64_t bytes = 0;
  bool at_end = false;
  napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  napi_get_value_int64(env, values[0], &bytes);
  napi_get_value_bool(env, values[1], &at_end);
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = ((size_t)bytes + page - 1) / page * page;
  char* begin = (char*)mmap(nullptr, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (begin == MAP_FAILED || (inner > 0 && mprotect(begin + page, inner, PROT_READ | PROT_WRITE) != 0)) {
    napi_throw_error(env, nullptr, "cannot map guarded memory");
    return nullptr;
  }
  Mapping* mapping = new Mapping{begin, inner + 2 * page};
  const auto unmap = [](napi_env, void*, void* hint) {
    Mapping* mapping = (Mapping*)hint;
    munmap(mapping->begin, mapping->bytes);
    delete mapping;
  };
  napi_create_external_arraybuffer(env, begin + page + (at_end ? inner - (size_t)bytes : 0), (size_t)bytes, unmap, mapping, &result);
  return result;
}

napi_value stranger(napi_env env, napi_callback_info) {
  static int something = 0;
  napi_value result;
  napi_create_external(env, &something, nullptr, nullptr, &result);
  return result;
}

}  // namespace

NAPI_MODULE_INIT() {
  napi_value function;
  napi_create_function(env, "allocate", NAPI_AUTO_LENGTH, allocate, nullptr, &function);
  napi_set_named_property(env, exports, "allocate", function);
  napi_create_function(env, "stranger", NAPI_AUTO_LENGTH, stranger, nullptr, &function);
  napi_set_named_property(env, exports, "stranger", function);
  return exports;
}
