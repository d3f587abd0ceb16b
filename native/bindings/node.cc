// The kernels as a Node addon. Every function takes flat positional arguments (reading properties would cost more than
// a short decode step), checks them against the sizes they imply, and throws a plain Error that the TypeScript side
// wraps. Nothing but a call in the background, which holds on to its arrays, keeps a pointer into
// JavaScript memory after it returns.
#include <node_api.h>

#include <cstring>
#include <exception>
#include <memory>
#include <new>

#include "dispatch.h"
#include "interface.h"
#include "node_attend.h"
#include "node_cache.h"
#include "node_machine.h"

namespace kvasir {
namespace {

constexpr int kMaxThreads = 256;

// Runs a function of this addon; what the standard library throws (no memory, no thread) becomes a JavaScript error.
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
      {"turn", guarded<turn>},
      {"rotate", guarded<rotate>},
      {"retain", guarded<retain>},
      {"keep", guarded<keep>},
      {"select", guarded<select>},
      {"seek", guarded<seek>},
      {"read", guarded<read>},
      {"multiplyAdd", guarded<multiply_add>},
  };
  for (const auto& entry : functions) {
    napi_value function;
    napi_create_function(env, entry.name, NAPI_AUTO_LENGTH, entry.function, nullptr, &function);
    napi_set_named_property(env, exports, entry.name, function);
  }
  napi_value version;
  napi_create_int32(env, KVASIR_INTERFACE, &version);
  napi_set_named_property(env, exports, "interfaceVersion", version);
  return exports;
}

}  // namespace
}  // namespace kvasir

NAPI_MODULE_INIT() { return kvasir::init(env, exports); }
