// AVX-512 with dot products of bf16, and of bytes.
#define KVASIR_ISA avx512bf16
#define KVASIR_BF16_DOT
#include "simd_avx512.h"
#include "table.h"
