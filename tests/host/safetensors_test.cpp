#include "safetensors.h"

#include <cmath>
#include <cstring>
#include <random>

#include <deep_gemm/core/fp8.cuh>

#include "layer.h"
#include "scratch.h"

namespace deep_gemm::cli {
namespace {

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

class Safetensors : public testing::Test {
 protected:
  std::string file(const std::string& header, const std::string& data) const {
    return scratch.write("model.safetensors", safetensors_text(header, data));
  }
  void refused(const std::string& header, const std::string& data, const std::string& part) const {
    const std::string path = file(header, data);
    expect_error(ErrorCode::io, path + ": " + part, [&] { SafetensorsFile{path}; });
  }
  Scratch scratch;
};

TEST_F(Safetensors, ReadsTensorsOfAllTypes) {
  const SafetensorsFile model(file(R"({"__metadata__":{"format":"pt"},"b":)" + entry("I64", "[]", "[0,8]") +
                                       R"(,"a":)" + entry("BF16", "[2,3]", "[8,20]") + R"(,"empty":)" +
                                       entry("F32", "[0,7]", "[20,20]") + R"(,"half":)" +
                                       entry("F4", "[2]", "[20,21]") + "}  ",
                                   "abcdefghijklmnopqrstu"));
  ASSERT_EQ(model.tensors().size(), 4u);
  EXPECT_EQ(model.find("b")->shape, (std::vector<int64_t>{}));
  const StoredTensor* a = model.find("a");
  EXPECT_EQ(a->dtype, "BF16");
  EXPECT_EQ(a->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(a->bytes.data()), a->bytes.size()), "ijklmnopqrst");
  EXPECT_EQ(model.find("empty")->bytes.size(), 0u);
  EXPECT_EQ(model.find("c"), nullptr);
  EXPECT_EQ(model.metadata()["format"], "pt");
  EXPECT_TRUE(SafetensorsFile(file("{}", "")).tensors().empty());
}

TEST_F(Safetensors, RefusesBrokenHeaders) {
  const auto whole_file_refused = [&](const std::string& content, const std::string& part) {
    const std::string path = scratch.write("x", content);
    expect_error(ErrorCode::io, path + ": " + part, [&] { SafetensorsFile{path}; });
  };
  whole_file_refused("", "0 bytes long, expected at least the 8");
  whole_file_refused("1234567", "7 bytes long");
  whole_file_refused(std::string(8, '\xff'), "header of 18446744073709551615 bytes, at most 100000000");
  whole_file_refused(std::string("\x01\xe1\xf5\x05\0\0\0\0{", 9), "header of 100000001 bytes");
  whole_file_refused(std::string("\x09\0\0\0\0\0\0\0{}", 10), "truncated: header of 9 bytes in a file of 10");
  refused("", "", "the header does not start with '{'");
  refused("[]", "", "the header does not start with '{'");
  refused("{", "", "the header is not JSON");
  refused("{}x", "", "the header is not JSON");
  refused(std::string("{}\0 {", 5), "", "the header has a NUL byte in it");
  refused("{\"" + std::string(4097, 'a') + "\":{}}", "",
          "the header has a name of 4097 bytes, at most 4096 are allowed");
  refused("{\"a\xff\":1}", "", "the header is not JSON");
  refused(R"({"a":[[[[[[1]]]]]]})", "", "the header is nested deeper");
  refused(R"({"__metadata__":{"a":1}})", "", "__metadata__ is not an object of strings");
  refused(R"({"__metadata__":[]})", "", "__metadata__ is not an object of strings");
  const std::string a = entry("U8", "[1]", "[0,1]");
  refused(R"({"a":)" + a + R"(,"a":)" + a + "}", "x", "the header has the name 'a' twice");
  refused(R"({"a":{"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,1]}})", "x",
          "the header has the name 'dtype' twice");
}

TEST_F(Safetensors, RefusesBrokenTensors) {
  const auto one_refused = [&](const std::string& value, const std::string& part) {
    refused(R"({"a":)" + value + "}", "12345678", part);
  };
  one_refused("1", "tensor 'a' has no dtype");
  one_refused("[]", "tensor 'a' has no dtype");
  one_refused("{}", "tensor 'a' has no dtype");
  one_refused(R"({"dtype":7,"shape":[8],"data_offsets":[0,8]})", "tensor 'a' has no dtype");
  one_refused(entry("F7", "[8]", "[0,8]"), "tensor 'a' has the unknown dtype 'F7'");
  one_refused(R"({"dtype":"U8","data_offsets":[0,8]})", "tensor 'a': shape is not an array");
  for (const char* shape :
       {"8", "[-8]", "[8.0]", "[\"8\"]", "[true]", "[18446744073709551616]", "[9223372036854775808]", "null"})
    one_refused(entry("U8", shape, "[0,8]"), "tensor 'a': shape is not an array of whole numbers");
  for (const char* offsets : {"8", "[]", "[8]", "[0,4,8]", "[8,0]", "[-1,7]", "[0,8.0]", "[0,1e1]", "null", "{}"})
    one_refused(entry("U8", "[8]", offsets), "tensor 'a': data_offsets is not [begin, end]");
  one_refused(entry("U8", "[9]", "[0,9]"), "truncated: tensor 'a' ends at byte 9 of the data, which has 8");
  one_refused(entry("U8", "[1]", "[9223372036854775806,9223372036854775807]"), "truncated: tensor 'a' ends at byte");
  one_refused(entry("U8", "[7]", "[0,8]"), "tensor 'a': data_offsets span 8 bytes, but U8 [7] takes 7");
  one_refused(entry("F32", "[3]", "[0,8]"), "tensor 'a': data_offsets span 8 bytes, but F32 [3] takes 12");
  one_refused(entry("F4", "[3]", "[0,2]"),
              "tensor 'a': the size of shape [3] overflows or is no whole number of bytes");
  // 2^62 · 4 and 2^32 · 2^32 · 4 are 0 modulo 2^64.
  one_refused(entry("F32", "[4611686018427387904]", "[0,0]"),
              "tensor 'a': the size of shape [4611686018427387904] overflows");
  one_refused(entry("F32", "[4294967296,4294967296]", "[0,0]"), "tensor 'a': the size of shape");
}

TEST_F(Safetensors, EveryByteBelongsToOneTensor) {
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"a":)" + entry("U8", "[4]", a) + R"(,"b":)" + entry("U8", "[4]", b) + "}";
  };
  EXPECT_EQ(SafetensorsFile(file(two("[4,8]", "[0,4]"), "12345678")).tensors().size(), 2u);
  refused(two("[0,4]", "[0,4]"), "12345678", "tensors 'a' and 'b' overlap");
  refused(two("[0,4]", "[3,7]"), "1234567", "tensors 'a' and 'b' overlap");
  refused(two("[0,4]", "[5,9]"), "123456789", "the 1 bytes before tensor 'b' belong to no tensor");
  refused(two("[0,4]", "[4,8]"), "123456789", "the last 1 bytes belong to no tensor");
}

TEST_F(Safetensors, DamagedFiles) {
  const std::string whole = safetensors_text(R"({"__metadata__":{"x":"y"},"a":)" + entry("F32", "[2,2]", "[0,16]") +
                                                 R"(,"b":)" + entry("U8", "[3]", "[16,19]") + "}",
                                             std::string(19, 'd'));
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_THROW(SafetensorsFile{scratch.write("x", whole.substr(0, size))}, Error) << size;
  std::mt19937 random(5);
  for (int i = 0; i < 600; ++i) {
    std::string damaged = whole;
    for (int j = 0; j < 2; ++j) damaged[random() % (whole.size() - 19)] = static_cast<char>(random());
    const std::string path = scratch.write("x", damaged);
    try {
      const SafetensorsFile model(path);
      std::size_t bytes = 0;
      for (const auto& [name, tensor] : model.tensors()) bytes += tensor.bytes.size();
      EXPECT_LE(bytes, whole.size());
    } catch (const Error&) {
    }
  }
}

TEST_F(Safetensors, WhatIsWrittenIsRead) {
  const std::string path = scratch.path("out");
  {
    SafetensorsWriter writer(path, {{"bytes", "U8", {3}}, {"w", "F32", {2, 2}}, {"e", "BF16", {0}}},
                             {{"format", "pt"}});
    const float w[] = {1, 2, 3, 4};
    writer.write("bytes", std::as_bytes(std::span("xyz", 3)));
    writer.write("w", std::as_bytes(std::span(w)));
    expect_error(ErrorCode::invalid_argument, "3 bytes given, expected 16",
                 [&] { writer.write("w", std::as_bytes(std::span("xyz", 3))); });
    EXPECT_FALSE(std::filesystem::exists(path));
    writer.commit();
  }
  const SafetensorsFile model(path);
  EXPECT_EQ(model.metadata()["format"], "pt");
  float w[4];
  ASSERT_EQ(model.find("w")->bytes.size(), sizeof(w));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(model.find("w")->bytes.data()) % 4, 0u);
  std::memcpy(w, model.find("w")->bytes.data(), sizeof(w));
  EXPECT_EQ(w[3], 4);
  EXPECT_EQ(static_cast<char>(model.find("bytes")->bytes[2]), 'z');
  { SafetensorsWriter given_up(scratch.path("other"), {{"a", "U8", {1}}}); }
  expect_error(ErrorCode::invalid_argument, "'a' would be written twice", [&] {
    SafetensorsWriter(path, {{"a", "U8", {1}}, {"a", "U8", {1}}});
  });
  expect_error(ErrorCode::io, "cannot be written", [&] { SafetensorsWriter(scratch.path("no/x"), {}); });
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch.path("")), {}), 1);
}

TEST_F(Safetensors, LayersInDeepSeeksForm) {
  std::string weight(130 * 129, '\0');
  std::mt19937 random(1);
  for (char& c : weight) c = static_cast<char>(random() % 0x7f);
  const float scales[] = {1, 2, 4, 8};
  std::string data = weight + std::string(reinterpret_cast<const char*>(scales), sizeof(scales));
  const std::string header = R"({"l.weight":)" + entry("F8_E4M3", "[130,129]", "[0,16770]") +
                             R"(,"l.weight_scale_inv":)" + entry("F32", "[2,2]", "[16770,16786]") + "}";
  const SafetensorsFile model(file(header, data));
  for (const char* name : {"l", "l.weight"}) {
    const Layer layer = find_layer(model, name);
    EXPECT_EQ(layer.name, "l");
    EXPECT_EQ(layer.weight.dtype, DType::e4m3);
    EXPECT_EQ(layer.scale.shape[0], 2);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(layer.scale.data) % 4, 0u);  // it is not in the file
    std::vector<float> rows(3 * 129);
    rows_as_f32(layer.weight, layer.scale, 126, 3, rows.data());
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 129; ++j) {
        const auto code = static_cast<uint8_t>(weight[static_cast<std::size_t>((126 + i) * 129 + j)]);
        EXPECT_EQ(rows[static_cast<std::size_t>(i * 129 + j)],
                  decode_e4m3(code) * scales[(126 + i) / 128 * 2 + j / 128]);
      }
    }
  }
}

TEST_F(Safetensors, LayersThatAreNot) {
  const std::string bytes(100, 'x');
  const SafetensorsFile model(file(R"({"layers.0.up_proj.weight":)" + entry("F8_E4M3", "[2,3]", "[0,6]") +
                                       R"(,"layers.1.up_proj.weight":)" + entry("I8", "[2,3]", "[6,12]") +
                                       R"(,"layers.2.down_proj.weight":)" + entry("F8_E4M3", "[2,3]", "[12,18]") +
                                       R"(,"layers.2.down_proj.weight_scale_inv":)" + entry("F16", "[1,1]", "[18,20]") +
                                       R"(,"norm.weight":)" + entry("F32", "[20]", "[20,100]") + "}",
                                   bytes));
  const auto refused_layer = [&](const std::string& name, const std::string& part) {
    expect_error(ErrorCode::io, model.path() + ": " + part, [&] { find_layer(model, name); });
  };
  refused_layer("layers.0.up_prj", "no layer 'layers.0.up_prj'; similar ones of 3: layers.0.up_proj, layers.1.up_proj");
  refused_layer("down_proj", "no layer 'down_proj'; similar ones of 3: layers.2.down_proj");
  refused_layer("", "no layer ''; similar ones");
  refused_layer("layers.0.up_proj",
                "layers.0.up_proj.weight is F8_E4M3, but there is no layers.0.up_proj.weight_scale_inv");
  refused_layer("layers.1.up_proj", "layers.1.up_proj.weight is I8, expected F8_E4M3, BF16, F16 or F32");
  refused_layer("layers.2.down_proj", "layers.2.down_proj.weight_scale_inv is F16 [1, 1], expected F32 [1, 1]");
  refused_layer("norm", "norm.weight is [20], expected the [n, k] of a linear layer");
  const SafetensorsFile empty(file("{}", ""));
  expect_error(ErrorCode::io, "no layer 'a'; the file has no linear layer", [&] { find_layer(empty, "a"); });
}

TEST_F(Safetensors, ComparisonWithFp32) {
  std::mt19937 random(2);
  const int m = 5, n = 70, k = 33;
  std::vector<float> x(m * k), w(n * k), d(m * n);
  for (float& value : x) value = std::normal_distribution<float>()(random);
  for (float& value : w) value = std::normal_distribution<float>()(random);
  double norm = 0;
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int p = 0; p < k; ++p)
        sum += static_cast<double>(x[static_cast<std::size_t>(i * k + p)]) * w[static_cast<std::size_t>(j * k + p)];
      d[static_cast<std::size_t>(i * n + j)] = static_cast<float>(sum);
      norm += sum * sum;
    }
  }
  Layer layer;
  layer.weight = TensorView::contiguous(w.data(), DType::f32, {n, k});
  const TensorView view = TensorView::contiguous(x.data(), DType::f32, {m, k});
  const Closeness exact = compare_with_f32(view, layer, d.data());
  EXPECT_LT(exact.relative_error, 1e-6);
  EXPECT_NEAR(exact.cosine, 1, 1e-12);
  d[69] += 2;
  const Closeness off = compare_with_f32(view, layer, d.data());
  EXPECT_NEAR(off.relative_error, 2 / std::sqrt(norm), 1e-5);
  EXPECT_NEAR(off.max_abs_error, 2, 1e-4);
  EXPECT_LT(off.cosine, 1 - 1e-5);
  d[70] = std::nanf("");
  EXPECT_TRUE(std::isnan(compare_with_f32(view, layer, d.data()).max_abs_error));
  EXPECT_TRUE(std::isnan(compare_with_f32(view, layer, d.data()).relative_error));
}

}  // namespace
}  // namespace deep_gemm::cli
