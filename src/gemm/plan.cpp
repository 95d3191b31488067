#include "gemm/plan.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <deep_gemm/gemm/layout.cuh>

#include "gemm/kernel_source.h"
#include "text.h"

namespace deep_gemm {

namespace {

constexpr std::size_t kMaxKernels = 8;
constexpr int kKeptBlocks = 4;           // 64 KiB of A in tiles of 128 rows; 8 would leave no room for stages and D
constexpr int64_t kTypicalDepth = 4096;  // k of a group of tokens in training
/// Numbers of rows at which kernels_for asks for the best config.
constexpr std::array<int64_t, 18> kRowLadder = {16,  32,  64,  96,   128,  192,  256,  320,  384,
                                                512, 640, 768, 1024, 1280, 2048, 4096, 8192, 16384};

int64_t div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int usable_sms(const Problem& p, const DeviceInfo& device) {
  return p.num_sms > 0 ? std::min(p.num_sms, device.num_sms) : device.num_sms;
}
int clusters(const GemmConfig& c, const Problem& p, const DeviceInfo& device) {
  const int fit = c.cluster == 1   ? device.num_sms
                  : c.cluster == 2 ? device.max_clusters_of_2
                  : c.cluster == 4 ? device.max_clusters_of_4
                                   : device.max_clusters_of_8;
  return std::min(usable_sms(p, device) / c.cluster, fit) * c.ctas_per_sm;
}
/// Rows of a group, as far as the host can know: its share of A's, or what the caller expects.
int64_t rows_of_group(const Problem& p) {
  if (p.layout == Layout::masked) return std::clamp<int64_t>(p.expected_m, 1, std::max<int64_t>(p.m, 1));
  return p.layout == Layout::offsets ? div_up(p.m, p.groups) : p.m;
}
/// Groups whose tiles are counted apart. The contiguous layout is dense but for the choice of B.
int64_t walks(const Problem& p) { return p.layout == Layout::dense || p.layout == Layout::contiguous ? 1 : p.groups; }

int64_t units_m(const GemmConfig& c, const Problem& p) {
  return div_up(rows_of_group(p), int64_t{c.tile_m} * cluster_m(c));
}
int64_t units_n(const GemmConfig& c, const Problem& p) { return div_up(p.n, int64_t{c.tile_n} * cluster_n(c)); }

/// How many units there will be; masked groups differ from the hint.
struct Units {
  double mean, deviation;
};

/// ceil(rows / step) of a masked group. The hint is the groups' mean, and their rows are taken for evenly spread over 0.7 to
/// 1.3 of it, as DeepGEMM's benchmark draws them: a tile that the hint just fills has a second one above it in every other
/// group.
Units units_of_group(int64_t hint, int64_t step) {
  const double low = 0.7 * static_cast<double>(hint) / static_cast<double>(step), high = low * 1.3 / 0.7;
  if (high - low > 1000) return {(low + high + 1) / 2, (high - low) / std::sqrt(12.0)};
  double mean = 0, square = 0;
  for (double units = std::max(1.0, std::ceil(low)); units - 1 < high; ++units) {
    const double share = (std::min(high, units) - std::max(low, units - 1)) / (high - low);
    mean += share * units;
    square += share * units * units;
  }
  return {mean, std::sqrt(std::max(0.0, square - mean * mean))};
}

/// Units of all groups.
/// Contiguous tiles that are cut count twice: that of every second group, if its end falls anywhere.
Units expected_units(const GemmConfig& c, const Problem& p) {
  const auto groups = static_cast<double>(walks(p)), wide = static_cast<double>(units_n(c, p));
  if (p.layout == Layout::masked && p.groups > 2) {  // a hint for one or two is taken for exact
    const Units each = units_of_group(rows_of_group(p), int64_t{c.tile_m} * cluster_m(c));
    return {each.mean * groups * wide, each.deviation * std::sqrt(groups) * wide};
  }
  const int64_t cut = c.layout == Layout::contiguous && cuts_tiles(c) ? p.groups / 2 : 0;
  return {(groups * static_cast<double>(units_m(c, p)) + static_cast<double>(cut)) * wide, 0};
}

/// The mean number of rounds of `fit` units at a time, normally distributed: the sum over r of the chance of more than r.
double expected_rounds(const Units& units, double fit) {
  if (units.deviation == 0 || units.mean > 1000 * fit) return std::ceil(units.mean / fit);
  double rounds = 1;
  for (double r = 1; r * fit < units.mean + 3 * units.deviation; ++r)
    rounds += 0.5 * std::erfc((r * fit - units.mean) / (units.deviation * std::sqrt(2.0)));
  return rounds;
}

/// The most units that may be in flight: what bounds the grid. The host does not know how many there are in groups.
int64_t most_units(const GemmConfig& c, const Problem& p) {
  if (p.layout == Layout::masked) return p.groups * div_up(p.m, c.tile_m) * units_n(c, p);
  if (p.layout == Layout::offsets) return (div_up(p.m, c.tile_m) + p.groups) * units_n(c, p);
  return walks(p) * units_m(c, p) * units_n(c, p);
}

/// Whether the tiles of a group that need a row of B ask for it at a time: groups of a few tiles, column by column.
bool walks_columns(const GemmConfig& c, const Problem& p, const DeviceInfo& device) {
  return (p.layout == Layout::masked || p.layout == Layout::offsets) && units_m(c, p) * 3 <= clusters(c, p, device);
}

/// Clusters' widths along n such that the tiles in flight at a time touch the fewest rows of A and B.
int best_raster(const GemmConfig& c, const Problem& p, const DeviceInfo& device) {
  const int64_t in_flight = clusters(c, p, device);
  const int64_t wide = std::max<int64_t>(units_n(c, p), 1), tall = std::max<int64_t>(units_m(c, p), 1);
  // Where A stays in L2 with room to spare, a round takes whole columns and B is read once, by all who need it at a time: 1
  // to 8 % less time for 4096×24576×1536 and 4096×32768×512 (H100, 2026-11-23).
  // A kept A is not read again at all.
  if (c.kept_blocks > 0 || (p.layout == Layout::dense && p.m * p.k < device.l2_bytes / 8))
    return static_cast<int>(std::clamp<int64_t>(in_flight / tall, 1, wide));
  // Who needs a row of B then asks for it together: up to 15 % less time (H100, 2026-11-23).
  if (walks_columns(c, p, device)) return 1;
  int64_t best = 1, least = INT64_MAX;
  for (int64_t width = 1; width <= std::min<int64_t>(wide, in_flight); ++width) {
    const int64_t height = std::min(tall, div_up(in_flight, width));
    const int64_t bands = div_up(in_flight, width * height);  // more than one where a band is shorter than the grid
    const int64_t rows = std::min(wide, width * bands) * c.tile_n * cluster_n(c) + height * c.tile_m * cluster_m(c);
    if (rows <= least) least = rows, best = width;
  }
  if (p.layout != Layout::contiguous) return static_cast<int>(best);
  // Groups of one tile come one after the other. A band walks down groups whose rows of A do not stay in L2 until the next
  // band: as few bands as L2 has room for B.
  if (p.m / p.groups <= c.tile_m) return static_cast<int>(wide);
  if (p.m / p.groups * p.k < device.l2_bytes) return static_cast<int>(best);
  const int64_t fitting = device.l2_bytes * 6 / 10 / std::max<int64_t>(c.tile_n * cluster_n(c) * p.k, 1);
  return static_cast<int>(std::clamp<int64_t>(fitting, best, wide));
}

/// Whether B's lines shall leave L2 before others: where the tiles that need one ask for it at about the same time. Other
/// lines then stay, and those of them that are dirty need not be written meanwhile. On dense products of m <= 128 and on those
/// of more in up to two rounds of tiles that takes 3 to 12 % off the time where L2 is full of dirty lines, and up to 7 % where
/// they are clean; in more than two rounds it adds 3 to 4 %. Where B is many times as large as L2, what was dirty is soon
/// gone: 32 experts of 4096×7168 with 20 rows took 333 µs without and 337 to 346 with it (H100, 2026-11-23;
/// docs/findings/2026-11-23-lines-of-l2.md and 2026-11-23-streamed-lines.md).
bool streams_b(const GemmConfig& c, const Problem& p, const DeviceInfo& device) {
  if (p.layout == Layout::k_grouped || p.groups * p.n * p.k > 4 * device.l2_bytes) return false;
  return units_m(c, p) == 1 || walks_columns(c, p, device) || expected_units(c, p).mean <= 2.0 * clusters(c, p, device);
}

/// What L2 asks memory for where it lacks a part of B. A streamed line is gone after a microsecond or two, and with it what
/// the next stage would need of 256 bytes, unless that one soon follows: where an SM takes up to 128 rows of B at a time.
int b_fetch_bytes(const GemmConfig& c, const Problem& p, bool streamed) {
  return streamed && (rows_of_group(p) > 128 || c.tile_n * c.ctas_per_sm > 128) ? 128 : 256;
}

/// Units that are computed at a time. Where A is kept and the grid is one band of tiles, each CTA stays with its rows.
int64_t in_flight(const GemmConfig& c, const Problem& p, const DeviceInfo& device) {
  const int64_t fit = clusters(c, p, device);
  if (c.kept_blocks == 0) return fit;
  return std::clamp<int64_t>(best_raster(c, p, device) * units_m(c, p), 1, fit);
}

GemmPlan make_plan(const GemmConfig& c, const Problem& p, const DeviceInfo& device) {
  GemmPlan plan;
  plan.config = c;
  plan.grid = static_cast<int>(std::min<int64_t>(in_flight(c, p, device), most_units(c, p))) * c.cluster;
  plan.raster_tiles = best_raster(c, p, device);
  plan.block_threads = static_cast<int>(num_threads(c));
  plan.smem_bytes = static_cast<int>(smem_layout(c).bytes);
  plan.stream_b = streams_b(c, p, device);
  plan.b_fetch_bytes = b_fetch_bytes(c, p, plan.stream_b);
  plan.estimate_us = estimate_us(c, p, device);
  return plan;
}

std::vector<PlanCandidate> ranked(const std::vector<GemmConfig>& configs, const Problem& p, const DeviceInfo& device) {
  std::vector<PlanCandidate> all;
  for (const GemmConfig& c : configs)
    if (!why_illegal(c, p, device)) all.push_back({c, estimate_us(c, p, device)});
  std::stable_sort(all.begin(), all.end(),
                   [](const PlanCandidate& x, const PlanCandidate& y) { return x.estimate_us < y.estimate_us; });
  return all;
}

/// `c` for the problem's operands, scales and layout.
GemmConfig in_form_of(const Problem& p, GemmConfig c) {
  c.layout = p.layout;
  c.a_type = p.a_type, c.b_type = p.b_type, c.d_type = p.d_type;
  c.scaled_a = p.scaled_a, c.scale_rows_b = p.scale_rows_b;
  c.accumulate = p.accumulate;
  return c;
}

/// Never empty.
std::vector<PlanCandidate> ranked_among(const std::vector<GemmConfig>& kernels, const Problem& p,
                                        const DeviceInfo& device) {
  std::vector<PlanCandidate> order = ranked(kernels, p, device);
  if (order.empty()) order = ranked(candidates(p, device), p, device);  // too few SMs for any of them
  if (order.empty()) {
    // What keeps this one from running keeps all.
    const GemmConfig least = in_form_of(p, {.tile_m = 64, .tile_n = 32, .stages = 2});
    fail(ErrorCode::invalid_argument, "plan: no kernel is legal on {} with {} SMs and {} bytes of shared memory: {}",
         device.name, usable_sms(p, device), device.smem_bytes, why_illegal(least, p, device));
  }
  return order;
}

}  // namespace

const char* why_illegal(const GemmConfig& c, const Problem& p, const DeviceInfo& device) {
  if (const char* why = why_illegal(c, static_cast<uint32_t>(device.smem_bytes))) return why;
  if (c.layout != p.layout) return "layout differs from the call's";
  if (c.d_type != p.d_type) return "d_type differs from D's";
  if (c.scaled_a != p.scaled_a) return "scaled_a must say whether A has scales";
  if (c.a_type != p.a_type || c.b_type != p.b_type) return "a_type and b_type differ from the operands'";
  if (c.scale_rows_b != p.scale_rows_b) return "scale_rows_b differs from the recipe";
  if (c.split_k && p.batch_invariant) return "split_k is not batch-invariant";
  if (c.accumulate != p.accumulate) return "accumulate must say whether there is a C";
  if (c.kept_blocks > 0 && div_up(p.k, kTileK) > c.kept_blocks) return "k has more blocks than kept_blocks";
  if (clusters(c, p, device) < 1) return "cluster is larger than the SMs that may be used";
  return nullptr;
}

std::vector<GemmConfig> candidates(const Problem& p, const DeviceInfo& device) {
  std::vector<GemmConfig> configs;
  const auto add = [&](const GemmConfig& shape) {
    GemmConfig c = in_form_of(p, shape);
    // Where a step is one wave, the next step's wgmma can be issued amid its promotion only if the loop is unrolled: 1 to 7 %
    // less time, for a third more to compile.
    c.unroll = row_waves(c) * col_waves(c) == 1 ? 2 : 1;
    c.stages = 32;
    while (c.stages > 2 && why_illegal(c, p, device)) --c.stages;
    if (why_illegal(c, p, device)) return;
    // One stage less where that stages a whole tile of D and so frees the math warps.
    const uint32_t slots = panel_slots(c);
    if (--c.stages < 3 || panel_slots(c) == slots) ++c.stages;
    configs.push_back(c);
  };
  for (const int tile_m : {64, 128, 256}) {
    // 16 is legal, but was never the fastest; wide tiles of 64 rows lost to two CTAs an SM; 208 and 240 would leave eight
    // columns a scale of B in each of their two waves.
    for (int tile_n = 32; tile_n <= (tile_m == 64 ? 128 : 256); tile_n += tile_n < 192 ? 16 : 32) {
      add({.tile_m = tile_m, .tile_n = tile_n});
      add({.tile_m = tile_m, .tile_n = tile_n, .cluster = 2, .multicast = Multicast::a});
      add({.tile_m = tile_m, .tile_n = tile_n, .cluster = 2, .multicast = Multicast::b});
      if (tile_m <= 128 && tile_n <= 128) add({.tile_m = tile_m, .tile_n = tile_n, .ctas_per_sm = 2});
    }
  }
  // 8192×32768×512 takes 238 instead of 272 µs. Tiles of 256 rows would leave two stages for B, and tiles of 128×192 take 3 to 6 %
  // longer (H100, 2026-11-28).
  if (p.layout == Layout::dense && p.k <= kKeptBlocks * kTileK)
    add({.tile_m = 128, .tile_n = 256, .kept_blocks = kKeptBlocks});
  for (const int tile_m : {64, 128})
    for (const int tile_n : {32, 64, 128})
      for (const int cluster : {2, 4, 8})
        for (const int ctas_per_sm : {1, 2})
          add({.tile_m = tile_m, .tile_n = tile_n, .cluster = cluster, .split_k = true, .ctas_per_sm = ctas_per_sm});
  return configs;
}

namespace {

// The numbers from here to estimate_us were fitted to some 11000 times: up to 40 kernels on the 200 products of
// bench/shapes/plan.csv, on decode.csv's with clean L2, on middle.csv's, grouped.csv's and weight_gradients.csv's (H100,
// 2026-11-24; else cool). What was fitted is how good the kernel is that is chosen, not how right its time is:
// docs/findings/2026-11-24-plan.md.

/// Clocks of a step, without those that its bytes cost: of tiles of 64, 128 and 256 rows and 32, 48, … 256 columns. Tensor cores,
/// shared memory, promotion, and the choice of a scale where a tile meets two of B's. Of tiles that candidates() has not, a
/// formula's.
constexpr std::array<std::array<int16_t, 15>, 3> kStepClocks = {{
    {208, 235, 268, 331, 330, 385, 409, 464, 502, 540, 578, 616, 654, 692, 731},
    {287, 369, 366, 436, 432, 524, 508, 622, 573, 718, 686, 912, 885, 938, 935},
    {549, 671, 617, 702, 808, 942, 897, 1070, 1084, 1269, 1269, 1692, 1692, 1692, 1692},
}};

/// Clocks that a CTA takes for a step, where `neighbours` are on an SM at the same time and `busy` of all slots are taken.
double step_clocks(const GemmConfig& c, const Problem& p, double neighbours, double busy) {
  const double alone = kStepClocks[c.tile_m / 128][std::max(c.tile_n, 32) / 16 - 2];
  // Or the tensor cores' for all neighbours, or TMA's, by what it brings an SM in a clock, or a load's latency.
  const double wgmma = c.tile_m * c.tile_n / 32;
  const double tma = 128.0 * static_cast<double>(std::min<int64_t>(c.tile_m, rows_of_group(p)) + c.tile_n) / 70;
  const double step = std::max({alone, neighbours > 1 ? neighbours * wgmma : 0.0, neighbours * tma, 1689.0 / c.stages});
  // And the price of bytes from L2, and of a multiplication more where each row of B has a scale.
  const int rows_of_a = c.kept_blocks > 0 ? 0 : c.tile_m / static_cast<int>(cluster_n(c));
  const double l2_bytes = 128.0 * (rows_of_a + c.tile_n / cluster_m(c));
  const bool one_wave = row_waves(c) * col_waves(c) == 1;
  const double row_scales = c.scale_rows_b == 1 ? c.tile_m * c.tile_n * (one_wave ? 0.033 : 0.026) : 0;
  const double kept = c.kept_blocks > 0 ? 50 : 0;  // loads have a third less to do, shared memory a ninth
  return step - kept + neighbours * (row_scales + 0.00499 * l2_bytes * busy);
}

/// Clocks from a tile's last step to the next tile's first one.
double end_clocks(const GemmConfig& c) {
  const double stored = 0.0474 * d_bytes(c) / 2, sent = 0.351 * (splits(c) - 1) / splits(c);
  // A contiguous tile that may hold two groups looks both up and is stored through another map.
  const double two_groups = c.layout == Layout::contiguous && cuts_tiles(c) ? 4000 : 0;
  return c.tile_m * c.tile_n * (stored + sent) + two_groups;
}

/// To read the operands and write D.
double memory_us(const GemmConfig& c, const Problem& p, const DeviceInfo& device) {
  const int64_t rows = rows_of_group(p) * walks(p);
  const int64_t b_bytes = p.n * p.groups * p.k;
  const int64_t d_accesses = p.accumulate ? 2 : 1;
  const double once = static_cast<double>(rows * p.k + b_bytes + rows * p.n * size_of(p.d_type) * d_accesses);
  // Tiles of a group, one above the other, that do not share B in a cluster find some of it gone from L2.
  const int64_t tall = div_up(p.layout == Layout::contiguous ? div_up(p.m, p.groups) : rows_of_group(p),
                              int64_t{c.tile_m} * cluster_m(c));
  // With A kept, all of them ask for it at the same time.
  const double again = c.kept_blocks > 0 ? 0 : 0.316 * std::clamp(static_cast<double>(tall - 1), 0.0, 1.07);
  // Found, not understood: rows of B are read faster by 32, 64 or 128 at a time than by 48 or 96.
  const bool odd = (c.tile_n & (c.tile_n - 1)) != 0;
  const bool in_halves = rows_of_group(p) <= 128 && b_fetch_bytes(c, p, streams_b(c, p, device)) == 128;
  const double slower = 1 + (odd ? 0.024 : 0) + (in_halves ? 0.01 : 0);
  return (once + again * static_cast<double>(b_bytes)) * slower / (device.hbm_gbytes_per_s * 1e3);
}

}  // namespace

double estimate_us(const GemmConfig& c, const Problem& p, const DeviceInfo& device) {
  const Units units = expected_units(c, p);
  const auto fit = static_cast<int>(in_flight(c, p, device));
  const double whole_rounds = std::max(expected_rounds(units, fit) - 1, 0.0);
  const double in_last = std::clamp(units.mean - whole_rounds * fit, 1.0, static_cast<double>(fit));
  const double steps = static_cast<double>(div_up(div_up(p.k, kTileK), splits(c)));
  const double end = end_clocks(c), read_us = memory_us(c, p, device) / std::max(units.mean, 1.0);

  // A round of tiles computes while it reads its share of the bytes, and lasts as long as the slower one, or longer where they
  // are alike. In the last one fewer CTAs may share an SM, and nothing is read during some of its end.
  const auto round_us = [&](double some) {
    const double neighbours = std::min<double>(c.ctas_per_sm, std::ceil(some * c.cluster / usable_sms(p, device)));
    const double compute_us = (steps * step_clocks(c, p, neighbours, some / fit) + end) / (device.clock_ghz * 1e3);
    const double longer = std::max(compute_us, read_us * some), shorter = std::min(compute_us, read_us * some);
    return longer * std::sqrt(std::sqrt(1 + std::pow(shorter / longer, 4)));
  };
  const double first_a = c.kept_blocks > 0 ? 0.8 : 0;  // all of a kept A comes before a CTA's second tile
  const double us =
      3.669 + first_a + whole_rounds * round_us(fit) + round_us(in_last) + 0.699 * end / (device.clock_ghz * 1e3);
  return c.multicast == Multicast::none ? us : 1.018 * us + (c.multicast == Multicast::a ? 0.67 : 0);
}

std::vector<GemmConfig> kernels_for(const Problem& problem, const DeviceInfo& device) {
  // What differs from call to call is k, and the best tile hardly depends on it: one kernel for all.
  if (problem.layout == Layout::k_grouped) {
    Problem typical = problem;
    typical.k = kTypicalDepth, typical.num_sms = 0;
    const std::vector<PlanCandidate> order = ranked(candidates(typical, device), typical, device);
    return order.empty() ? std::vector<GemmConfig>{} : std::vector{order.front().config};
  }
  // For all SMs, whatever the call may use: a smaller num_sms compiles nothing.
  Problem whole = problem;
  whole.num_sms = 0;
  const std::vector<GemmConfig> all = candidates(whole, device);
  if (all.empty()) return {};
  std::array<std::vector<double>, kRowLadder.size()> times;
  std::array<double, kRowLadder.size()> best;
  for (std::size_t i = 0; i < kRowLadder.size(); ++i) {
    Problem at = whole;
    at.m = at.expected_m = kRowLadder[i];
    if (at.layout == Layout::offsets || at.layout == Layout::contiguous) at.m *= at.groups;
    for (const GemmConfig& c : all) times[i].push_back(estimate_us(c, at, device));
    best[i] = *std::min_element(times[i].begin(), times[i].end());
  }
  // The fewest regrets over the ladder: greedily, then exchanging one for another while that helps.
  const auto regret_of = [&](const std::vector<std::size_t>& some) {
    double sum = 0;
    for (std::size_t i = 0; i < kRowLadder.size(); ++i) {
      double least = 100 * best[i];
      for (const std::size_t j : some) least = std::min(least, times[i][j]);
      sum += least / best[i];
    }
    return sum;
  };
  std::vector<std::size_t> chosen;
  double regret = regret_of(chosen);
  const auto improve = [&](std::size_t slot) {  // the best config for a slot, if it takes regret away
    std::vector<std::size_t> some = chosen;
    if (slot == some.size()) some.push_back(0);
    bool improved = false;
    for (std::size_t j = 0; j < all.size(); ++j) {
      some[slot] = j;
      if (const double now = regret_of(some); now < regret - 1e-9) regret = now, chosen = some, improved = true;
    }
    return improved;
  };
  while (chosen.size() < kMaxKernels && improve(chosen.size())) {
  }
  for (bool improved = true; improved;) {
    improved = false;
    for (std::size_t slot = 0; slot < chosen.size(); ++slot) improved |= improve(slot);
  }
  std::vector<GemmConfig> configs;
  for (const std::size_t j : chosen) configs.push_back(all[j]);
  return configs;
}

GemmPlan plan_among(const std::vector<GemmConfig>& kernels, const Problem& problem, const DeviceInfo& device) {
  return make_plan(ranked_among(kernels, problem, device).front().config, problem, device);
}

GemmPlan plan(const Problem& problem, const DeviceInfo& device, const std::optional<GemmConfig>& config) {
  if (config) {
    if (const char* why = why_illegal(*config, problem, device))
      fail(ErrorCode::invalid_argument, "plan: config {} cannot run {} × {} × {}: {}", kernel_name(*config), problem.m,
           problem.n, problem.k, why);
    GemmPlan chosen = make_plan(*config, problem, device);
    chosen.reason = "given explicitly";
    return chosen;
  }
  std::vector<PlanCandidate> order = ranked_among(kernels_for(problem, device), problem, device);
  GemmPlan chosen = make_plan(order.front().config, problem, device);
  const GemmConfig& c = chosen.config;
  const auto tiles = static_cast<int64_t>(std::ceil(expected_units(c, problem).mean)) * sharers(c);
  chosen.reason =
      fmt::format("{}{} tiles of {}×{} in {} round(s) on {} CTAs, fastest by estimate of {} kernels for this n and k",
                  walks(problem) > 1 ? "about " : "", tiles, c.tile_m, c.tile_n,
                  div_up(tiles * splits(c), std::max(chosen.grid, 1)), chosen.grid, order.size());
  order.erase(order.begin());
  chosen.runners_up = std::move(order);
  return chosen;
}

DeviceInfo known_device(const DeviceInfo& found) {
  DeviceInfo info = found;
  for (const DeviceInfo& preset : {DeviceInfo::h100(), DeviceInfo::h200(), DeviceInfo::h800()}) {
    if (found.name != preset.name || found.num_sms != preset.num_sms) continue;
    info.clock_ghz = preset.clock_ghz;
    info.hbm_gbytes_per_s = preset.hbm_gbytes_per_s;
    info.max_clusters_of_2 = preset.max_clusters_of_2;
    info.max_clusters_of_4 = preset.max_clusters_of_4;
    info.max_clusters_of_8 = preset.max_clusters_of_8;
  }
  return info;
}

DeviceInfo DeviceInfo::h100() {
  return {.name = "NVIDIA H100 80GB HBM3",
          .num_sms = 132,
          .smem_bytes = 232448,
          .l2_bytes = 50 << 20,
          .clock_ghz = 1.65,
          .hbm_gbytes_per_s = 3050,
          .max_clusters_of_2 = 66,
          .max_clusters_of_4 = 30,
          .max_clusters_of_8 = 15};
}
DeviceInfo DeviceInfo::h200() {
  DeviceInfo info = h100();
  info.name = "NVIDIA H200";
  info.l2_bytes = 60 << 20;
  info.hbm_gbytes_per_s = 4300;
  return info;
}
DeviceInfo DeviceInfo::h800() {
  DeviceInfo info = h100();
  info.name = "NVIDIA H800";
  return info;
}

}  // namespace deep_gemm
