#define KVASIR_ISA avx2
#include "simd_avx2.h"
#include "table.h"
