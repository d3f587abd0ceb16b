// AVX-512 with dot products of bytes (VNNI).
#define KVASIR_ISA avx512vnni
#include "simd_avx512.h"
#include "table.h"
