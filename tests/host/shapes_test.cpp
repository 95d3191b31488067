#include "shapes.h"

#include "scratch.h"

namespace deep_gemm::cli {
namespace {

using Shapes = std::vector<Shape>;

TEST(Shapes, ReadsColumnsByName) {
  Scratch scratch;
  EXPECT_EQ(read_shapes(scratch.write("a", "m,n,k\n1,2,3\n4096,7168,2048\n")),
            (Shapes{{.m = 1, .n = 2, .k = 3}, {.m = 4096, .n = 7168, .k = 2048}}));
  EXPECT_EQ(read_shapes(scratch.write("b", "\xef\xbb\xbfname, k ,us,n,m\r\n# remark\r\n\r\nx, 3 ,1.5,2,0\r\n")),
            (Shapes{{0, 2, 3}}));
  EXPECT_EQ(read_shapes(scratch.write("c", "layout,m,n,k,groups,loads\ndense,1,2,3,1,\ndense,4,5,6,,")),
            (Shapes{{1, 2, 3}, {4, 5, 6}}));
}

TEST(Shapes, TheProjectsOwnFileIsOne) {
  const Shapes shapes = read_shapes(DG_SOURCE_DIR "/bench/shapes/dense.csv");
  ASSERT_EQ(shapes.size(), 18u);
  EXPECT_EQ(shapes.front(), (Shape{.m = 64, .n = 2112, .k = 7168}));
  EXPECT_EQ(shapes.back(), (Shape{.m = 4096, .n = 7168, .k = 2048}));
}

TEST(Shapes, ReadsLayoutsGroupsAndLoads) {
  Scratch scratch;
  const std::string path = scratch.write("a",
                                         "layout,m,n,k,groups,alignment,m_max,loads\n"
                                         "dense,1,2,3,,,,\n"
                                         "offsets,7,2,3,4,8,,\n"
                                         "masked,7,2,3,3,,900,5; 0;16\n");
  EXPECT_EQ(
      read_shapes(path),
      (Shapes{{.m = 1, .n = 2, .k = 3},
              {.m = 7, .n = 2, .k = 3, .layout = Layout::offsets, .groups = 4, .alignment = 8},
              {.m = 7, .n = 2, .k = 3, .layout = Layout::masked, .groups = 3, .loads = {5, 0, 16}, .m_max = 900}}));
  for (const char* name : {"grouped", "deepseek_v3_experts", "qwen3_235b_experts"})
    EXPECT_GE(read_shapes(std::string(DG_SOURCE_DIR "/bench/shapes/") + name + ".csv").size(), 20u) << name;
}

TEST(Shapes, KGroupedLoadsAreDepths) {
  Scratch scratch;
  const Shapes shapes = read_shapes(scratch.write("a",
                                                  "layout,m,n,k,groups,loads\n"
                                                  "k-grouped,70,80,256,3,\n"
                                                  "k-grouped,70,80,256,3,128;0;640\n"));
  EXPECT_EQ(shapes,
            (Shapes{{.m = 70, .n = 80, .k = 256, .layout = Layout::k_grouped, .groups = 3},
                    {.m = 70, .n = 80, .k = 256, .layout = Layout::k_grouped, .groups = 3, .loads = {128, 0, 640}}}));
  EXPECT_EQ(loads_of(shapes[0]), (std::vector<int>{256, 256, 256}));
  EXPECT_EQ(rows_of(shapes[1]), 70);
  EXPECT_EQ(depth_of(shapes[0]), 768);
  EXPECT_EQ(depth_of(shapes[1]), 768);
  EXPECT_EQ(text(shapes[1]), "k-grouped 3x 70x80x (768)");
  const Problem problem = problem_of(shapes[1], {.d_type = DType::bf16, .a_type = DType::e5m2});
  EXPECT_EQ(problem, (Problem{.m = 70,
                              .n = 80,
                              .k = 640,
                              .d_type = DType::f32,
                              .accumulate = true,
                              .a_type = DType::e5m2,
                              .scale_rows_b = 1,
                              .layout = Layout::k_grouped,
                              .groups = 3}));
  EXPECT_EQ(form_text(problem), "A e5m2, B e4m3, recipe 1,1,128, D f32");
  for (const Shape& shape : read_shapes(DG_SOURCE_DIR "/bench/shapes/weight_gradients.csv")) {
    EXPECT_EQ(shape.layout, Layout::k_grouped);
    for (const int k : loads_of(shape)) EXPECT_EQ(k % 128, 0);
    EXPECT_EQ(depth_of(shape), shape.groups == 32 ? 16384 : 32768) << text(shape);
  }
  for (const std::string& name : layout_names()) EXPECT_EQ(layout_text(layout_of(name).value()), name);
}

TEST(Shapes, ErrorsNameFileAndLine) {
  Scratch scratch;
  const auto refused = [&](const std::string& content, const std::string& part) {
    const std::string path = scratch.write("shapes.csv", content);
    expect_error(ErrorCode::io, path + part, [&] { read_shapes(path); });
  };
  refused("", ": no shapes");
  refused("m,n,k\n", ": no shapes");
  refused("m,n\n1,2\n", ":1: the header line must name the column k");
  refused("m,n,k,m\n1,2,3,4\n", ":1: the header line must name the column m once");
  refused("m,n,k\n1,2,3\n1,2\n", ":3: 2 cells, expected 3");
  refused("m,n,k\n1,2,3,4\n", ":2: 4 cells, expected 3");
  for (const char* bad : {"", "x", "-1", "1.5", "0x10", "1e3", "2147483648", "99999999999999999999", "1 2"})
    refused(std::string("m,n,k\n\n1,") + bad + ",3\n", std::string(":3: n is '") + bad + "', expected a whole number");
  refused("layout,m,n,k\nragged,1,2,3\n", ":2: layout is 'ragged', expected one of dense, contiguous");
  refused("layout,m,n,k,groups\ndense,1,2,3,8\n", ":2: groups is '8', expected a whole number from 1 to 1");
  refused("layout,m,n,k,groups,loads\nmasked,1,2,3,2,5;6;7\n", ":2: 3 loads, expected one for each of 2 groups");
  refused("layout,m,n,k,groups,loads\nmasked,1,2,3,2,5;x\n", ":2: loads is 'x', expected a whole number");
  expect_error(ErrorCode::io, "cannot be opened: No such file", [&] { read_shapes(scratch.path("missing")); });
}

}  // namespace
}  // namespace deep_gemm::cli
