// SSE2 on x86, NEON on Arm, SIMD128 in WebAssembly.
#define KVASIR_ISA vec4
#include "simd_vec4.h"
#include "table.h"
