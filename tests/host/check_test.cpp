// What fp8_gemm_nt rejects, and in which words.
#include "gemm/check.h"

#include <gtest/gtest.h>

#include <functional>
#include <initializer_list>
#include <string>

#include <fmt/format.h>

namespace deep_gemm {
namespace {

/// 70 × 300 · (200 × 300)ᵀ, all of it as it should be. `check` reads no memory, so any address will do.
struct Call {
  Device device;
  Fp8Tensor a, b;
  TensorView d;
  GemmOptions options{};

  explicit Call(Device on) : device(on) {
    const auto matrix = [&](std::uintptr_t address, DType dtype, int64_t rows, int64_t cols, int64_t pitch) {
      TensorView t = TensorView::contiguous(reinterpret_cast<void*>(address), dtype, {rows, cols}, device);
      t.strides[0] = pitch;
      return t;
    };
    a = {matrix(0x100000, DType::e4m3, 70, 300, 304), matrix(0x200000, DType::f32, 70, 3, 3)};
    b = {matrix(0x300000, DType::e4m3, 200, 300, 304), matrix(0x400000, DType::f32, 2, 3, 3)};
    d = matrix(0x500000, DType::bf16, 70, 200, 200);
    options.c = matrix(0x600000, DType::bf16, 70, 200, 200);
  }
  Problem check() const { return deep_gemm::check("fp8_gemm_nt", device, a, b, d, options); }
};

constexpr Device kCpu{DeviceType::cpu, 0}, kCuda{DeviceType::cuda, 0};
using Change = std::function<void(Call&)>;

/// The call after `change` is an error on `device`, one line with the function's name and every one of `parts`.
void expect_rejected(const Device& device, const Change& change, std::initializer_list<const char*> parts) {
  Call call(device);
  change(call);
  std::string message = "(accepted)";
  try {
    call.check();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    message = error.what();
  }
  EXPECT_EQ(message.rfind("fp8_gemm_nt: ", 0), 0u) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  for (const char* part : parts)
    EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' is not in '" << message << "'";
}
void expect_rejected(const Change& change, std::initializer_list<const char*> parts) {
  for (const Device& device : {kCpu, kCuda}) expect_rejected(device, change, parts);
}
void expect_accepted(const Device& device, const Change& change) {
  Call call(device);
  change(call);
  EXPECT_NO_THROW(call.check());
}

TEST(Check, MakesTheProblemOfAGoodCall) {
  for (const Device& device : {kCpu, kCuda}) {
    Call call(device);
    EXPECT_EQ(call.check(), (Problem{.m = 70, .n = 200, .k = 300, .accumulate = true}));
    call.options.c.reset();
    call.a.scale = {};
    call.d.dtype = DType::f32;
    call.options.num_sms = 7;
    EXPECT_EQ(call.check(),
              (Problem{.m = 70, .n = 200, .k = 300, .d_type = DType::f32, .scaled_a = false, .num_sms = 7}));
    call.b.scale = {};
    EXPECT_FALSE(call.check().scaled_b);
  }
}

TEST(Check, Rank) {
  expect_rejected([](Call& c) { c.a.data = {}; }, {"a has 0 dimensions", "expected 2"});
  expect_rejected([](Call& c) { c.b.data.rank = 3; }, {"b has 3 dimensions", "expected 2"});
  expect_rejected([](Call& c) { c.a.scale.rank = 1; }, {"scale_a has 1 dimensions", "expected 2"});
  expect_rejected([](Call& c) { c.b.scale.rank = 3; }, {"scale_b has 3 dimensions", "expected 2"});
  expect_rejected([](Call& c) { c.d = {}; }, {"d has 0 dimensions", "expected 2"});
  expect_rejected([](Call& c) { c.options.c->rank = 1; }, {"c has 1 dimensions", "expected 2"});
}

TEST(Check, ElementTypes) {
  expect_rejected([](Call& c) { c.a.data.dtype = DType::bf16; }, {"a is bf16", "expected e4m3"});
  expect_rejected([](Call& c) { c.b.data.dtype = DType::i32; }, {"b is i32", "expected e4m3"});
  expect_rejected([](Call& c) { c.a.scale.dtype = DType::f16; }, {"scale_a is f16", "expected f32"});
  expect_rejected([](Call& c) { c.b.scale.dtype = DType::bf16; }, {"scale_b is bf16", "expected f32"});
  expect_rejected([](Call& c) { c.d.dtype = DType::e4m3; }, {"d is e4m3", "expected bf16 or f32"});
  expect_rejected([](Call& c) { c.d.dtype = DType::f16; }, {"d is f16", "expected bf16 or f32"});
  expect_rejected([](Call& c) { c.options.c->dtype = DType::i32; }, {"c is i32", "expected bf16 or f32"});
  expect_rejected([](Call& c) { c.options.c->dtype = DType::f32; }, {"c is f32", "expected bf16"});
}

TEST(Check, Shapes) {
  expect_rejected([](Call& c) { c.b.data.shape[1] = 299; },
                  {"b is [200, 299]", "[n, 300]", "a is [70, 300]", "same k"});
  expect_rejected([](Call& c) { c.a.scale.shape[1] = 2; },
                  {"scale_a is [70, 2]", "expected [70, 3]", "[m, ceil(k / 128)]", "k = 300"});
  expect_rejected([](Call& c) { c.a.scale.shape = {3, 70}; }, {"scale_a is [3, 70]", "expected [70, 3]"});
  expect_rejected([](Call& c) { c.b.scale.shape[0] = 200; },
                  {"scale_b is [200, 3]", "expected [2, 3]", "[ceil(n / 128), ceil(k / 128)]"});
  expect_rejected([](Call& c) { c.b.scale.shape[1] = 4; }, {"scale_b is [2, 4]", "expected [2, 3]"});
  expect_rejected([](Call& c) { c.d.shape[0] = 71; }, {"d is [71, 200]", "expected [70, 200]", "[m, n]"});
  expect_rejected([](Call& c) { c.d.shape[1] = 199; }, {"d is [70, 199]", "expected [70, 200]"});
  expect_rejected([](Call& c) { c.options.c->shape[0] = 1; }, {"c is [1, 200]", "expected [70, 200]"});
  for (const int64_t extent : {int64_t{-1}, int64_t{1} << 31, int64_t{1} << 40}) {
    const std::string given = fmt::format("[{}, 300]", extent);
    expect_rejected([&](Call& c) { c.a.data.shape[0] = extent; }, {"a is ", given.c_str(), "2^31"});
    expect_rejected([&](Call& c) { c.b.data.shape[0] = extent; }, {"b is ", given.c_str(), "2^31"});
    expect_rejected([&](Call& c) { c.d.shape[1] = extent; }, {"d is ", "2^31"});
    expect_rejected([&](Call& c) { c.a.scale.shape[1] = extent; }, {"scale_a is ", "2^31"});
  }
}

TEST(Check, DevicesOfTensors) {
  const Device other{DeviceType::cuda, 1};
  const auto expect_names = [&](const char* argument, const Change& change) {
    expect_rejected(kCpu, change, {argument, "cuda:1", "expected cpu", "context"});
    expect_rejected(kCuda, change, {argument, "cuda:1", "expected cuda:0", "context"});
  };
  expect_names("a lies", [&](Call& c) { c.a.data.device = other; });
  expect_names("b lies", [&](Call& c) { c.b.data.device = other; });
  expect_names("scale_a lies", [&](Call& c) { c.a.scale.device = other; });
  expect_names("scale_b lies", [&](Call& c) { c.b.scale.device = other; });
  expect_names("d lies", [&](Call& c) { c.d.device = other; });
  expect_names("c lies", [&](Call& c) { c.options.c->device = other; });
}

TEST(Check, Strides) {
  expect_rejected([](Call& c) { c.a.data.strides = {1, 70}; }, {"a has stride 70", "expected 1"});
  expect_rejected([](Call& c) { c.b.data.strides[1] = 2; }, {"b has stride 2", "expected 1"});
  expect_rejected([](Call& c) { c.d.strides[1] = -1; }, {"d has stride -1", "expected 1"});
  expect_rejected([](Call& c) { c.options.c->strides[1] = 0; }, {"c has stride 0", "expected 1"});
  expect_rejected([](Call& c) { c.a.data.strides[0] = 288; }, {"a has rows 288", "at least 300"});
  expect_rejected([](Call& c) { c.b.data.strides[0] = -304; }, {"b has rows -304", "at least 300"});
  expect_rejected([](Call& c) { c.d.strides[0] = 199; }, {"d has rows 199", "at least 200"});
  expect_rejected([](Call& c) { c.options.c->strides[0] = 0; }, {"c has rows 0", "at least 200"});
}

TEST(Check, AlignmentThatTmaNeedsOnCuda) {
  const auto shifted = [](TensorView& t, int64_t bytes) { t.data = static_cast<std::byte*>(t.data) + bytes; };
  const Change pitch_a = [](Call& c) { c.a.data.strides[0] = 300; };
  const Change pitch_b = [](Call& c) { c.b.data.strides[0] = 312; };
  const Change base_a = [&](Call& c) { shifted(c.a.data, 8); };
  const Change base_b = [&](Call& c) { shifted(c.b.data, 1); };
  // The message says how to pad.
  expect_rejected(kCuda, pitch_a,
                  {"a has a row pitch of 300 bytes", "multiple of 16", "[70, 304]", "first 300 columns"});
  expect_rejected(kCuda, pitch_b, {"b has a row pitch of 312 bytes", "multiple of 16"});
  expect_rejected(kCuda, base_a, {"a starts at", "16 bytes"});
  expect_rejected(kCuda, base_b, {"b starts at", "16 bytes"});
  for (const Change& change : {pitch_a, pitch_b, base_a, base_b}) expect_accepted(kCpu, change);
}

TEST(Check, AlignmentOfElements) {
  const auto shifted = [](TensorView& t, int64_t bytes) { t.data = static_cast<std::byte*>(t.data) + bytes; };
  expect_rejected([&](Call& c) { shifted(c.d, 1); }, {"d is not aligned", "2 bytes"});
  expect_rejected([&](Call& c) { shifted(*c.options.c, 3); }, {"c is not aligned", "2 bytes"});
  expect_rejected([&](Call& c) { shifted(c.a.scale, 2); }, {"scale_a is not aligned", "4 bytes"});
  expect_rejected([&](Call& c) { shifted(c.b.scale, 1); }, {"scale_b is not aligned", "4 bytes"});
  for (const Device& device : {kCpu, kCuda}) {
    expect_accepted(device, [&](Call& c) { shifted(c.d, 2); });
    expect_accepted(device, [&](Call& c) { shifted(c.a.scale, 4); });
    expect_accepted(device, [&](Call& c) { c.d.strides[0] = 201; });
  }
}

TEST(Check, NullPointers) {
  expect_rejected([](Call& c) { c.a.data.data = nullptr; }, {"a is a null pointer", "[70, 300]"});
  expect_rejected([](Call& c) { c.b.data.data = nullptr; }, {"b is a null pointer"});
  expect_rejected([](Call& c) { c.a.scale.data = nullptr; }, {"scale_a is a null pointer"});
  expect_rejected([](Call& c) { c.b.scale.data = nullptr; }, {"scale_b is a null pointer"});
  expect_rejected([](Call& c) { c.d.data = nullptr; }, {"d is a null pointer"});
  expect_rejected([](Call& c) { c.options.c->data = nullptr; }, {"c is a null pointer"});
}

TEST(Check, NumSms) {
  expect_rejected([](Call& c) { c.options.num_sms = -3; }, {"num_sms is -3", "expected 0"});
}

/// A call whose tensors are all null and have the strides of frameworks' empty tensors.
Call empty_call(const Device& device, int64_t m, int64_t n, int64_t k) {
  Call call(device);
  const auto reshape = [](TensorView& t, int64_t rows, int64_t cols) {
    t.shape = {rows, cols};
    t.strides = {cols, 1};
    if (rows * cols == 0) t.data = nullptr;
  };
  reshape(call.a.data, m, k), reshape(call.b.data, n, k), reshape(call.d, m, n), reshape(*call.options.c, m, n);
  reshape(call.a.scale, m, (k + 127) / 128), reshape(call.b.scale, (n + 127) / 128, (k + 127) / 128);
  return call;
}

TEST(Check, EmptyTensorsMayBeNull) {
  for (const Device& device : {kCpu, kCuda})
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{0, 192, 304}, {64, 0, 304}, {64, 192, 0}, {0, 0, 0}}) {
      const Problem p = empty_call(device, m, n, k).check();
      EXPECT_EQ(p, (Problem{.m = m, .n = n, .k = k, .accumulate = true}));
    }
}

TEST(Check, StridesOfSingleExtentsAreIgnored) {
  for (const Device& device : {kCpu, kCuda})
    for (const int64_t garbage : {int64_t{-5}, int64_t{0}, int64_t{3}, int64_t{1} << 60})
      for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 192, 304}, {64, 1, 304}, {64, 192, 1}, {1, 1, 1}}) {
        Call call = empty_call(device, m, n, k);
        if (k == 1) call.a.data.strides[0] = call.b.data.strides[0] = 16;
        for (TensorView* t : {&call.a.data, &call.b.data, &call.a.scale, &call.b.scale, &call.d, &*call.options.c})
          for (std::size_t i = 0; i < 2; ++i)
            if (t->shape[i] == 1) t->strides[i] = garbage;
        EXPECT_NO_THROW(EXPECT_EQ(call.check().n, n)) << m << " x " << n << " x " << k << ", strides " << garbage;
      }
}

TEST(Check, ScalesMayHaveAnyStrides) {
  for (const Device& device : {kCpu, kCuda})
    for (const auto& [outer, inner] : {std::array<int64_t, 2>{1, 70}, {1, 72}, {0, 0}, {6, 2}, {-3, 1}})
      expect_accepted(device, [=](Call& c) { c.a.scale.strides = c.b.scale.strides = {outer, inner}; });
}

}  // namespace
}  // namespace deep_gemm
