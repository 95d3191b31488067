#include "jit/sha256.h"

#include <string>

#include <gtest/gtest.h>

namespace deep_gemm::jit {
namespace {

// FIPS 180-4 examples and NIST's SHA256ShortMsg vectors.
TEST(Sha256, KnownDigests) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_EQ(sha256("\xd3"), "28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1");
}

TEST(Sha256, PiecesGiveTheSameAsTheWhole) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>(i * 7);
  for (std::size_t length = 0; length < text.size(); length += 1)
    for (std::size_t cut : {std::size_t{0}, length / 3, length}) {
      Sha256 pieces;
      pieces.update(text.substr(0, cut)).update("").update(text.substr(cut, length - cut));
      ASSERT_EQ(pieces.hex(), sha256(text.substr(0, length))) << length << " cut at " << cut;
    }
}

}  // namespace
}  // namespace deep_gemm::jit
