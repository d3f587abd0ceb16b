// AVX-512 with the matrix unit of newer servers (AMX, bf16).
#define KVASIR_ISA amx
#define KVASIR_AMX
#include "simd_avx512.h"
#include "table.h"
