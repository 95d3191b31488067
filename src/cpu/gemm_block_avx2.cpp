// Compiled with AVX2 and FMA (CMakeLists.txt) and called only where the processor has them. Eigen gets a name of its own
// here: the linker keeps one copy of every inline function, and the baseline must not end up with this one.
#ifdef __AVX2__
#define Eigen EigenAvx2
#define DG_CPU_TARGET avx2
#include "cpu/gemm_block_body.h"
#endif
