// Code that the documentation shows is the code: a block of C++ that begins with the comment `// path` must stand in that file,
// line by line. A line that is `…` leaves something out.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace deep_gemm {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> lines_of(const fs::path& path) {
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

struct Snippet {
  std::string where, source;
  std::vector<std::vector<std::string>> parts;
};

/// Of one page; `unnamed` counts the blocks of C++ that name no file.
std::vector<Snippet> snippets_of(const fs::path& page, int& unnamed) {
  std::vector<Snippet> snippets;
  const std::vector<std::string> lines = lines_of(page);
  for (std::size_t i = 0; i + 1 < lines.size(); ++i) {
    if (lines[i] != "```cpp") continue;
    const bool named = lines[i + 1].starts_with("// ") && lines[i + 1].find('/', 3) != std::string::npos &&
                       lines[i + 1].find(' ', 3) == std::string::npos;
    if (!named) {
      ++unnamed;
      continue;
    }
    Snippet snippet{page.filename().string() + ":" + std::to_string(i + 1), lines[i + 1].substr(3), {{}}};
    for (i += 2; i < lines.size() && lines[i] != "```"; ++i) {
      if (lines[i] == "…")
        snippet.parts.emplace_back();
      else
        snippet.parts.back().push_back(lines[i]);
    }
    snippets.push_back(snippet);
  }
  return snippets;
}

void expect_in_sources(const Snippet& snippet) {
  const std::vector<std::string> source = lines_of(fs::path(DG_SOURCE_DIR) / snippet.source);
  EXPECT_FALSE(source.empty()) << snippet.where << " shows " << snippet.source << ", which cannot be read";
  auto from = source.begin();
  for (const std::vector<std::string>& part : snippet.parts) {
    const auto at = std::search(from, source.end(), part.begin(), part.end());
    if (at == source.end()) {
      ADD_FAILURE() << snippet.where << " shows lines that are not in " << snippet.source
                    << " (any more, or in this order), from\n"
                    << (part.empty() ? "" : part.front());
      return;
    }
    from = at + static_cast<std::ptrdiff_t>(part.size());
  }
}

TEST(Snippets, StandInTheSources) {
  int unnamed = 0;
  std::size_t count = 0;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(DG_SOURCE_DIR) / "docs")) {
    if (entry.path().extension() != ".md") continue;
    const std::vector<Snippet> snippets = snippets_of(entry.path(), unnamed);
    count += snippets.size();
    for (const Snippet& snippet : snippets) expect_in_sources(snippet);
  }
  EXPECT_GE(count, 10u);
}

TEST(Snippets, OfTheLearningStepsAllNameTheirFile) {
  int unnamed = 0;
  const std::vector<Snippet> snippets = snippets_of(fs::path(DG_SOURCE_DIR) / "docs/learn/README.md", unnamed);
  EXPECT_EQ(unnamed, 0);
  for (const char* file : {"1_naive", "2_tma", "3_wgmma", "4_warp_specialised", "5_clusters"}) {
    const std::string path = "examples/learn/" + std::string(file) + ".cuh";
    EXPECT_TRUE(std::any_of(snippets.begin(), snippets.end(), [&](const Snippet& s) { return s.source == path; }))
        << path;
  }
}

}  // namespace
}  // namespace deep_gemm
