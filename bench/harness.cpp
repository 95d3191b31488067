#include "bench/harness.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <thread>

#include "bench/cublaslt.h"
#include "bench/timer.h"
#include "context_impl.h"
#include "gemm/kernel_source.h"
#include "gemm/plan.h"
#include "text.h"

namespace deep_gemm::bench {
namespace {

constexpr double kSustainedUs = 0.2e6;  // a batch of the sustained regime lasts at least this long

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

cuda::DeviceBuffer allocate(int64_t bytes) { return cuda::DeviceBuffer(static_cast<std::size_t>(round_up(bytes, 16))); }

/// A product, and a D of the rival's own.
struct Operands {
  Workload ours;
  cuda::DeviceBuffer rival_d_data;
  TensorView rival_d;

  Operands(Context& context, const Shape& s, const Problem& problem, bool rival, uint64_t seed, Stream stream)
      : ours(context, s, problem, seed, stream), rival_d(ours.d()) {
    if (!rival) return;
    rival_d_data = allocate(s.m * s.n * size_of(problem.d_type));
    rival_d.data = rival_d_data.data();
    poison_rival(stream);
  }
  /// NaN in bf16 and in f32: an element that is never written cannot pass a check.
  void poison_rival(Stream stream) const { cuda::fill(rival_d_data.data(), 0xff, rival_d_data.bytes(), stream); }
};

}  // namespace

int64_t bytes_of(const Shape& s, DType d_type) {
  if (s.layout == Layout::k_grouped) return depth_of(s) * (s.m + s.n) + 2 * s.groups * s.m * s.n * size_of(DType::f32);
  const std::vector<int> loads = loads_of(s);
  const int64_t busy = std::count_if(loads.begin(), loads.end(), [](int load) { return load > 0; });
  return busy * s.n * s.k + rows_of(s) * (s.k + s.n * size_of(d_type));
}
double flop_of(const Shape& s) {
  return 2.0 * static_cast<double>(rows_of(s)) * static_cast<double>(s.n) * static_cast<double>(depth_of(s));
}

struct Harness::State {
  Context& context;
  HarnessOptions options;
  Say say;
  cuda::DeviceContext::Scope scope;
  cuda::OwnedStream stream;
  const cuda::DeviceProperties& properties;
  const DeviceInfo& plan_device;
  Timer timer;
  StreamKernels kernels;
  L2State l2;
  std::unique_ptr<Nvml> nvml;
  std::unique_ptr<CublasLt> cublaslt;
  std::string nvml_note, rival_note, compiler;
  cuda::DeviceBuffer floor_data;
  std::vector<GemmConfig> checked;  ///< of those besides the chosen ones

  State(Context& context_in, const HarnessOptions& options_in, Say say_in)
      : context(context_in),
        options(options_in),
        say(std::move(say_in)),
        scope(*context.impl().cuda),
        properties(context.impl().cuda->properties()),
        plan_device(context.impl().plan_device),
        timer(context, stream),
        kernels(context, stream),
        l2(options.regime, properties.info.l2_bytes, kernels, stream) {
    if (std::string(timer.name()) == "events") say("times by CUDA events, which include launch gaps: " + timer.note());
    try {
      nvml = std::make_unique<Nvml>(properties.uuid, context.device().index);
    } catch (const Error& error) {
      nvml_note = error.what();
      say("no clocks and power: " + nvml_note);
    }
    if (options.rival) {
      try {
        cublaslt = std::make_unique<CublasLt>();
      } catch (const Error& error) {
        rival_note = error.what();
        say("no rival: " + rival_note);
      }
    }
  }

  /// A contender: what one call enqueues on operand set i, and where its outcome goes.
  struct Contender {
    std::function<void(Operands&)> call;
    Outcome* outcome;
  };

  Problem problem_of(const Shape& s) const { return deep_gemm::problem_of(s, options.form); }

  void prepare_contender(const Contender& contender, Operands& set, bool rival, bool check);
  void time_launch_by_launch(const std::vector<Contender>& contenders, std::vector<Operands>& sets,
                             ShapeResult& result);
  void time_sustained(const std::vector<Contender>& contenders, std::vector<Operands>& sets, ShapeResult& result);
  double warm_us(const std::function<void()>& call);
  void choose_rival_algorithm(CublasLtProduct& product, Operands& set, RivalOutcome& rival);
  std::vector<GemmConfig> configs_for(const Shape& shape, const GemmConfig& chosen) const;
  std::function<void()> floor_read(StreamKernels::Way way, int64_t bytes, int64_t& at);
};

/// The first call of a contender: loads its kernels and, on request, checks all it writes.
void Harness::State::prepare_contender(const Contender& contender, Operands& set, bool rival, bool check) {
  rival ? set.poison_rival(stream) : set.ours.poison(stream);
  contender.call(set);
  cuda::synchronize(stream);
  if (!check) return;
  contender.outcome->check =
      rival ? verify::verify(context, set.ours.a(), set.ours.b(), {}, set.rival_d, stream) : set.ours.verify(stream);
}

/// The median of three calls after the contender's first one.
double Harness::State::warm_us(const std::function<void()>& call) {
  const std::vector<std::function<void()>> calls(4, call);
  std::vector<double> samples;
  for (const CallTime& time : timer.time(calls, [] {})) samples.push_back(time.kernel_us);
  samples.erase(samples.begin());
  return summarize(std::move(samples)).median;
}

void Harness::State::choose_rival_algorithm(CublasLtProduct& product, Operands& set, RivalOutcome& rival) {
  rival.proposals = product.algorithms();
  if (!options.rival_best) return;
  for (int i = 0; i < product.algorithms(); ++i)
    rival.proposals_us.push_back(warm_us([&] { product.run(i, set.ours.a(), set.ours.b(), set.rival_d, stream); }));
  rival.chosen = static_cast<int>(std::min_element(rival.proposals_us.begin(), rival.proposals_us.end()) -
                                  rival.proposals_us.begin());
}

/// Reads another stretch of the floor's memory each time, so that back to back reads are not served by the L2.
std::function<void()> Harness::State::floor_read(StreamKernels::Way way, int64_t bytes, int64_t& at) {
  return [this, way, bytes, &at] {
    if (at + bytes > static_cast<int64_t>(floor_data.bytes())) at = 0;
    kernels.read(way, static_cast<const char*>(floor_data.data()) + at, bytes);
    at += round_up(bytes, 128);
  };
}

void record(Outcome& outcome, std::vector<double> samples, const CallTime& last, int calls) {
  outcome.time_us = summarize(std::move(samples));
  outcome.kernels = last.kernels / calls;
  outcome.kernel_names = last.names;
}

void Harness::State::time_launch_by_launch(const std::vector<Contender>& contenders, std::vector<Operands>& sets,
                                           ShapeResult& result) {
  const int64_t floor_bytes = round_up(bytes_of(result.shape, options.form.d_type), 16);
  Outcome bulk, vectors;
  int64_t at = 0;
  std::vector<Contender> all = contenders;
  all.push_back({[read = floor_read(StreamKernels::Way::bulk, floor_bytes, at)](Operands&) { read(); }, &bulk});
  all.push_back({[read = floor_read(StreamKernels::Way::vectors, floor_bytes, at)](Operands&) { read(); }, &vectors});
  // Warm means that a contender finds what the one before it left: the floor's own memory would spoil that.
  const std::size_t floor_from = options.regime == Regime::warm ? contenders.size() : 0;
  auto measure = [&](std::size_t from, std::size_t to) {
    std::vector<std::function<void()>> calls;
    std::vector<std::size_t> whose;
    for (int round = 0; round <= options.repeats; ++round) {
      for (std::size_t i = from; i < to; ++i) {
        const std::size_t who = round % 2 ? to - 1 - (i - from) : i;  // no one is always behind the same neighbour
        calls.push_back([&all, &sets, who] { all[who].call(sets[0]); });
        whose.push_back(who);
      }
    }
    const std::vector<CallTime> times = timer.time(calls, [this] { l2.prepare(); });
    for (std::size_t who = from; who < to; ++who) {
      std::vector<double> samples;
      CallTime last;
      for (std::size_t i = to - from; i < times.size(); ++i)  // the first round only warms up
        if (whose[i] == who) samples.push_back(times[i].kernel_us), last = times[i];
      record(*all[who].outcome, std::move(samples), last, 1);
    }
  };
  if (floor_from > 0) measure(0, floor_from);
  measure(floor_from, all.size());
  const bool bulk_wins = bulk.time_us.median <= vectors.time_us.median;
  result.floor_us = (bulk_wins ? bulk : vectors).time_us.median;
  result.floor_way = bulk_wins ? "bulk" : "vectors";
}

void Harness::State::time_sustained(const std::vector<Contender>& contenders, std::vector<Operands>& sets,
                                    ShapeResult& result) {
  const int64_t floor_bytes = round_up(bytes_of(result.shape, options.form.d_type), 16);
  Outcome bulk, vectors;
  int64_t at = 0;
  std::vector<Contender> all = contenders;
  all.push_back({[read = floor_read(StreamKernels::Way::bulk, floor_bytes, at)](Operands&) { read(); }, &bulk});
  all.push_back({[read = floor_read(StreamKernels::Way::vectors, floor_bytes, at)](Operands&) { read(); }, &vectors});
  std::vector<int> batch;
  for (const Contender& contender : all) {
    const double us = warm_us([&] { contender.call(sets[0]); });
    batch.push_back(std::clamp(static_cast<int>(std::ceil(kSustainedUs / std::max(us, 1.0))), 20, 200'000));
  }
  const int rounds = std::clamp(options.repeats / 3, 2, 5);
  std::vector<std::vector<double>> samples(all.size());
  std::vector<CallTime> last(all.size());
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t who = 0; who < all.size(); ++who) {
      const std::function<void()> calls[] = {[&] {
        for (int i = 0; i < batch[who]; ++i) all[who].call(sets[static_cast<std::size_t>(i) % sets.size()]);
      }};
      last[who] = timer.time(calls, [] {}).front();
      samples[who].push_back(last[who].kernel_us / batch[who]);
    }
  }
  for (std::size_t who = 0; who < all.size(); ++who)
    record(*all[who].outcome, std::move(samples[who]), last[who], batch[who]);
  const bool bulk_wins = bulk.time_us.median <= vectors.time_us.median;
  result.floor_us = (bulk_wins ? bulk : vectors).time_us.median;
  result.floor_way = bulk_wins ? "bulk" : "vectors";
}

/// Configs to time besides the chosen one: those asked for, then the ones with the best estimates.
std::vector<GemmConfig> Harness::State::configs_for(const Shape& shape, const GemmConfig& chosen) const {
  std::vector<GemmConfig> found;
  auto add = [&](const GemmConfig& config) {
    if (config != chosen && std::find(found.begin(), found.end(), config) == found.end()) found.push_back(config);
  };
  for (const GemmConfig& config : options.configs) add(config);
  if (options.all_configs) {
    const Problem problem = problem_of(shape);
    std::vector<std::pair<double, GemmConfig>> ranked;
    for (const GemmConfig& config : candidates(problem, plan_device))
      ranked.emplace_back(estimate_us(config, problem, plan_device), config);
    std::stable_sort(ranked.begin(), ranked.end(), [](const auto& x, const auto& y) { return x.first < y.first; });
    const std::size_t most = static_cast<std::size_t>(options.max_configs - 1) + options.configs.size();
    for (std::size_t i = 0; i < ranked.size() && found.size() < most; ++i) add(ranked[i].second);
  }
  return found;
}

Harness::Harness(Context& context, const HarnessOptions& options, Say say)
    : state_(std::make_unique<State>(context, options, std::move(say))) {}
Harness::~Harness() = default;

void Harness::compile(const std::vector<Shape>& shapes) {
  State& s = *state_;
  std::vector<GemmConfig> wanted;
  for (const Shape& shape : shapes) {
    const Problem problem = s.problem_of(shape);
    GemmConfig chosen;
    try {
      chosen = plan(problem, s.plan_device).config;
    } catch (const Error&) {  // run() says it
      continue;
    }
    std::vector<GemmConfig> configs = s.configs_for(shape, chosen);
    configs.push_back(chosen);
    for (const GemmConfig& config : configs)
      if (!why_illegal(config, problem, s.plan_device) &&
          std::find(wanted.begin(), wanted.end(), config) == wanted.end())
        wanted.push_back(config);
  }
  if (wanted.empty() || s.context.impl().store.writable_directory().empty()) return;
  // The first one alone: it opens the compiler, and its failure would be everybody's.
  const auto begin = std::chrono::steady_clock::now();
  s.compiler = deep_gemm::compile(s.context, wanted.front()).compiler;
  std::atomic<std::size_t> next = 1;
  std::atomic<int> built = 0;
  auto work = [&] {
    for (std::size_t i; (i = next++) < wanted.size();) {
      try {
        if (!deep_gemm::compile(s.context, wanted[i]).cached) ++built;
      } catch (const Error&) {  // said again, with its shape, when that kernel's turn comes
      }
    }
  };
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < std::min<std::size_t>(std::max(1u, std::thread::hardware_concurrency()), wanted.size());
       ++i)
    threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  s.say(fmt::format("{} kernels ready, {} of them compiled, in {:.1f} s", wanted.size(), built.load(), seconds));
}

ShapeResult Harness::run(const Shape& shape) {
  State& s = *state_;
  const auto begin = std::chrono::steady_clock::now();
  if (rows_of(shape) < 1 || shape.n < 1 || depth_of(shape) < 1)
    fail(ErrorCode::invalid_argument, "bench: shape {} is empty, expected m, n, k >= 1", text(shape));
  ShapeResult result;
  result.shape = shape;
  result.timer = s.timer.name();
  try {
    result.plan = plan(s.problem_of(shape), s.plan_device);
  } catch (const Error& error) {
    result.ours.error = error.what();
    return result;
  }
  result.kernel = kernel_name(result.plan.config);
  ClockWatch clocks(s.nvml.get());

  const int64_t bytes = bytes_of(shape, s.options.form.d_type);
  // Sustained: as many operand sets as keep the L2 from holding one until its next turn.
  const std::size_t set_count =
      s.options.regime == Regime::sustained
          ? static_cast<std::size_t>(std::clamp<int64_t>(2 * s.properties.info.l2_bytes / bytes + 1, 2, 32))
          : 1;
  const bool dense = shape.layout == Layout::dense;
  std::vector<Operands> sets;
  for (std::size_t i = 0; i < set_count; ++i)
    sets.emplace_back(s.context, shape, s.problem_of(shape), s.cublaslt && dense, s.options.seed + i, s.stream);
  const int64_t floor_bytes = std::max(round_up(bytes, 16), 3 * s.properties.info.l2_bytes);
  if (static_cast<int64_t>(s.floor_data.bytes()) < floor_bytes) {
    s.floor_data = {};
    s.floor_data = allocate(floor_bytes);
    verify::fill_random(s.context,
                        TensorView::contiguous(s.floor_data.data(), DType::f32,
                                               {static_cast<int64_t>(s.floor_data.bytes() / 4)}, s.context.device()),
                        {.seed = s.options.seed}, s.stream);
  }

  std::vector<State::Contender> contenders;
  // What cannot run the shape keeps its reason; what broke the device ends everything.
  auto join = [&](State::Contender contender, bool rival, bool check) {
    try {
      s.prepare_contender(contender, sets[0], rival, check);
      contenders.push_back(std::move(contender));
    } catch (const Error& error) {
      if (error.code() == ErrorCode::cuda) throw;
      contender.outcome->error = error.what();
    }
  };
  auto ours = [&s](const std::optional<GemmConfig>& config) {
    return [&s, config](Operands& set) { set.ours.call(s.stream, config); };
  };
  join({ours({}), &result.ours}, false, s.options.check);

  std::unique_ptr<CublasLtProduct> product;
  if (s.options.rival) {
    RivalOutcome& rival = result.rival.emplace();
    if (!s.cublaslt) {
      rival.outcome.error = s.rival_note;
    } else if (!dense) {
      rival.outcome.error = "it has no grouped product with block scales";
    } else if (s.options.form.scale_rows_b != 128 || s.options.form.a_type != DType::e4m3 ||
               s.options.form.b_type != DType::e4m3) {
      rival.outcome.error = "it is asked for e4m3 with recipe 1,128,128 only";
    } else {
      try {
        product = std::make_unique<CublasLtProduct>(*s.cublaslt, sets[0].ours.a(), sets[0].ours.b(), sets[0].rival_d);
        s.choose_rival_algorithm(*product, sets[0], rival);
        join({[&s, &rival, p = product.get()](Operands& set) {
                p->run(rival.chosen, set.ours.a(), set.ours.b(), set.rival_d, s.stream);
              },
              &rival.outcome},
             true, s.options.check);
      } catch (const Error& error) {
        if (error.code() == ErrorCode::cuda) throw;
        rival.outcome.error = error.what();
      }
    }
  }

  const Problem problem = s.problem_of(shape);
  for (const GemmConfig& config : s.configs_for(shape, result.plan.config)) {
    ConfigOutcome& other = result.configs.emplace_back();
    other.config = config;
    other.name = kernel_name(config);
  }
  for (ConfigOutcome& other : result.configs) {
    if (const char* reason = why_illegal(other.config, problem, s.plan_device)) {
      other.outcome.error = reason;
      continue;
    }
    other.estimate_us = estimate_us(other.config, problem, s.plan_device);
    // Once a run: the reference costs more than all of a config's launches.
    const bool first = std::find(s.checked.begin(), s.checked.end(), other.config) == s.checked.end();
    if (first) s.checked.push_back(other.config);
    join({ours(other.config), &other.outcome}, false, s.options.check && first);
  }

  if (s.options.regime == Regime::sustained)
    s.time_sustained(contenders, sets, result);
  else
    s.time_launch_by_launch(contenders, sets, result);
  for (const State::Contender& contender : contenders) {
    Outcome& outcome = *contender.outcome;
    const double us = outcome.time_us.median;
    outcome.tflops = flop_of(shape) / us * 1e-6;
    outcome.gbytes_per_s = static_cast<double>(bytes) / us * 1e-3;
    outcome.over_floor = us / result.floor_us;
  }
  result.timer = s.timer.name();
  result.clocks = clocks.finish();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return result;
}

Machine Harness::machine() const {
  const State& s = *state_;
  const DeviceInfo& info = s.properties.info;
  const int version = cuda::driver_version();
  return {.device = info.name,
          .uuid = s.properties.uuid,
          .num_sms = info.num_sms,
          .l2_bytes = info.l2_bytes,
          .memory_bytes = s.properties.memory_bytes,
          .driver = s.nvml ? s.nvml->driver_version() : "",
          .cuda = fmt::format("{}.{}", version / 1000, version % 1000 / 10),
          .power_limit_w = s.nvml ? s.nvml->power_limit_w() : 0,
          .compiler = s.compiler,
          .timer = s.timer.name(),
          .timer_note = s.timer.note(),
          .rival = s.cublaslt ? fmt::format("cuBLASLt {}", s.cublaslt->version()) : "",
          .rival_note = s.cublaslt ? s.cublaslt->file_name() : s.rival_note,
          .nvml_note = s.nvml_note};
}

}  // namespace deep_gemm::bench
