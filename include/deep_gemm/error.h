// The one exception type of the library.
#pragma once

#include <stdexcept>
#include <string>

namespace deep_gemm {

/// What kind of thing went wrong; the message says which function, argument, given and expected value.
enum class ErrorCode {
  invalid_argument,  ///< bad shape, dtype, stride, alignment, device or option: nothing was launched or written
  unavailable,       ///< something this machine lacks: driver, GPU, NVRTC; the message says how to get it
  cuda,              ///< the CUDA driver refused a call; the message has the driver's own name for the error
  compiler,          ///< a kernel did not compile; the message has the compiler's log
  io,                ///< a file could not be read or written, or its content is not what it should be
};

/// Thrown by every function of the library that can fail. The text is one line unless it carries a compiler's log.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace deep_gemm
