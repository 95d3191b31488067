#include "npy.h"

#include <cstring>
#include <random>

#include "scratch.h"

namespace deep_gemm::cli {
namespace {

std::string npy_text(std::string header, const std::string& data, char version = 1) {
  std::string length(version == 1 ? 2 : 4, '\0');
  for (std::size_t i = 0; i < length.size(); ++i) length[i] = static_cast<char>(header.size() >> 8 * i & 0xff);
  return std::string("\x93NUMPY") + version + '\0' + length + header + data;
}

TEST(Npy, WhatIsWrittenIsRead) {
  Scratch scratch;
  std::mt19937 random(7);
  for (const auto& [rows, cols] : {std::pair{3, 5}, {1, 1}, {0, 4}, {4, 0}, {129, 77}}) {
    std::vector<float> values(static_cast<std::size_t>(rows * cols));
    for (float& value : values) value = std::normal_distribution<float>()(random);
    const std::string path = scratch.path("x.npy");
    write_npy(path, values, rows, cols);
    const NpyArray array = read_npy(path);
    EXPECT_EQ(array.dtype, DType::f32);
    EXPECT_EQ(array.shape, (std::vector<int64_t>{rows, cols}));
    ASSERT_EQ(array.bytes.size(), values.size() * sizeof(float));
    EXPECT_TRUE(values.empty() || std::memcmp(array.bytes.data(), values.data(), array.bytes.size()) == 0);
    EXPECT_EQ((array.file.bytes().size() - array.bytes.size()) % 64, 0u);
  }
}

TEST(Npy, ReadsAllThatNumPyWrites) {
  Scratch scratch;
  const std::string data(12, 'x');
  for (const char version : {'\1', '\2', '\3'}) {
    const NpyArray array = read_npy(scratch.write(
        "x", npy_text("{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3), }   \n", data, version)));
    EXPECT_EQ(array.dtype, DType::f16);
    EXPECT_EQ(array.shape, (std::vector<int64_t>{2, 3}));
    EXPECT_EQ(array.bytes.size(), 12u);
  }
  const auto shape_of = [&](const std::string& shape, const std::string& content) {
    return read_npy(
               scratch.write("x", npy_text("{\"shape\":" + shape + ",'fortran_order':False,'descr':'<f4'}", content)))
        .shape;
  };
  EXPECT_EQ(shape_of("(3,)", data), (std::vector<int64_t>{3}));
  EXPECT_EQ(shape_of("()", "1234"), (std::vector<int64_t>{}));
  EXPECT_EQ(shape_of("(1,3,1)", data), (std::vector<int64_t>{1, 3, 1}));
}

TEST(Npy, RefusesWhatIsNot) {
  Scratch scratch;
  const auto refused = [&](const std::string& content, const std::string& part) {
    const std::string path = scratch.write("x.npy", content);
    expect_error(ErrorCode::io, path + ": " + part, [&] { read_npy(path); });
  };
  const std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }";
  refused("", "not a .npy file");
  refused("\x93NUMPY", "not a .npy file");
  refused("PK\x03\x04 a zip file", "not a .npy file");
  refused(npy_text(good, "12345678", 9), ".npy version 9");
  refused(npy_text(good, "").substr(0, 40), "truncated in the .npy header");
  refused(std::string("\x93NUMPY\x02\x00\xff\xff", 10), "truncated in the .npy header");
  refused(npy_text(good, "1234567"), "7 bytes of data, but f32 [1, 2] takes 8");
  refused(npy_text(good, "123456789"), "9 bytes of data, but f32 [1, 2] takes 8");
  refused(npy_text("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", "12345678"), "elements are '<f8'");
  refused(npy_text("{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}", "1234"), "elements are '>f4'");
  refused(npy_text("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1)}", "1234"), "column-major");
  refused(npy_text("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}", ""),
          "the size of shape [4611686018427387904, 4] overflows");
  for (const char* header : {"", "{", "{}", "[]", "{'descr': '<f4', 'fortran_order': False}",
                             "{'descr': '<f4', 'shape': (1, 2), 'fortran_order': 0}",
                             "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)}",
                             "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)} x",
                             "{'descr': '<f4', 'fortran_order': False, 'shape': (1, -2)}",
                             "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2",
                             "{'descr': '<f4', 'fortran_order': False, 'shape': 2}",
                             "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
                             "{'descr': [('x', '<f4')]}", "{'descr: 1"})
    refused(npy_text(header, "12345678"), "the .npy header is not a dictionary");
}

TEST(Npy, FilesThatCannotBe) {
  Scratch scratch;
  expect_error(ErrorCode::io, "cannot be opened: No such file", [&] { read_npy(scratch.path("missing.npy")); });
  expect_error(ErrorCode::io, "not a regular file", [&] { read_npy(scratch.path("")); });
  const float one = 1;
  expect_error(ErrorCode::io, "cannot be written: No such file", [&] {
    write_npy(scratch.path("no/such/directory.npy"), {&one, 1}, 1, 1);
  });
}

// Every prefix of a file is an error, never a crash, and so is every byte changed in its header (or it is still a good file).
TEST(Npy, DamagedFiles) {
  Scratch scratch;
  const std::vector<float> values(6, 1.5f);
  write_npy(scratch.path("x"), values, 2, 3);
  const std::string whole = read_text(scratch.path("x"));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const std::string path = scratch.write("y", whole.substr(0, size));
    EXPECT_THROW(read_npy(path), Error) << size;
  }
  std::mt19937 random(3);
  for (int i = 0; i < 400; ++i) {
    std::string damaged = whole;
    damaged[random() % 128] = static_cast<char>(random());
    const std::string path = scratch.write("y", damaged);
    try {
      const NpyArray array = read_npy(path);
      EXPECT_LE(array.bytes.size(), whole.size());
    } catch (const Error&) {
    }
  }
}

}  // namespace
}  // namespace deep_gemm::cli
