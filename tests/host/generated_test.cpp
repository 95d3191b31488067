// Generated files are what their generators print.
#include <gtest/gtest.h>

#include <cstdlib>

namespace {

TEST(Generated, FilesMatchTheirGenerators) {
  EXPECT_EQ(std::system("'" DG_SOURCE_DIR "/tools/check_generated'"), 0) << "run tools/check_generated";
}

}  // namespace
