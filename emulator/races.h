// Races in shared memory: two accesses to the same bytes, one of them a write, that nothing orders. Each thread, and each
// barrier, warp or store group on whose behalf something asynchronous happens, has a clock; who synchronises with another learns
// what that one knew of all clocks. An access is ordered after one that its clocks know of.
//   Flanagan and Freund, "FastTrack: efficient and precise dynamic race detection", PLDI 2009
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace emulator {

/// What someone knows of the clocks of all.
class Knowledge {
 public:
  uint32_t of(uint32_t who) const { return who < clocks_.size() ? clocks_[who] : 0; }
  void learn(uint32_t who, uint32_t clock) {
    if (who >= clocks_.size()) clocks_.resize(who + 1);
    clocks_[who] = std::max(clocks_[who], clock);
  }
  void learn(const Knowledge& other) {
    if (other.clocks_.size() > clocks_.size()) clocks_.resize(other.clocks_.size());
    for (std::size_t i = 0; i < other.clocks_.size(); ++i) clocks_[i] = std::max(clocks_[i], other.clocks_[i]);
  }

 private:
  std::vector<uint32_t> clocks_;
};

struct Access {
  uint32_t who, clock;
};

/// The last accesses to each four bytes of a CTA's shared memory; different bytes of the four are not told apart.
class AccessLog {
 public:
  explicit AccessLog(std::size_t bytes) : cells_(bytes / 4) {}

  /// Who accessed some of these bytes before, not ordered with `who`, who knows `known`; otherwise the access is noted.
  std::optional<Access> access(uint32_t who, const Knowledge& known, uint32_t offset, uint32_t bytes, bool writes) {
    const auto is_unordered = [&](const Access& before) {
      return before.who != who && before.clock > known.of(before.who);
    };
    const Access now{who, known.of(who)};
    for (std::size_t i = offset / 4; i < (offset + bytes + 3) / 4; ++i) {
      Cell& cell = cells_[i];
      if (is_unordered(cell.write)) return cell.write;
      if (!writes) {
        const auto own =
            std::find_if(cell.reads.begin(), cell.reads.end(), [&](const Access& a) { return a.who == who; });
        if (own == cell.reads.end()) {
          cell.reads.push_back(now);
        } else {
          *own = now;
        }
        continue;
      }
      const auto race = std::find_if(cell.reads.begin(), cell.reads.end(), is_unordered);
      if (race != cell.reads.end()) return *race;
      cell.reads.clear();
      cell.write = now;
    }
    return std::nullopt;
  }

 private:
  struct Cell {
    Access write{0, 0};
    std::vector<Access> reads;
  };
  std::vector<Cell> cells_;
};

}  // namespace emulator
