#include "jit/entry.h"

#include <cstring>

#include <nlohmann/json.hpp>

#include "jit/sha256.h"

namespace deep_gemm::jit {
namespace {

constexpr std::string_view kMagic = "deep_gemm kernel 1\n";
constexpr std::size_t kDigits = 64;

}  // namespace

std::string write_entry(const Entry& entry) {
  const Binary& b = entry.binary;
  const nlohmann::json header = {{"key", entry.key},       {"entry", entry.entry},     {"compiler", b.compiler},
                                 {"seconds", b.seconds},   {"registers", b.registers}, {"spill_bytes", b.spill_bytes},
                                 {"bytes", b.cubin.size()}};
  std::string body = header.dump() + "\n";
  body.append(reinterpret_cast<const char*>(b.cubin.data()), b.cubin.size());
  return std::string(kMagic) + sha256(body) + "\n" + body;
}

std::optional<Entry> read_entry(std::string_view file) {
  if (!file.starts_with(kMagic) || file.size() < kMagic.size() + kDigits + 1) return std::nullopt;
  const std::string_view digest = file.substr(kMagic.size(), kDigits);
  const std::string_view body = file.substr(kMagic.size() + kDigits + 1);
  if (file[kMagic.size() + kDigits] != '\n' || sha256(body) != digest) return std::nullopt;
  const std::size_t end = body.find('\n');
  const std::string_view cubin = end == body.npos ? std::string_view() : body.substr(end + 1);
  Entry entry;
  try {
    const auto header = nlohmann::json::parse(body.substr(0, end));
    entry.key = header.at("key");
    entry.entry = header.at("entry");
    entry.binary.compiler = header.at("compiler");
    entry.binary.seconds = header.at("seconds");
    entry.binary.registers = header.at("registers");
    entry.binary.spill_bytes = header.at("spill_bytes");
    if (header.at("bytes") != cubin.size() || cubin.empty()) return std::nullopt;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
  entry.binary.cubin.resize(cubin.size());
  std::memcpy(entry.binary.cubin.data(), cubin.data(), cubin.size());
  entry.binary.cached = true;
  return entry;
}

}  // namespace deep_gemm::jit
