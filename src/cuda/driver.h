// The CUDA driver, opened at run time. Together with driver.cpp the only place that names cu* functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <deep_gemm/gemm.h>

namespace deep_gemm::cuda {

/// Version of the installed driver as CUDA numbers it (13000 = 13.0), 0 where there is none. Never throws;
/// `why`, if given, receives what is missing and how to get it.
int driver_version(std::string* why = nullptr) noexcept;
/// Number of CUDA devices; 0 where there is no driver. Never throws.
int device_count() noexcept;
/// Figures of one device for people and for the plan. `cc` is major * 10 + minor.
struct DeviceProperties {
  DeviceInfo info;
  int compute_capability = 0;
  int64_t memory_bytes = 0;
  std::string uuid;
};
DeviceProperties device_properties(int index);

/// A tensor map before it is encoded: plain numbers, testable without a driver. Dimension 0 is the contiguous one.
struct TensorMapSpec {
  enum class Swizzle { none, b32, b64, b128 };
  DType dtype = DType::e4m3;
  int rank = 2;
  void* base = nullptr;
  std::array<uint64_t, 4> dims{};          ///< elements
  std::array<uint64_t, 3> stride_bytes{};  ///< of dimensions 1…rank-1
  std::array<uint32_t, 4> box{};           ///< elements
  Swizzle swizzle = Swizzle::none;
  int l2_fetch_bytes = 256;  ///< 128 or 256: what L2 asks memory for where it lacks a part of it
  bool operator==(const TensorMapSpec&) const = default;
};
/// The 128 bytes that a kernel takes as `TensorMap`.
struct alignas(64) EncodedTensorMap {
  std::array<std::byte, 128> bytes;
};
EncodedTensorMap encode(const TensorMapSpec& spec);

/// A device's primary context, retained. Thread-safe.
class DeviceContext {
 public:
  explicit DeviceContext(int index);  ///< throws Error{unavailable}
  ~DeviceContext();
  DeviceContext(const DeviceContext&) = delete;
  DeviceContext& operator=(const DeviceContext&) = delete;

  int index() const { return index_; }
  const DeviceProperties& properties() const { return properties_; }

  /// Makes this context current on the calling thread while it lives (nothing where it already is).
  class Scope {
   public:
    explicit Scope(const DeviceContext& context);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    bool pushed_ = false;
  };

 private:
  int index_;
  void* context_ = nullptr;
  DeviceProperties properties_;
};

/// One kernel of a loaded cubin. Keeps its module alive; unloads it with the last copy.
class Kernel {
 public:
  Kernel() = default;
  /// Loads `cubin` in the current context, finds `entry` and allows it `smem_bytes` of dynamic shared memory.
  Kernel(std::span<const std::byte> cubin, const std::string& entry, int smem_bytes);
  explicit operator bool() const { return function_ != nullptr; }
  void* function() const { return function_; }
  /// Clusters of `cluster` CTAs that the current device can run at once.
  int max_active_clusters(int cluster, int block_threads, int smem_bytes) const;
  /// CTAs that one SM can hold at once.
  int max_active_blocks(int block_threads, int smem_bytes) const;

 private:
  std::shared_ptr<void> module_;
  void* function_ = nullptr;
};

struct LaunchSpec {
  std::array<unsigned, 3> grid{1, 1, 1};
  unsigned block_threads = 128;
  unsigned cluster = 1;
  unsigned smem_bytes = 0;
  bool programmatic = false;  ///< programmatic stream serialisation: may start before the previous kernel ends
};
/// cuLaunchKernelEx; `params` are pointers to the kernel's arguments, as in the driver API. Does not synchronise.
void launch(const Kernel& kernel, const LaunchSpec& spec, Stream stream, void** params);

/// Stream-ordered device memory (cuMemAllocAsync), freed on the same stream. Legal under graph capture.
class ScratchBuffer {
 public:
  ScratchBuffer(std::size_t bytes, Stream stream);
  ~ScratchBuffer();
  ScratchBuffer(const ScratchBuffer&) = delete;
  ScratchBuffer& operator=(const ScratchBuffer&) = delete;
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  Stream stream_;
};

/// Device memory for the command line, tests and benchmark (cuMemAlloc).
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(std::size_t bytes);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};
void copy_to_device(void* device, const void* host, std::size_t bytes);
void copy_to_host(void* host, const void* device, std::size_t bytes);
void fill(void* device, unsigned char value, std::size_t bytes, Stream stream = {});
void synchronize(Stream stream);
/// A stream of its own, and graph capture, for tests and benchmark.
class OwnedStream {
 public:
  OwnedStream();
  ~OwnedStream();
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;
  operator Stream() const { return stream_; }

 private:
  Stream stream_;
};
void begin_capture(Stream stream);
class Graph {
 public:
  explicit Graph(Stream capturing);  ///< ends the capture and instantiates
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(Stream stream) const;

 private:
  void* graph_ = nullptr;
  void* exec_ = nullptr;
};
/// CUDA events, for the benchmark where CUPTI is absent.
class Event {
 public:
  Event();
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(Stream stream);
  static double elapsed_ms(const Event& start, const Event& end);  ///< waits for `end`

 private:
  void* event_ = nullptr;
};

}  // namespace deep_gemm::cuda
