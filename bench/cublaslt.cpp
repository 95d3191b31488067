#include "bench/cublaslt.h"

#include "bench/dynamic_library.h"
#include "text.h"

namespace deep_gemm::bench {

using namespace cublaslt_abi;

namespace {

constexpr const char* kNames[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
constexpr std::size_t kWorkspaceBytes = 64 << 20;
constexpr int kMaxAlgorithms = 8;
constexpr std::size_t kFirstWithBlockScales = 120900;

}  // namespace

struct CublasLt::Functions {
  DynamicLibrary library{kNames};
  template <class F>
  F* get(const char* name) const {
    return library.symbol<F>(name);
  }
  GetVersion* version = get<GetVersion>("cublasLtGetVersion");
  GetStatusString* text = get<GetStatusString>("cublasLtGetStatusString");
  Create* create = get<Create>("cublasLtCreate");
  Destroy* destroy = get<Destroy>("cublasLtDestroy");
  MatmulDescCreate* desc_create = get<MatmulDescCreate>("cublasLtMatmulDescCreate");
  Destroy* desc_destroy = get<Destroy>("cublasLtMatmulDescDestroy");
  SetAttribute* desc_set = get<SetAttribute>("cublasLtMatmulDescSetAttribute");
  MatrixLayoutCreate* layout_create = get<MatrixLayoutCreate>("cublasLtMatrixLayoutCreate");
  Destroy* layout_destroy = get<Destroy>("cublasLtMatrixLayoutDestroy");
  PreferenceCreate* preference_create = get<PreferenceCreate>("cublasLtMatmulPreferenceCreate");
  Destroy* preference_destroy = get<Destroy>("cublasLtMatmulPreferenceDestroy");
  SetAttribute* preference_set = get<SetAttribute>("cublasLtMatmulPreferenceSetAttribute");
  AlgoGetHeuristic* heuristic = get<AlgoGetHeuristic>("cublasLtMatmulAlgoGetHeuristic");
  Matmul* matmul = get<Matmul>("cublasLtMatmul");

  void check(const char* function, Status status) const {
    if (status == kSuccess) return;
    const char* why = text(status);
    fail(ErrorCode::unavailable, "{} failed: {} ({})", function, why ? why : "no text", status);
  }
  template <class T>
  void set(void* desc, int attribute, const T& value) const {
    check("cublasLtMatmulDescSetAttribute", desc_set(desc, attribute, &value, sizeof value));
  }
};

CublasLt::CublasLt() : functions_(std::make_unique<Functions>()) {
  const Functions& f = *functions_;
  if (f.version() < kFirstWithBlockScales)
    fail(ErrorCode::unavailable, "cuBLASLt {} at {} has no block scales, expected 12.9 or newer", version(),
         functions_->library.path());
  f.check("cublasLtCreate", f.create(&handle_));
  try {
    workspace_ = cuda::DeviceBuffer(kWorkspaceBytes);
  } catch (...) {
    f.destroy(handle_);
    throw;
  }
}

CublasLt::~CublasLt() { functions_->destroy(handle_); }

std::string CublasLt::version() const {
  const std::size_t v = functions_->version();
  return fmt::format("{}.{}.{}", v / 10000, v / 100 % 100, v % 100);
}

std::string CublasLt::file_name() const { return functions_->library.file_name(); }

CublasLtProduct::CublasLtProduct(CublasLt& library, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d)
    : library_(library) {
  const CublasLt::Functions& f = *library_.functions_;
  const int64_t m = a.data.shape[0], n = b.data.shape[0], k = a.data.shape[1], blocks = (k + 127) / 128;
  // Any other layout of the scales would give wrong numbers without an error.
  if (a.scale.strides[0] != 1 || a.scale.strides[1] != (m + 3) / 4 * 4 || b.scale.strides[1] != 1 ||
      b.scale.strides[0] != (blocks + 3) / 4 * 4)
    fail(ErrorCode::invalid_argument,
         "CublasLtProduct: scales have strides [{}, {}] and [{}, {}], expected [1, {}] and [{}, 1]", a.scale.strides[0],
         a.scale.strides[1], b.scale.strides[0], b.scale.strides[1], (m + 3) / 4 * 4, (blocks + 3) / 4 * 4);
  try {
    f.check("cublasLtMatmulDescCreate", f.desc_create(&desc_, kCompute32F, kR32F));
    f.set(desc_, kTransA, kOpT);
    f.set(desc_, kTransB, kOpN);
    f.set(desc_, kFastAccum, int8_t{0});  // block scales promote every 128 of k, which fast accumulation would skip
    f.set(desc_, kAScaleMode, kScaleBlk128x128);
    f.set(desc_, kBScaleMode, kScaleVec128);
    f.set(desc_, kAScalePointer, static_cast<const void*>(b.scale.data));
    f.set(desc_, kBScalePointer, static_cast<const void*>(a.scale.data));
    auto layout = [&](void*& out, int type, int64_t rows, int64_t cols, int64_t pitch) {
      f.check("cublasLtMatrixLayoutCreate",
              f.layout_create(&out, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), pitch));
    };
    layout(a_layout_, kR8FE4M3, k, n, b.data.strides[0]);
    layout(b_layout_, kR8FE4M3, k, m, a.data.strides[0]);
    layout(d_layout_, d.dtype == DType::bf16 ? kR16BF : kR32F, n, m, d.strides[0]);
    f.check("cublasLtMatmulPreferenceCreate", f.preference_create(&preference_));
    f.check("cublasLtMatmulPreferenceSetAttribute",
            f.preference_set(preference_, kPreferenceMaxWorkspace, &kWorkspaceBytes, sizeof kWorkspaceBytes));
    algorithms_.resize(kMaxAlgorithms);
    int found = 0;
    f.check("cublasLtMatmulAlgoGetHeuristic",
            f.heuristic(library_.handle_, desc_, a_layout_, b_layout_, d_layout_, d_layout_, preference_,
                        kMaxAlgorithms, algorithms_.data(), &found));
    algorithms_.resize(static_cast<std::size_t>(found));
    std::erase_if(algorithms_, [](const HeuristicResult& r) { return r.state != kSuccess; });
    if (algorithms_.empty()) fail(ErrorCode::unavailable, "cuBLASLt has no kernel for {}x{}x{}", m, n, k);
  } catch (...) {
    release();
    throw;
  }
}

CublasLtProduct::~CublasLtProduct() { release(); }

void CublasLtProduct::release() {
  const CublasLt::Functions& f = *library_.functions_;
  if (preference_) f.preference_destroy(preference_);
  for (void* layout : {a_layout_, b_layout_, d_layout_})
    if (layout) f.layout_destroy(layout);
  if (desc_) f.desc_destroy(desc_);
}

void CublasLtProduct::run(int algorithm, const Fp8Tensor& a, const Fp8Tensor& b, const TensorView& d, Stream stream) {
  const CublasLt::Functions& f = *library_.functions_;
  const HeuristicResult& chosen = algorithms_[static_cast<std::size_t>(algorithm)];
  f.set(desc_, kAScalePointer, static_cast<const void*>(b.scale.data));
  f.set(desc_, kBScalePointer, static_cast<const void*>(a.scale.data));
  const float alpha = 1, beta = 0;
  f.check("cublasLtMatmul", f.matmul(library_.handle_, desc_, &alpha, b.data.data, a_layout_, a.data.data, b_layout_,
                                     &beta, d.data, d_layout_, d.data, d_layout_, &chosen.algo,
                                     library_.workspace_.data(), kWorkspaceBytes, stream.handle));
}

}  // namespace deep_gemm::bench
