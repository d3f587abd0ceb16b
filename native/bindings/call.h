// The arguments of a call from JavaScript, read one after the other and checked.
#pragma once
#include <node_api.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <string>

namespace kvasir {

constexpr int kMaxArguments = 160;
constexpr napi_type_tag kEngineTag = {0x6b76617369722e65, 0x6e67696e652e3031};

inline std::string text_of(double value) {
  char text[32];
  snprintf(text, sizeof text, "%.17g", value);
  return text;
}

inline const char* name_of(napi_typedarray_type type) {
  switch (type) {
    case napi_float32_array: return "Float32Array";
    case napi_float64_array: return "Float64Array";
    case napi_int32_array: return "Int32Array";
    case napi_uint16_array: return "Uint16Array";
    case napi_uint8_array: return "Uint8Array";
    default: return "typed array of another type";
  }
}

inline std::string names_of(std::initializer_list<napi_typedarray_type> types) {
  std::string names;
  for (napi_typedarray_type type : types) names += std::string(names.empty() ? "" : " or ") + name_of(type);
  return names;
}

struct View {
  void* data = nullptr;
  int64_t length = 0;  // elements
  bool given = false;
  napi_typedarray_type type = napi_uint8_array;
  template <typename X>
  X* as() const {
    return (X*)data;
  }
};

// The arguments of one call. After the first failure everything returns zeros and `ok()` is false.
class Call {
 public:
  Call(napi_env env, napi_callback_info info) : env_(env) {
    count_ = kMaxArguments;
    const napi_status status = napi_get_cb_info(env, info, &count_, values_, nullptr, nullptr);
    if (status != napi_ok) fail("cannot read arguments");
    // Now it is how many were passed, which may be more than there was room for.
    else if (count_ > kMaxArguments) fail("expected at most " + std::to_string(kMaxArguments) + " arguments, got " + std::to_string(count_));
  }

  bool ok() const { return !failed_; }

  void fail(const std::string& message) {
    if (failed_) return;
    failed_ = true;
    napi_throw_error(env_, "KVASIR_NATIVE", message.c_str());
  }

  // What `open` handed out, as an opaque pointer. Other addons make externals too: ours carry a tag.
  void* external() {
    bool is_ours = false;
    void* data = nullptr;
    napi_valuetype type;
    napi_value value = next("engine");
    if (!value || napi_typeof(env_, value, &type) != napi_ok || type != napi_external ||
        napi_check_object_type_tag(env_, value, &kEngineTag, &is_ours) != napi_ok || !is_ours ||
        napi_get_value_external(env_, value, &data) != napi_ok || !data) {
      fail("expected an engine of this addon as first argument");
      return nullptr;
    }
    return data;
  }

  double number(const char* name) {
    double result = 0;
    napi_value value = next(name);
    if (!value || napi_get_value_double(env_, value, &result) != napi_ok) fail(std::string("expected a number for ") + name);
    return result;
  }

  float finite(const char* name) {
    const double value = number(name);
    if (!failed_ && !std::isfinite((float)value)) {
      fail(std::string("expected a finite number for ") + name + ", got " + text_of(value));
    }
    return failed_ ? 0 : (float)value;
  }

  int32_t integer(const char* name, double low, double high) {
    const double value = number(name);
    if (failed_) return 0;
    if (!(value >= low && value <= high) || value != (double)(int64_t)value) {
      fail(std::string("expected an integer from ") + text_of(low) + " to " + text_of(high) + " for " + name + ", got " +
           text_of(value));
      return 0;
    }
    return (int32_t)value;
  }

  bool boolean(const char* name) {
    bool result = false;
    napi_value value = next(name);
    if (!value || napi_get_value_bool(env_, value, &result) != napi_ok) fail(std::string("expected a boolean for ") + name);
    return result;
  }

  // A typed array of one of the wanted types with at least `least` elements; undefined gives an empty view if allowed.
  View view(const char* name, std::initializer_list<napi_typedarray_type> wanted, int64_t least, bool optional = false) {
    View view;
    napi_value value = next(name);
    if (failed_ || !value) return view;
    // In one call where the value is an array: others say what it is else. A step passes dozens.
    size_t length = 0;
    view.given = true;
    if (napi_get_typedarray_info(env_, value, &view.type, &length, &view.data, nullptr, nullptr) != napi_ok) {
      napi_valuetype kind;
      if (optional && napi_typeof(env_, value, &kind) == napi_ok && kind == napi_undefined) return View();
      fail(std::string("expected a typed array for ") + name);
      return View();
    }
    bool matches = false;
    for (napi_typedarray_type type : wanted) matches = matches || type == view.type;
    view.length = (int64_t)length;
    if (!matches) fail("expected a " + names_of(wanted) + " for " + name + ", got a " + name_of(view.type));
    else if (view.length < least) {
      fail(std::string("expected at least ") + std::to_string(least) + " elements in " + name + ", got " + std::to_string(length));
    }
    return failed_ ? View() : view;
  }
  View floats(const char* name, int64_t least, bool optional = false) {
    return view(name, {napi_float32_array}, least, optional);
  }
  View doubles(const char* name, int64_t least, bool optional = false) {
    return view(name, {napi_float64_array}, least, optional);
  }
  View ints(const char* name, int64_t least, bool optional = false) {
    return view(name, {napi_int32_array}, least, optional);
  }
  View stored(const char* name, int64_t least) {
    return view(name, {napi_float32_array, napi_uint16_array, napi_uint8_array}, least);
  }

  // All arguments as one JavaScript array: holding it keeps the memory of the call alive.
  napi_value all() const {
    napi_value array;
    napi_create_array_with_length(env_, count_, &array);
    for (size_t i = 0; i < count_; i++) napi_set_element(env_, array, (uint32_t)i, values_[i]);
    return array;
  }

 private:
  napi_value next(const char* name) {
    if (failed_) return nullptr;
    if (at_ >= count_) {
      fail(std::string("missing argument ") + name);
      return nullptr;
    }
    return values_[at_++];
  }

  napi_env env_;
  napi_value values_[kMaxArguments];
  size_t count_ = 0, at_ = 0;
  bool failed_ = false;
};

}  // namespace kvasir
