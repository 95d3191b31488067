#define DG_CPU_TARGET baseline
#include "cpu/gemm_block_body.h"
