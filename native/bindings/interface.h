// The version of what TypeScript and the compiled kernels pass to each other: the lists of src/kernels/calls.ts, the
// functions of both bindings, and what rows of storage look like. src/kernels/interface.ts has the same number and
// refuses what was compiled with another: a change of any of these raises both.
#pragma once

#define KVASIR_INTERFACE 3
