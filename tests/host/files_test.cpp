// What the disk cache stands on: locks, and files that are whole or not there.
#include "jit/files.h"

#include <cerrno>
#include <optional>

#include "cache_fixture.h"

namespace deep_gemm::jit {
namespace {

using namespace std::chrono_literals;

class Files : public testing::Test {
 protected:
  fs::path path(const std::string& name) const { return scratch_.path() / name; }
  TemporaryDirectory scratch_;
};

TEST_F(Files, LockIsHeldOnceAndLeavesNoFile) {
  const fs::path file = path("locks") / "key";
  {
    const FileLock lock(file, 0s);
    EXPECT_TRUE(lock.held());
    EXPECT_TRUE(fs::exists(file));
    EXPECT_EQ(FileLock(file, 10ms).error(), EWOULDBLOCK);
    EXPECT_TRUE(fs::exists(file)) << "who does not hold it does not remove it";
  }
  EXPECT_TRUE(fs::is_empty(path("locks")));
}

// A holder whose file was removed by others removes nobody else's.
TEST_F(Files, LockOfAnotherFileOfThatNameStays) {
  const fs::path file = path("locks") / "key";
  std::optional<FileLock> first(std::in_place, file, 0s);
  fs::remove(file);
  const FileLock second(file, 0s);
  ASSERT_TRUE(second.held());
  first.reset();
  EXPECT_TRUE(fs::exists(file));
  EXPECT_EQ(FileLock(file, 0s).error(), EWOULDBLOCK);
}

}  // namespace
}  // namespace deep_gemm::jit
