// The CPU product against plain loops that share nothing with it, and what only it promises.
#include <gtest/gtest.h>

#include <sys/resource.h>

#include <array>
#include <atomic>
#include <cmath>
#include <memory>
#include <vector>

#include "child_process.h"
#include "cpu/gemm_block.h"
#include "cpu/parallel.h"
#include "gemm_support.h"

namespace deep_gemm::test {
namespace {

class CpuGemmTest : public BackendTest {
 protected:
  CpuGemmTest() : BackendTest(DeviceType::cpu) {}
};

/// The value of one element by the definition: no blocks, no FP32.
double by_definition(Product& product, int64_t i, int64_t j) {
  const Case& c = product.description();
  double sum = c.accumulate == Accumulate::no ? 0 : product.c().number(i, j);
  for (int64_t p = 0; p < c.k; ++p) {
    double term = decode_fp8(c.types.a, product.a().get<uint8_t>(i, p)) *
                  static_cast<double>(decode_fp8(c.types.b, product.b().get<uint8_t>(j, p)));
    if (c.scale_a != ScaleLayout::none) term *= product.scale_a().get<float>(i, p / 128);
    if (c.scale_b != ScaleLayout::none) term *= product.scale_b().get<float>(j / c.scale_rows_b, p / 128);
    sum += term;
  }
  return sum;
}

TEST(Parallel, DoesTheWorkWithTheThreadsThatThereAre) {
  const int status = in_child([] {
    become_nobody();
    const rlimit none{1, 1};
    if (setrlimit(RLIMIT_NPROC, &none) != 0) return 1;
    std::atomic<int64_t> sum = 0;
    cpu::run_workers(4, [&](const auto& next) {
      for (int64_t i = next(); i < 100; i = next()) sum += i;
    });
    return sum == 4950 ? 0 : 2;
  });
  EXPECT_EQ(status, 0);
}

TEST_F(CpuGemmTest, IsTheProductByDefinition) {
  uint64_t seed = 0;
  for (const int64_t m : {1, 7, 65, 129})
    for (const auto& [n, k] : {LayerShape{1, 1}, {50, 16}, {130, 130}, {257, 257}})
      for (const DType type : {DType::bf16, DType::f32})
        for (const Accumulate accumulate : {Accumulate::no, Accumulate::in_place}) {
          ++seed;
          Product product(context(), {.m = m,
                                      .n = n,
                                      .k = k,
                                      .d_type = type,
                                      .types = kOperandTypes[seed % 4],
                                      .scale_rows_b = seed / 4 % 2 ? 128 : 1,
                                      .accumulate = accumulate,
                                      .seed = seed});
          product.run();
          EXPECT_EQ(product.d().changed_guard_bytes(), 0);
          int64_t wrong = 0;
          const double norm = 60 * 60 * 0x1p-14 * static_cast<double>(k);
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < n; ++j) {
              const double want = by_definition(product, i, j);
              wrong += !(std::abs(product.d().number(i, j) - want) <=
                         std::abs(want) * (type == DType::bf16 ? 0x1.01p-8 : 0x1p-22) + norm * 0x1p-18);
            }
          EXPECT_EQ(wrong, 0) << text(product.description());
        }
}

/// A row's bits depend on nothing but its inputs: not on how many rows, columns and threads there are.
TEST_F(CpuGemmTest, ARowsBitsDoNotDependOnTheShapeAroundIt) {
  Product whole(context(), {.m = 300, .n = 500, .k = 700, .d_type = DType::f32});
  whole.run();
  for (const int64_t m : {1, 2, 5, 64, 257}) {
    for (const int64_t n : {1, 100, 449}) {
      Matrix d(Device{}, DType::f32, m, n, 0xff);
      Fp8Tensor a = whole.tensor_a(), b = whole.tensor_b();
      a.data.shape[0] = a.scale.shape[0] = m;
      b.data.shape[0] = n, b.scale.shape[0] = (n + 127) / 128;
      fp8_gemm_nt(context(), a, b, d.view());
      int64_t different = 0;
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) different += d.bits(i, j) != whole.d().bits(i, j);
      EXPECT_EQ(different, 0) << m << " x " << n;
    }
  }
}

TEST_F(CpuGemmTest, RepeatsBitForBit) {
  Product product(context(), {.m = 200, .n = 300, .k = 500, .d_type = DType::f32});
  product.run();
  const std::vector<std::byte> first = product.d().bytes();
  for (int i = 0; i < 3; ++i) {
    product.run();
    EXPECT_EQ(product.d().bytes(), first);
  }
}

float decode(DType dtype, uint8_t code) { return dtype == DType::e4m3 ? decode_e4m3(code) : decode_e5m2(code); }

struct Types {
  DType a, b;
};
constexpr std::array<Types, 4> kTypes = {
    {{DType::e4m3, DType::e4m3}, {DType::e4m3, DType::e5m2}, {DType::e5m2, DType::e4m3}, {DType::e5m2, DType::e5m2}}};

/// One block of up to 256 × 192, at most 128 deep, with unit scales and sums of 0 to begin with. After the last row's last
/// code the memory ends; between a row's end and the pitch is 0xff, NaN in both types.
class Block {
 public:
  Block(Types types, int64_t rows, int64_t cols, int64_t depth, int64_t pitch = 128)
      : types_(types), rows_(rows), cols_(cols), depth_(depth), pitch_(pitch) {
    a_.resize(static_cast<std::size_t>((rows - 1) * pitch + depth), 0xff);
    b_.resize(static_cast<std::size_t>((cols - 1) * pitch + depth), 0xff);
    scales.fill(1);
  }

  uint8_t& a(int64_t i, int64_t p) { return a_[static_cast<std::size_t>(i * pitch_ + p)]; }
  uint8_t& b(int64_t j, int64_t p) { return b_[static_cast<std::size_t>(j * pitch_ + p)]; }
  float sum(int64_t i, int64_t j) const { return space_->sum[static_cast<std::size_t>(i * cpu::kTileN + j)]; }
  void run(cpu::Accumulate accumulate) {
    space_->sum.fill(0);
    accumulate({.a = {a_.data(), pitch_, types_.a},
                .b = {b_.data(), pitch_, types_.b},
                .rows = rows_,
                .cols = cols_,
                .depth = depth_,
                .scale_a = scales.data(),
                .scale_b = scales.data(),
                .panel_a = space_->panel_a.data(),
                .panel_b = space_->panel_b.data(),
                .sum = space_->sum.data()});
  }

  alignas(64) std::array<float, cpu::kTileM> scales;

 private:
  struct Space {
    alignas(64) std::array<float, cpu::kTileM * cpu::kBlockK> panel_a;
    alignas(64) std::array<float, cpu::kGrainN * cpu::kBlockK> panel_b;
    alignas(64) std::array<float, cpu::kTileM * cpu::kTileN> sum;
  };
  Types types_;
  int64_t rows_, cols_, depth_, pitch_;
  std::vector<uint8_t> a_, b_;
  std::unique_ptr<Space> space_ = std::make_unique<Space>();
};

/// Every finite code at every place along k, in A and in B: a row of them times rows that pick one of them each.
TEST(CpuGemmBlock, DecodesEveryCodeExactlyAtEveryPlace) {
  const auto code = [](DType dtype, int64_t at) {
    const auto x = static_cast<uint8_t>(at % 256);
    return std::isfinite(decode(dtype, x)) ? x : uint8_t{0};
  };
  for (const cpu::Accumulate accumulate : cpu::accumulate_variants())
    for (const Types types : kTypes) {
      int64_t wrong = 0;
      Block codes_in_a(types, 256, 128, 128);
      for (int64_t p = 0; p < 128; ++p) {
        for (int64_t i = 0; i < 256; ++i) codes_in_a.a(i, p) = code(types.a, i + p);
        for (int64_t j = 0; j < 128; ++j) codes_in_a.b(j, p) = j != p ? 0 : types.b == DType::e4m3 ? 0x38 : 0x3c;
      }
      codes_in_a.run(accumulate);
      for (int64_t i = 0; i < 256; ++i)
        for (int64_t j = 0; j < 128; ++j) wrong += codes_in_a.sum(i, j) != decode(types.a, code(types.a, i + j));
      for (const int64_t first : {0, 128}) {
        Block codes_in_b(types, 128, 128, 128);
        for (int64_t p = 0; p < 128; ++p) {
          for (int64_t i = 0; i < 128; ++i) codes_in_b.a(i, p) = i != p ? 0 : types.a == DType::e4m3 ? 0x38 : 0x3c;
          for (int64_t j = 0; j < 128; ++j) codes_in_b.b(j, p) = code(types.b, first + j + p);
        }
        codes_in_b.run(accumulate);
        for (int64_t i = 0; i < 128; ++i)
          for (int64_t j = 0; j < 128; ++j)
            wrong += codes_in_b.sum(i, j) != decode(types.b, code(types.b, first + j + i));
      }
      EXPECT_EQ(wrong, 0) << deep_gemm::name_of(types.a) << " · " << deep_gemm::name_of(types.b);
    }
}

/// An infinity or NaN spoils its own row or column and nothing else, wherever along k it stands.
TEST(CpuGemmBlock, NaNAndInfinityStayWhereTheyBelong) {
  for (const cpu::Accumulate accumulate : cpu::accumulate_variants())
    for (const Types types : kTypes)
      for (int64_t code = 0; code < 256; ++code)
        for (const bool in_a : {true, false}) {
          const float value = decode(in_a ? types.a : types.b, static_cast<uint8_t>(code));
          if (std::isfinite(value)) continue;
          for (const int64_t p : {0, 1, 15, 16, 31, 32, 77, 127}) {
            Block block(types, 13, 29, 128);
            for (int64_t q = 0; q < 128; ++q) {
              for (int64_t i = 0; i < 13; ++i) block.a(i, q) = types.a == DType::e4m3 ? 0x38 : 0x3c;
              for (int64_t j = 0; j < 29; ++j) block.b(j, q) = types.b == DType::e4m3 ? 0x38 : 0x3c;
            }
            const int64_t at = p % (in_a ? 13 : 29);
            (in_a ? block.a(at, p) : block.b(at, p)) = static_cast<uint8_t>(code);
            block.run(accumulate);
            int64_t wrong = 0;
            for (int64_t i = 0; i < 13; ++i)
              for (int64_t j = 0; j < 29; ++j) {
                const float sum = block.sum(i, j);
                if ((in_a ? i : j) != at)
                  wrong += sum != 128;
                else
                  wrong += std::isnan(value) ? !std::isnan(sum) : sum != value;
              }
            EXPECT_EQ(wrong, 0) << deep_gemm::name_of(types.a) << " · " << deep_gemm::name_of(types.b) << ", code "
                                << code << " at " << p;
          }
        }
}

/// Rows, columns and k that end anywhere: what lies beyond is neither read nor counted.
TEST(CpuGemmBlock, EndsWhereTheOperandsEnd) {
  Random random(5);
  for (const cpu::Accumulate accumulate : cpu::accumulate_variants())
    for (const Types types : kTypes)
      for (const int64_t depth : {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128})
        for (const auto& [rows, cols] : {LayerShape{1, 1}, {2, 24}, {3, 25}, {4, 7}, {5, 48}, {8, 9}, {9, 191}}) {
          Block block(types, rows, cols, depth, 128 + depth % 5);
          for (int64_t p = 0; p < depth; ++p) {
            for (int64_t i = 0; i < rows; ++i) block.a(i, p) = static_cast<uint8_t>(random() & 0xbf);
            for (int64_t j = 0; j < cols; ++j) block.b(j, p) = static_cast<uint8_t>(random() & 0xbf);
          }
          for (float& scale : block.scales) scale = static_cast<float>(1 + random() % 7);
          block.run(accumulate);
          int64_t wrong = 0;
          for (int64_t i = 0; i < rows; ++i)
            for (int64_t j = 0; j < cols; ++j) {
              double want = 0, norm = 0;
              for (int64_t p = 0; p < depth; ++p) {
                const double term =
                    static_cast<double>(decode(types.a, block.a(i, p))) * decode(types.b, block.b(j, p));
                want += term, norm += std::abs(term);
              }
              const double scale =
                  block.scales[static_cast<std::size_t>(i)] * block.scales[static_cast<std::size_t>(j)];
              wrong += !(std::abs(block.sum(i, j) - scale * want) <= scale * norm * 0x1p-20);
            }
          EXPECT_EQ(wrong, 0) << deep_gemm::name_of(types.a) << " · " << deep_gemm::name_of(types.b) << ", " << rows
                              << " x " << cols << " x " << depth;
        }
}

}  // namespace
}  // namespace deep_gemm::test
