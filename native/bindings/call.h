// The arguments of a call from JavaScript, read one after the other and checked.
#pragma once
#include <node_api.h>

#include <cstdint>
#include <initializer_list>
#include <string>

namespace kvasir {

constexpr int kMaxArguments = 64;

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
    if (napi_get_cb_info(env, info, &count_, values_, nullptr, nullptr) != napi_ok) fail("cannot read arguments");
  }

  bool ok() const { return !failed_; }

  void fail(const std::string& message) {
    if (failed_) return;
    failed_ = true;
    napi_throw_error(env_, "KVASIR_NATIVE", message.c_str());
  }

  // What `open` handed out, as an opaque pointer.
  void* external() {
    void* data = nullptr;
    napi_valuetype type;
    napi_value value = next("engine");
    if (!value || napi_typeof(env_, value, &type) != napi_ok || type != napi_external ||
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

  int32_t integer(const char* name, double low, double high) {
    const double value = number(name);
    if (failed_) return 0;
    if (!(value >= low && value <= high) || value != (double)(int64_t)value) {
      fail(std::string("expected an integer in range for ") + name);
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
    napi_valuetype kind;
    napi_typeof(env_, value, &kind);
    if (kind == napi_undefined && optional) return view;
    view.given = true;
    bool is_array = false;
    napi_is_typedarray(env_, value, &is_array);
    size_t length = 0, offset;
    napi_value buffer;
    if (!is_array || napi_get_typedarray_info(env_, value, &view.type, &length, &view.data, &buffer, &offset) != napi_ok) {
      fail(std::string("expected a typed array for ") + name);
      return View();
    }
    bool matches = false;
    for (napi_typedarray_type type : wanted) matches = matches || type == view.type;
    view.length = (int64_t)length;
    if (!matches) fail(std::string("wrong element type of ") + name);
    else if (view.length < least) {
      fail(std::string("expected at least ") + std::to_string(least) + " elements in " + name + ", got " + std::to_string(length));
    }
    return failed_ ? View() : view;
  }
  View floats(const char* name, int64_t least, bool optional = false) {
    return view(name, {napi_float32_array}, least, optional);
  }
  View doubles(const char* name, int64_t least) { return view(name, {napi_float64_array}, least); }
  View ints(const char* name, int64_t least, bool optional = false) {
    return view(name, {napi_int32_array}, least, optional);
  }
  View stored(const char* name, int64_t least) { return view(name, {napi_float32_array, napi_uint16_array}, least); }

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
