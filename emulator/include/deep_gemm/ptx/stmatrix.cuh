// Emulated: see the file of this name in device/, whose functions these are.
#pragma once

#include <deep_gemm/core/fp8.cuh>

namespace deep_gemm::ptx {

DG_DEVICE uint32_t pack_bf16x2(float low, float high) { return uint32_t(encode_bf16(high)) << 16 | encode_bf16(low); }
DG_DEVICE void stmatrix_x4(void* row, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3) {
  const uint32_t registers[] = {r0, r1, r2, r3}, lane = threadIdx.x % 32;
  const uint64_t* rows = emulator::exchange("stmatrix", emulator::to_word(row));
  void* to[4];  // where this lane's pairs belong: row lane / 4 of each matrix
  for (uint32_t i = 0; i < 4; ++i)
    to[i] = emulator::from_word<uint8_t*>(rows[i * 8 + lane / 4]) + lane % 4 * sizeof(uint32_t);
  for (uint32_t i = 0; i < 4; ++i) {
    emulator::note_store(to[i], sizeof(uint32_t));
    __builtin_memcpy(to[i], registers + i, sizeof(uint32_t));
  }
}
DG_DEVICE void st_shared_v2(void* dst, float x, float y) {
  const float values[] = {x, y};
  emulator::note_store(dst, sizeof values);
  __builtin_memcpy(dst, values, sizeof values);
}

}  // namespace deep_gemm::ptx
