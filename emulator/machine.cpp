// One cluster of CTAs at a time. Each thread is a fiber that runs until it waits or gives way; which one is next, and when what
// was started asynchronously happens, is drawn from a seed, so that a run can be repeated. What is asynchronous on the
// hardware is an `Operation` here: it is started, and happens later; bytes that it will write are NaN until then. Two that
// touch the same bytes, one of them writing, are an error, as is shared memory that belongs to a CTA that has ended. With
// DG_EMULATOR_RACES accesses that nothing orders are errors, too: see races.h.
#include "machine.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include <fmt/format.h>

#include <deep_gemm/core/fp8.cuh>

#include "races.h"
#include "run.h"

namespace emulator {

Thread* current = nullptr;

namespace {

constexpr std::size_t kStackBytes = 128 << 10, kPage = 4096;
constexpr unsigned kWarp = 32, kWarpgroup = 128;

struct Failure {
  std::string text;
};
/// In the scheduler. In a fiber `give_up` says it there.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Failure{fmt::format(format, std::forward<Args>(args)...)};
}

struct Cta;
struct Fiber;
using Fibers = std::vector<Fiber*>;

/// What a fiber waits for, put into words only where that is asked.
struct Wait {
  const char* format = nullptr;  // null: it runs, or could
  const char* name = nullptr;    // {5}
  std::array<unsigned, 5> numbers{};

  bool operator==(const Wait&) const = default;
  std::string text() const {
    const auto& n = numbers;
    return fmt::format(fmt::runtime(format), n[0], n[1], n[2], n[3], n[4], name ? name : "");
  }
};

/// A stack, and where it was left. It outlives its fiber and serves another one after it.
struct Stack {
  unsigned char* memory;
  bool started = false;
  jmp_buf at{};
};

struct Fiber : Thread {
  Stack* stack;
  bool done = false;
  Cta* cta;
  unsigned number;  // in the CTA
  Wait waits_for;
  unsigned warp_round = 0, cluster_round = 0, products = 0;
  bool arrived_at_cluster = false;
  std::vector<unsigned long*> unfenced_barriers;
  std::vector<std::pair<unsigned, unsigned>> unfenced_stores;  // offset and bytes
  std::deque<std::shared_ptr<unsigned>> store_groups;          // how many of a group have not been read
  std::shared_ptr<unsigned> open_group;
  Knowledge known, of_stores;  // of_stores: what TMA knew when it had read what this thread stores
  uint32_t clock = 0, store_clock = 0;

  unsigned lane() const { return number % kWarp; }
};

struct Warp {
  unsigned long values[2][kWarp];
  unsigned arrived = 0;
  const char* what = nullptr;
  Fibers waiting;
  Knowledge meeting, met[2];
  // wgmma: lanes that have started the newest one, their accumulators, and how many are finished
  unsigned multiplying = 0, multiplied = 0;
  std::array<float*, kWarp> d{};
  Fibers waiting_for_products;
  Knowledge of_operands, of_products;
  uint32_t clock = 0;
};
struct Product {
  unsigned long a, b;  // descriptors
  unsigned n;
  bool operator==(const Product&) const = default;
};
/// All that a warpgroup has multiplied, the same by all of its warps.
using Products = std::vector<Product>;
struct NamedBarrier {
  unsigned arrived = 0, expected = 0;
  Fibers waiting;
  Knowledge arriving, completed;
};
/// An mbarrier object beyond its 64 bits.
struct Watched {
  bool fenced = false;
  Fibers waiting;
  Knowledge arriving, completed;
  uint32_t clock = 0;  // of what counts bytes on it
};

struct Cta {
  unsigned rank;
  unsigned char* smem;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Warp> warps;
  std::vector<Products> products;  // of each warpgroup
  std::array<NamedBarrier, 16> named{};
  std::unordered_map<unsigned long*, Watched> barriers;
  std::vector<uint16_t> unfenced;  // for each 4 bytes: 1 + the thread that stored them without a fence since
  unsigned running = 0;            // fibers
  std::optional<AccessLog> log;    // where races are looked for

  bool contains(const void* p) const { return p >= smem && p < smem + kSmemBytes; }
  unsigned offset(const void* p) const { return static_cast<unsigned>(static_cast<const unsigned char*>(p) - smem); }
};

struct Range {
  Cta* cta;
  unsigned begin, bytes;
  bool writes;
};
struct Operation {
  std::string what;
  std::vector<Range> ranges;
  std::function<void()> happen;
  uint32_t clock = 0;            // on whose behalf it happens
  Knowledge* teaches = nullptr;  // who learns, when it has happened, what it knew
  Knowledge known{};
};

/// The 64 bits of an mbarrier object.
struct BarrierBits {
  unsigned phase, pending, expected;
  int bytes;  // announced and not yet there

  static BarrierBits read(const unsigned long* at) {
    const unsigned long x = *at;
    return {static_cast<unsigned>(x & 1), static_cast<unsigned>(x >> 1 & 0xfffff),
            static_cast<unsigned>(x >> 21 & 0xfffff), static_cast<int>(static_cast<long>(x) >> 41)};
  }
  void write(unsigned long* at) const {
    *at = phase | static_cast<unsigned long>(pending) << 1 | static_cast<unsigned long>(expected) << 21 |
          static_cast<unsigned long>(bytes) << 41;
  }
};

constexpr const char* kReadOfStores = "TMA to read what it stores";

class Machine;
Machine* machine = nullptr;

class Machine {
 public:
  explicit Machine(uint64_t seed)
      : random_(seed * 0x9e3779b97f4a7c15u + 1),
        pace_(static_cast<Pace>(seed % 3)),
        favour_(static_cast<Favour>(seed / 3 % 3)) {}

  void run(const Launch& launch) {
    const unsigned ctas = launch.grid.x * launch.grid.y * launch.grid.z;
    for (unsigned first = 0; first < ctas; first += launch.cluster) run_cluster(launch, first);
  }

  /// After a failure: fibers that are still inside of the kernel are forgotten.
  void abandon() {
    for (const auto& cta : ctas_)
      for (const auto& fiber : cta->fibers)
        if (!fiber->done) fiber->stack->started = false;
  }

  // Of clocks, where races are looked for.
  bool looks_for_races() const { return looks_for_races_; }
  uint32_t new_clock() { return ++clocks_; }
  /// What the running fiber did so far is before what is done by who learns `from`.
  void release(Knowledge& to) {
    if (!looks_for_races_) return;
    to.learn(self().known);
    self().known.learn(self().clock, ++ticks_);
  }
  void acquire(const Knowledge& from) {
    if (looks_for_races_) self().known.learn(from);
  }
  /// An ordinary access by the running fiber.
  void access(const void* at, unsigned bytes, bool writes) {
    Cta& cta = *self().cta;
    if (!looks_for_races_ || !cta.contains(at)) return;
    const unsigned offset = cta.offset(at);
    if (const auto race = cta.log->access(self().clock, self().known, offset, bytes, writes))
      give_up("{} bytes {} to {} of shared memory, and nothing orders this and what {} did with them",
              writes ? "writes" : "reads", offset, offset + bytes, owner(race->who));
  }
  /// Whose clock it is.
  std::string owner(uint32_t clock) const {
    for (const auto& cta : ctas_) {
      for (const auto& fiber : cta->fibers) {
        if (fiber->clock == clock)
          return fmt::format("warp {}, lane {} of CTA {}", fiber->number / kWarp, fiber->lane(), cta->rank);
        if (fiber->store_clock == clock) return fmt::format("a TMA store by CTA {}", cta->rank);
      }
      for (std::size_t i = 0; i < cta->warps.size(); ++i)
        if (cta->warps[i].clock == clock) return fmt::format("wgmma of CTA {}, warp {}", cta->rank, i);
    }
    return "a copy to it";
  }

  // Of the running fiber.
  Fiber& self() const { return *static_cast<Fiber*>(current); }
  template <class... Args>
  [[noreturn]] void give_up(fmt::format_string<Args...> format, Args&&... args) {
    failure_ = where(self()) + fmt::format(format, std::forward<Args>(args)...);
    switch_to_scheduler();
    std::abort();  // the scheduler never comes back
  }
  void wait(Fibers& with, const Wait& what) {
    self().waits_for = what;
    with.push_back(&self());
    switch_to_scheduler();
  }
  void maybe_give_way() {
    if (random() % 4 != 0) return;
    runnable_.push_back(&self());
    switch_to_scheduler();
  }
  /// For who asks again and again: all others go first.
  void poll() {
    polling_.push_back(&self());
    switch_to_scheduler();
  }
  void wake(Fibers& waiting) {
    for (Fiber* fiber : waiting) fiber->waits_for = {};
    runnable_.insert(runnable_.end(), waiting.begin(), waiting.end());
    waiting.clear();
  }

  void arrive(unsigned id, unsigned threads, bool waits) {
    if (id >= self().cta->named.size()) give_up("barrier {} does not exist", id);
    NamedBarrier& barrier = self().cta->named[id];
    if (barrier.arrived > 0 && barrier.expected != threads)
      give_up("barrier {} is for {} threads here and for {} elsewhere", id, threads, barrier.expected);
    barrier.expected = threads;
    release(barrier.arriving);
    if (++barrier.arrived < threads) {
      if (!waits) return;
      wait(barrier.waiting, {"barrier {}, where {} threads meet", nullptr, {id, threads}});
    } else {
      barrier.arrived = 0;
      barrier.completed = barrier.arriving;
      wake(barrier.waiting);
    }
    if (waits) acquire(barrier.completed);
  }

  void arrive_at_cluster() {
    if (self().arrived_at_cluster) give_up("arrives at the cluster's barrier twice");
    self().arrived_at_cluster = true;
    if (++cluster_arrived_ < cluster_threads_) return;
    cluster_arrived_ = 0;
    ++cluster_round_;
    wake(cluster_waiting_);
  }
  void wait_for_cluster() {
    if (!self().arrived_at_cluster) give_up("waits at the cluster's barrier without having arrived");
    while (cluster_round_ == self().cluster_round) wait(cluster_waiting_, {"the cluster's barrier"});
    ++self().cluster_round;
    self().arrived_at_cluster = false;
  }

  // Of fibers and operations.
  Cta& cta(unsigned rank) { return *ctas_[rank]; }
  unsigned cluster() const { return static_cast<unsigned>(ctas_.size()); }

  /// Throws. `fenced`: by others than the CTA's own threads.
  Watched& watched(Cta& cta, unsigned long* barrier, bool fenced) {
    const auto found = cta.barriers.find(barrier);
    if (found == cta.barriers.end())
      fail("the mbarrier at {} of CTA {} was not initialised", cta.offset(barrier), cta.rank);
    if (fenced && !found->second.fenced)
      fail("the mbarrier at {} of CTA {} was initialised, but no fence.mbarrier_init followed", cta.offset(barrier),
           cta.rank);
    return found->second;
  }
  /// Throws. `announced` bytes are to come, `arrived` are there.
  void change(Cta& cta, unsigned long* barrier, unsigned arrivals, unsigned announced, unsigned arrived, bool fenced) {
    if (cta.running == 0) fail("an arrival at shared memory of CTA {}, which has ended", cta.rank);
    Watched& watch = watched(cta, barrier, fenced);
    BarrierBits bits = BarrierBits::read(barrier);
    if (arrivals > bits.pending)
      fail("more arrivals at the mbarrier at {} of CTA {} than the {} that it was initialised for", cta.offset(barrier),
           cta.rank, bits.expected);
    bits.pending -= arrivals;
    bits.bytes += static_cast<int>(announced) - static_cast<int>(arrived);
    const bool completes = bits.pending == 0 && bits.bytes == 0;
    if (completes) bits.phase ^= 1, bits.pending = bits.expected, watch.completed = watch.arriving;
    bits.write(barrier);
    if (completes) wake(watch.waiting);
  }
  template <class F>
  decltype(auto) in_fiber(F f) {
    std::string text;
    try {
      return f();
    } catch (const Failure& failure) {
      text = failure.text;
    }
    give_up("{}", text);
  }

  void start(Operation operation) {
    for (const Range& range : operation.ranges) {
      if (range.cta->running == 0)
        give_up("{} touches shared memory of CTA {}, which has ended", operation.what, range.cta->rank);
      expect_free(operation.what, range);
      if (range.writes) std::memset(range.cta->smem + range.begin, 0xff, range.bytes);
    }
    release(operation.known);
    operations_.push_back(std::move(operation));
    if (pace_ == kAtOnce) in_fiber([&] { happen(operations_.size() - 1); });
  }
  void expect_free(const std::string& what, const Range& range) {
    if (range.begin + range.bytes > launch_->smem_bytes)
      give_up("{} touches bytes {} to {} of shared memory, of which the launch has {}", what, range.begin,
              range.begin + range.bytes, launch_->smem_bytes);
    for (const Operation& other : operations_)
      for (const Range& its : other.ranges)
        if (its.cta == range.cta && (its.writes || range.writes) && its.begin < range.begin + range.bytes &&
            range.begin < its.begin + its.bytes)
          give_up("{} touches bytes {} to {} of CTA {}'s shared memory, which {} has not finished with", what,
                  range.begin, range.begin + range.bytes, range.cta->rank, other.what);
  }

  static std::string where(const Fiber& f) {
    return fmt::format("CTA {}, warp {}, lane {}: ", f.block.x, f.number / kWarp, f.lane());
  }

 private:
  enum Pace { kAtOnce, kAtRandom, kAtLast };     // when operations happen
  enum Favour { kNobody, kTheFirst, kTheLast };  // of the cluster's threads

  uint64_t random() {
    random_ ^= random_ << 13, random_ ^= random_ >> 7, random_ ^= random_ << 17;
    return random_ >> 8;
  }

  // <ucontext.h> starts a fiber; from then on setjmp changes stacks, without its two system calls.
  void switch_to_scheduler() {
    if (_setjmp(self().stack->at) == 0) _longjmp(scheduler_, 1);
  }
  [[gnu::noinline]] void switch_to(Fiber& fiber) {
    if (_setjmp(scheduler_) != 0) return;
    current = &fiber;
    if (fiber.stack->started) _longjmp(fiber.stack->at, 1);
    fiber.stack->started = true;
    ucontext_t start;
    getcontext(&start);
    start.uc_stack = {.ss_sp = fiber.stack->memory, .ss_flags = 0, .ss_size = kStackBytes};
    start.uc_link = nullptr;
    makecontext(&start, &Machine::enter, 0);
    setcontext(&start);
  }

  /// What a stack runs: one fiber after another.
  static void enter();

  void run_cluster(const Launch& launch, unsigned first) {
    launch_ = &launch;
    ctas_.clear(), runnable_.clear(), polling_.clear(), operations_.clear();
    const unsigned threads = launch.block.x * launch.block.y * launch.block.z;
    cluster_arrived_ = cluster_round_ = 0;
    clocks_ = ticks_ = 0;
    cluster_threads_ = threads * launch.cluster;
    cluster_waiting_.clear();
    for (unsigned rank = 0; rank < launch.cluster; ++rank) make_cta(launch, first + rank, rank, threads);
    unsigned running = cluster_threads_;
    while (running > 0 || !operations_.empty()) {
      const bool operate = !operations_.empty() && (runnable_.empty() || (pace_ == kAtRandom && random() % 8 == 0));
      if (operate) happen(random() % operations_.size());
      if (runnable_.empty()) runnable_.swap(polling_);
      if (operate) continue;
      if (runnable_.empty()) fail("deadlock:{}", all_waiting());
      Fiber& fiber = take_next();
      switch_to(fiber);
      current = nullptr;
      if (!failure_.empty()) throw Failure{failure_};
      if (fiber.done) --running, --fiber.cta->running;
    }
    for (const auto& cta : ctas_) expect_at_rest(*cta);
  }

  /// Of those that can run: any, or the best of some.
  Fiber& take_next() {
    const auto is_before = [](const Fiber& x, const Fiber& y) {
      return x.cta->rank != y.cta->rank ? x.cta->rank < y.cta->rank : x.number < y.number;
    };
    std::size_t next = random() % runnable_.size();
    for (int i = 0; favour_ != kNobody && i < 8; ++i) {
      const std::size_t other = random() % runnable_.size();
      const Fiber &x = *runnable_[other], &y = *runnable_[next];
      if (favour_ == kTheFirst ? is_before(x, y) : is_before(y, x)) next = other;
    }
    std::swap(runnable_[next], runnable_.back());
    Fiber& fiber = *runnable_.back();
    runnable_.pop_back();
    return fiber;
  }

  void make_cta(const Launch& launch, unsigned index, unsigned rank, unsigned threads) {
    ctas_.push_back(std::make_unique<Cta>());
    Cta& cta = *ctas_.back();
    cta.rank = rank;
    cta.running = threads;
    while (smem_.size() <= rank) smem_.push_back(memory(kSmemBytes));
    cta.smem = smem_[rank];
    std::memset(cta.smem, 0xff, kSmemBytes);
    cta.unfenced.assign(kSmemBytes / 4, 0);
    cta.warps.resize((threads + kWarp - 1) / kWarp);
    for (Warp& warp : cta.warps) warp.clock = new_clock();
    if (looks_for_races_) cta.log.emplace(kSmemBytes);
    cta.products.resize((threads + kWarpgroup - 1) / kWarpgroup);
    const Index block = {index % launch.grid.x, index / launch.grid.x % launch.grid.y,
                         index / launch.grid.x / launch.grid.y};
    for (unsigned i = 0; i < threads; ++i) {
      cta.fibers.push_back(std::make_unique<Fiber>());
      Fiber& fiber = *cta.fibers.back();
      fiber.thread = {i, 0, 0}, fiber.block = block, fiber.grid = launch.grid, fiber.block_dim = launch.block;
      fiber.cta = &cta;
      fiber.number = i;
      fiber.stack = &stack(rank * threads + i);
      fiber.clock = new_clock(), fiber.store_clock = new_clock();
      if (looks_for_races_) fiber.known.learn(fiber.clock, ++ticks_);
      runnable_.push_back(&fiber);
    }
  }

  /// Kept from launch to launch; what lies before it cannot be touched.
  static unsigned char* memory(std::size_t bytes) {
    void* all =
        mmap(nullptr, kPage + bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) fail("no memory for the emulator");
    mprotect(all, kPage, PROT_NONE);
    return static_cast<unsigned char*>(all) + kPage;
  }
  static Stack& stack(unsigned index) {
    while (stacks_.size() <= index) stacks_.push_back({memory(kStackBytes)});
    return stacks_[index];
  }

  void happen(std::size_t index) {
    std::swap(operations_[index], operations_.back());
    Operation operation = std::move(operations_.back());
    operations_.pop_back();
    for (const Range& range : operation.ranges)
      if (range.cta->running == 0)
        fail("{} had not happened when CTA {}, whose shared memory it touches, ended", operation.what, range.cta->rank);
    try {
      if (looks_for_races_) order(operation);
      operation.happen();
    } catch (const Failure& failure) {
      fail("{}: {}", operation.what, failure.text);
    }
  }
  void order(Operation& operation) {
    operation.known.learn(operation.clock, ++ticks_);
    for (const Range& range : operation.ranges)
      if (const auto race =
              range.cta->log->access(operation.clock, operation.known, range.begin, range.bytes, range.writes))
        fail("nothing orders this and what {} did with some of bytes {} to {} of CTA {}'s shared memory",
             owner(race->who), range.begin, range.begin + range.bytes, range.cta->rank);
    if (operation.teaches) operation.teaches->learn(operation.known);
  }

  static void expect_at_rest(Cta& cta) {
    for (std::size_t id = 0; id < cta.named.size(); ++id)
      if (cta.named[id].arrived > 0)
        fail("CTA {} ended with {} of {} threads at barrier {}", cta.rank, cta.named[id].arrived,
             cta.named[id].expected, id);
    for (const auto& [barrier, watch] : cta.barriers)
      if (const BarrierBits bits = BarrierBits::read(barrier); bits.bytes != 0)
        fail("CTA {} ended with {} bytes announced at the mbarrier at {} that did not come", cta.rank, bits.bytes,
             cta.offset(barrier));
  }

  /// Warp by warp.
  std::string all_waiting() const {
    constexpr int kMost = 16;
    std::string text;
    int count = 0;
    for (const auto& cta : ctas_) {
      for (std::size_t i = 0; i < cta->fibers.size();) {
        const Fiber& first = *cta->fibers[i];
        std::size_t end = i + 1;
        while (end < cta->fibers.size() && end % kWarp != 0 && cta->fibers[end]->waits_for == first.waits_for) ++end;
        if (!first.done && ++count <= kMost)
          text += fmt::format("{} CTA {}, warp {}, lanes {} to {} wait for {}", count == 1 ? "" : ";", first.block.x,
                              i / kWarp, i % kWarp, (end - 1) % kWarp, first.waits_for.text());
        i = end;
      }
    }
    return count > kMost ? text + fmt::format("; and {} more", count - kMost) : text;
  }

  static inline std::deque<Stack> stacks_;
  static inline std::vector<unsigned char*> smem_;
  uint64_t random_;
  Pace pace_;
  Favour favour_;
  const Launch* launch_ = nullptr;
  jmp_buf scheduler_{};
  std::vector<std::unique_ptr<Cta>> ctas_;
  Fibers runnable_, polling_;
  std::vector<Operation> operations_;
  unsigned cluster_arrived_ = 0, cluster_threads_ = 0, cluster_round_ = 0;
  Fibers cluster_waiting_;
  std::string failure_;
  const bool looks_for_races_ = std::getenv("DG_EMULATOR_RACES") != nullptr;
  uint32_t clocks_ = 0, ticks_ = 0;
};

void Machine::enter() {
  while (true) {
    machine->launch_->call(machine->launch_->params);
    machine->self().done = true;
    machine->switch_to_scheduler();
  }
}

/// DG_EMULATOR_SEED, or 1, 2, 3, … for one launch after another.
uint64_t next_seed() {
  static uint64_t launches = 0;
  const char* seed = std::getenv("DG_EMULATOR_SEED");
  return seed ? std::strtoull(seed, nullptr, 10) : ++launches;
}

const Map& decoded(const void* map, int rank) {
  const Map& its = *static_cast<const Map*>(map);
  if (its.magic != Map::kMagic) machine->give_up("a tensor map that was not encoded, or is not 64-aligned");
  if (static_cast<int>(its.rank) != rank)
    machine->give_up("{} coordinates for a tensor map of {} dimensions", rank, its.rank);
  return its;
}

unsigned box_bytes(const Map& map) {
  unsigned bytes = map.element;
  for (uint32_t i = 0; i < map.rank; ++i) bytes *= map.box[i];
  return bytes;
}

/// Calls `f(offset, address, bytes)` for each 16 bytes of a box: where they lie in shared memory from the box's first byte on,
/// where in global memory, and how many of them are inside of the tensor (0: none, and no address).
template <class F>
void for_each_chunk(const Map& map, const Box& box, unsigned first_offset, F f) {
  const unsigned row_bytes = map.box[0] * map.element;
  const unsigned rows = box_bytes(map) / row_bytes, mask = map.swizzle == 0 ? 0 : map.swizzle / 16 - 1;
  const int64_t begin = int64_t{box.at[0]} * map.element, end = static_cast<int64_t>(map.dims[0] * map.element);
  for (unsigned row = 0; row < rows; ++row) {
    bool inside = true;
    int64_t address = static_cast<int64_t>(map.base);
    for (unsigned i = 1, rest = row; i < map.rank; rest /= map.box[i], ++i) {
      const int64_t at = box.at[i] + static_cast<int64_t>(rest % map.box[i]);
      inside = inside && at >= 0 && at < static_cast<int64_t>(map.dims[i]);
      address += at * static_cast<int64_t>(map.strides[i - 1]);
    }
    for (unsigned x = 0; x < row_bytes; x += 16) {
      unsigned offset = first_offset + row * row_bytes + x;
      offset ^= (offset >> 7 & mask) << 4;
      const int64_t at = begin + x;
      const auto bytes = inside && at >= 0 && at < end ? static_cast<unsigned>(std::min<int64_t>(16, end - at)) : 0u;
      f(offset, reinterpret_cast<unsigned char*>(address + at), bytes);
    }
  }
}

void expect_aligned(const void* smem, unsigned to) {
  const Cta& cta = *machine->self().cta;
  if (!cta.contains(smem)) machine->give_up("an address that is not in the CTA's dynamic shared memory");
  if (cta.offset(smem) % to != 0)
    machine->give_up("shared memory at {}, where TMA needs a multiple of {}", cta.offset(smem), to);
}

/// Decoded FP8, by code.
const std::array<float, 256>& decoder(bool e5m2) {
  static const auto tables = [] {
    std::array<std::array<float, 256>, 2> all{};
    for (unsigned code = 0; code < 256; ++code) {
      all[0][code] = deep_gemm::decode_e4m3(static_cast<uint8_t>(code));
      all[1][code] = deep_gemm::decode_e5m2(static_cast<uint8_t>(code));
    }
    return all;
  }();
  return tables[e5m2];
}

/// Byte offset of a matrix that a descriptor of ours describes: K-major, 128-byte swizzle, 8 rows each 1024 bytes.
unsigned matrix_start(unsigned long descriptor) {
  if (descriptor >> 32 != (1ul << 30 | 1024 >> 4))
    machine->give_up("a matrix descriptor of another form than K-major, 128-byte swizzle, 1024 bytes for 8 rows: {:#x}",
                     descriptor);
  const auto start = static_cast<unsigned>(descriptor & 0x3fff) << 4;
  if (start % 1024 != 0) machine->give_up("a matrix at {}, which is no multiple of 1024", start);
  return start;
}

constexpr unsigned kDepth = 128;

/// `rows` of 128 codes, decoded, the rows side by side: [128][rows].
void read_matrix(const Cta& cta, unsigned start, unsigned rows, bool e5m2, float* out) {
  const auto& decode = decoder(e5m2);
  for (unsigned row = 0; row < rows; ++row)
    for (unsigned k = 0; k < kDepth; ++k) {
      const unsigned offset = start + row * kDepth + k;
      out[k * rows + row] = decode[cta.smem[offset ^ (offset >> 7 & 7) << 4]];
    }
}

constexpr unsigned kWarpRows = 16;  // of the 64 that a warpgroup multiplies

void multiply_now(const Cta& cta, unsigned start_a, unsigned start_b, unsigned n, unsigned e5m2,
                  const std::array<float*, kWarp>& d) {
  static std::array<float, kDepth * kWarpRows> a;
  static std::array<float, kDepth * 256> b;
  static std::array<float, kWarpRows * 256> sum;
  read_matrix(cta, start_a, kWarpRows, e5m2 & 1, a.data());
  read_matrix(cta, start_b, n, e5m2 & 2, b.data());
  for (unsigned i = 0; i < kWarpRows; ++i) {
    float* row = sum.data() + i * n;
    std::fill(row, row + n, 0.f);
    for (unsigned k = 0; k < kDepth; ++k) {
      const float x = a[k * kWarpRows + i];
      const float* y = b.data() + k * n;
      for (unsigned j = 0; j < n; ++j) row[j] += x * y[j];
    }
  }
  // PTX ISA, "Register fragments", m64nNk32
  for (unsigned lane = 0; lane < kWarp; ++lane)
    for (unsigned i = 0; i < n / 2; ++i)
      d[lane][i] = sum[(lane / 4 + i / 2 % 2 * 8) * n + i / 4 * 8 + lane % 4 * 2 + i % 2];
}

}  // namespace

std::string run(const Launch& launch) {
  const uint64_t seed = next_seed();
  Machine here(seed);
  machine = &here;
  std::string text;
  try {
    here.run(launch);
  } catch (const Failure& failure) {
    text = fmt::format("{} (seed {})", failure.text, seed);
    here.abandon();
  }
  machine = nullptr, current = nullptr;
  return text;
}

void* dynamic_smem() { return machine->self().cta->smem; }

static const unsigned long* meet(const char* what, unsigned long value, bool orders) {
  Fiber& self = machine->self();
  Warp& warp = self.cta->warps[self.number / kWarp];
  const unsigned round = self.warp_round++ % 2;  // others may still read the values of the last one
  if (warp.arrived > 0 && std::strcmp(warp.what, what) != 0)
    machine->give_up("{} meets {} of another lane", what, warp.what);
  warp.what = what;
  warp.values[round][self.lane()] = value;
  if (orders) machine->release(warp.meeting);
  if (++warp.arrived < kWarp) {
    machine->wait(warp.waiting, {"the other lanes at {5}", what});
  } else {
    warp.arrived = 0;
    if (orders && machine->looks_for_races()) warp.met[round] = warp.meeting;
    machine->wake(warp.waiting);
  }
  if (orders) machine->acquire(warp.met[round]);
  return warp.values[round];
}

void sync_warp(const char* what, bool orders) { meet(what, 0, orders); }
const unsigned long* exchange(const char* what, unsigned long value) { return meet(what, value, false); }

void sync_block(unsigned id, unsigned threads) { machine->arrive(id, threads, true); }
void arrive_block(unsigned id, unsigned threads) { machine->arrive(id, threads, false); }
void arrive_cluster() { machine->arrive_at_cluster(); }
void wait_cluster() { machine->wait_for_cluster(); }
unsigned cluster_rank() { return machine->self().cta->rank; }

void barrier_init(unsigned long* barrier, unsigned arrivals) {
  Fiber& self = machine->self();
  BarrierBits{0, arrivals, arrivals, 0}.write(barrier);
  self.cta->barriers[barrier] = {};
  self.cta->barriers[barrier].clock = machine->new_clock();
  self.unfenced_barriers.push_back(barrier);
}

void fence_barrier_init() {
  Fiber& self = machine->self();
  for (unsigned long* barrier : self.unfenced_barriers) self.cta->barriers[barrier].fenced = true;
  self.unfenced_barriers.clear();
}

void barrier_arrive(unsigned long* barrier, unsigned rank, unsigned bytes) {
  Cta& own = *machine->self().cta;
  Cta& cta = rank == kOwn ? own : machine->cta(rank);
  if (&cta != &own) barrier = reinterpret_cast<unsigned long*>(cta.smem + own.offset(barrier));
  machine->in_fiber([&] {
    machine->release(machine->watched(cta, barrier, &cta != &own).arriving);
    machine->change(cta, barrier, 1, bytes, 0, &cta != &own);
  });
  machine->maybe_give_way();
}

bool barrier_test(unsigned long* barrier, unsigned parity) {
  const Watched& watch =
      machine->in_fiber([&]() -> Watched& { return machine->watched(*machine->self().cta, barrier, false); });
  const bool is_over = BarrierBits::read(barrier).phase != parity;
  if (is_over) machine->acquire(watch.completed);
  return is_over;
}

void barrier_wait(unsigned long* barrier, unsigned parity) {
  Cta& cta = *machine->self().cta;
  while (!barrier_test(barrier, parity)) {
    const BarrierBits bits = BarrierBits::read(barrier);
    machine->wait(cta.barriers[barrier].waiting,
                  {"the mbarrier at {}, parity {}: when it asked, {} of {} arrivals and {} bytes were missing",
                   nullptr,
                   {cta.offset(barrier), parity, bits.pending, bits.expected, static_cast<unsigned>(bits.bytes)}});
  }
}

void yield() { machine->poll(); }

void note_store(const void* at, unsigned bytes) {
  Fiber& self = machine->self();
  if (!self.cta->contains(at)) machine->give_up("a store to shared memory at an address that is none");
  const unsigned offset = self.cta->offset(at);
  machine->expect_free("a store", {self.cta, offset, bytes, true});
  for (unsigned i = offset / 4; i < (offset + bytes) / 4; ++i)
    self.cta->unfenced[i] = static_cast<uint16_t>(self.number + 1);
  self.unfenced_stores.emplace_back(offset, bytes);
}

void fence_async() {
  Fiber& self = machine->self();
  for (const auto& [offset, bytes] : self.unfenced_stores)
    for (unsigned i = offset / 4; i < (offset + bytes) / 4; ++i)
      if (self.cta->unfenced[i] == self.number + 1) self.cta->unfenced[i] = 0;
  self.unfenced_stores.clear();
}

/// Of what counts bytes on a barrier, and who learns of it; nothing of a barrier that is none, which will be said.
static Watched* find(Cta& cta, unsigned long* barrier) {
  const auto found = cta.barriers.find(barrier);
  return found == cta.barriers.end() ? nullptr : &found->second;
}
static uint32_t clock_of(Cta& cta, unsigned long* barrier) {
  const Watched* watch = find(cta, barrier);
  return watch ? watch->clock : 0;
}
static Knowledge* knowledge_of(Cta& cta, unsigned long* barrier) {
  Watched* watch = find(cta, barrier);
  return watch ? &watch->arriving : nullptr;
}

void load_box(void* to, const void* map_bytes, unsigned long* barrier, int rank, Box box, unsigned ranks) {
  const Map& map = decoded(map_bytes, rank);
  Cta& own = *machine->self().cta;
  expect_aligned(to, 128);
  const unsigned offset = own.offset(to), bytes = box_bytes(map);
  if (ranks == 0) ranks = 1u << own.rank;
  for (unsigned target = 0; target < 32; ++target) {
    if ((ranks >> target & 1) == 0) continue;
    if (target >= machine->cluster())
      machine->give_up("a multicast to CTA {} of a cluster of {}", target, machine->cluster());
    Cta& cta = machine->cta(target);
    auto* its = own.contains(barrier) ? reinterpret_cast<unsigned long*>(cta.smem + own.offset(barrier)) : barrier;
    machine->start({fmt::format("a TMA load by CTA {} to {} of CTA {}", own.rank, offset, target),
                    {{&cta, offset, bytes, true}},
                    [map, &cta, its, box, offset, bytes] {
                      for_each_chunk(map, box, offset, [&](unsigned at, const unsigned char* from, unsigned inside) {
                        std::memset(cta.smem + at, 0, 16);
                        if (inside > 0) std::memcpy(cta.smem + at, from, inside);
                      });
                      machine->change(cta, its, 0, 0, bytes, true);
                    },
                    clock_of(cta, its),
                    knowledge_of(cta, its)});
  }
  machine->maybe_give_way();
}

void load_bytes(void* to, const void* from, unsigned bytes, unsigned long* barrier) {
  Cta& cta = *machine->self().cta;
  expect_aligned(to, 16);
  if (bytes % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0)
    machine->give_up("a bulk load of {} bytes from {}: both must be multiples of 16", bytes, from);
  machine->start({"a bulk load",
                  {{&cta, cta.offset(to), bytes, true}},
                  [&cta, to, from, bytes, barrier] {
                    std::memcpy(to, from, bytes);
                    machine->change(cta, barrier, 0, 0, bytes, true);
                  },
                  clock_of(cta, barrier),
                  knowledge_of(cta, barrier)});
}

void send_bytes(void* to, unsigned long* barrier, unsigned rank, const void* data, unsigned bytes) {
  Cta& own = *machine->self().cta;
  if (rank >= machine->cluster()) machine->give_up("st.async to CTA {} of a cluster of {}", rank, machine->cluster());
  Cta& cta = machine->cta(rank);
  auto* its = reinterpret_cast<unsigned long*>(cta.smem + own.offset(barrier));
  std::vector<unsigned char> copy(static_cast<const unsigned char*>(data),
                                  static_cast<const unsigned char*>(data) + bytes);
  machine->start({fmt::format("an st.async by CTA {}", own.rank),
                  {{&cta, own.offset(to), bytes, true}},
                  [&cta, its, offset = own.offset(to), copy = std::move(copy)] {
                    std::memcpy(cta.smem + offset, copy.data(), copy.size());
                    machine->change(cta, its, 0, 0, static_cast<unsigned>(copy.size()), true);
                  },
                  clock_of(cta, its),
                  knowledge_of(cta, its)});
}

void store_box(const void* map_bytes, const void* from, int rank, Box box, bool add) {
  const Map& map = decoded(map_bytes, rank);
  Fiber& self = machine->self();
  Cta& cta = *self.cta;
  expect_aligned(from, 128);
  if (add && !map.is_f32) machine->give_up("TMA adds to a tensor that is not FP32: not emulated");
  const unsigned offset = cta.offset(from), bytes = box_bytes(map);
  for (unsigned i = offset / 4; i < (offset + bytes) / 4; ++i)
    if (cta.unfenced[i] != 0)
      machine->give_up("a TMA store reads the byte at {}, which thread {} stored without a fence.proxy.async after it",
                       i * 4, cta.unfenced[i] - 1);
  if (!self.open_group) self.open_group = std::make_shared<unsigned>(0);
  ++*self.open_group;
  machine->start({fmt::format("a TMA store by CTA {} from {}", cta.rank, offset),
                  {{&cta, offset, bytes, false}},
                  [map, &cta, &self, box, offset, add, group = self.open_group] {
                    // Of 16 bytes that lie only partly inside, the hardware writes all.
                    for_each_chunk(map, box, offset, [&](unsigned at, unsigned char* to, unsigned inside) {
                      if (inside == 0) return;
                      if (!add) {
                        std::memcpy(to, cta.smem + at, 16);
                        return;
                      }
                      float sum[4], more[4];
                      std::memcpy(sum, to, 16), std::memcpy(more, cta.smem + at, 16);
                      for (int i = 0; i < 4; ++i) sum[i] += more[i];
                      std::memcpy(to, sum, 16);
                    });
                    Fibers waiting{&self};
                    if (--*group == 0 && self.waits_for.format == kReadOfStores) machine->wake(waiting);
                  },
                  self.store_clock,
                  &self.of_stores});
  machine->maybe_give_way();
}

void commit_stores() {
  Fiber& self = machine->self();
  if (self.open_group) self.store_groups.push_back(std::move(self.open_group));
}

void wait_stores_read(unsigned pending) {
  Fiber& self = machine->self();
  auto& groups = self.store_groups;
  const auto unread = [&] {
    return groups.size() > pending &&
           std::any_of(groups.begin(), groups.end() - pending, [](const auto& left) { return *left > 0; });
  };
  Fibers alone;
  while (unread()) {
    alone.clear();
    machine->wait(alone, {kReadOfStores});
  }
  while (groups.size() > pending) groups.pop_front();
  machine->acquire(self.of_stores);
}

unsigned long matrix_descriptor(const void* matrix) {
  return static_cast<unsigned long>(machine->self().cta->offset(matrix)) >> 4 | 1024ul >> 4 << 32 | 1ul << 62;
}

void multiply(float* d, unsigned n, unsigned long a, unsigned long b, unsigned e5m2) {
  sync_warp("wgmma", true);  // .sync.aligned
  Fiber& self = machine->self();
  Cta& cta = *self.cta;
  Warp& warp = cta.warps[self.number / kWarp];
  Products& products = cta.products[self.number / kWarpgroup];
  if (self.products == products.size()) products.push_back({a, b, n});
  if (products[self.products++] != Product{a, b, n})
    machine->give_up("threads of a warpgroup differ in what wgmma multiplies");
  std::fill(d, d + n / 2, std::bit_cast<float>(0xffffffffu));
  warp.d[self.lane()] = d;
  machine->release(warp.of_operands);
  if (++warp.multiplying < kWarp) return;
  warp.multiplying = 0;
  const unsigned number = self.number / kWarp, first_row = number % (kWarpgroup / kWarp) * kWarpRows;
  const unsigned start_a = matrix_start(a) + first_row * kDepth, start_b = matrix_start(b);
  machine->start({fmt::format("wgmma of CTA {}, warp {}", cta.rank, number),
                  {{&cta, start_a, kWarpRows * kDepth, false}, {&cta, start_b, n * kDepth, false}},
                  [&cta, &warp, start_a, start_b, n, e5m2, registers = warp.d] {
                    multiply_now(cta, start_a, start_b, n, e5m2, registers);
                    ++warp.multiplied;
                    machine->wake(warp.waiting_for_products);
                  },
                  warp.clock,
                  &warp.of_products,
                  warp.of_operands});
}

void wait_multiplied() {
  // .sync.aligned: what lanes read before it, one lane may hand back after it.
  sync_warp("wgmma.wait_group", true);
  Fiber& self = machine->self();
  Warp& warp = self.cta->warps[self.number / kWarp];
  while (warp.multiplied < self.products) machine->wait(warp.waiting_for_products, {"wgmma"});
  machine->acquire(warp.of_products);
}

void trap(const char* why) { machine->give_up("{}", why); }

}  // namespace emulator

// What -fsanitize=thread makes of ordinary loads and stores.
#define ACCESS(name, bytes, writes)                                                \
  extern "C" __attribute__((visibility("default"))) void __tsan_##name(void* at) { \
    if (emulator::current) emulator::machine->access(at, bytes, writes);           \
  }
#define ACCESSES(bytes)                       \
  ACCESS(read##bytes, bytes, false)           \
  ACCESS(write##bytes, bytes, true)           \
  ACCESS(unaligned_read##bytes, bytes, false) \
  ACCESS(unaligned_write##bytes, bytes, true)
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
extern "C" __attribute__((visibility("default"))) void __tsan_read_range(void* at, unsigned long bytes) {
  if (emulator::current) emulator::machine->access(at, static_cast<unsigned>(bytes), false);
}
extern "C" __attribute__((visibility("default"))) void __tsan_write_range(void* at, unsigned long bytes) {
  if (emulator::current) emulator::machine->access(at, static_cast<unsigned>(bytes), true);
}
extern "C" __attribute__((visibility("default"))) void __tsan_init() {}
