// The best W of n scores by (score, row). Each pair becomes one 64-bit integer whose order is that of the pair, the W-th
// largest is found by radix from the top byte down, and one pass collects the rows in ascending order: O(n).

#include "best_rows.h"
#include "kvasir/kernels.h"

namespace kvasir {
namespace {

// The `rank`-th largest (1 is the largest) of `count` distinct keys; reorders them.
uint64_t nth_largest(uint64_t* keys, int count, int rank) {
  for (int shift = 56; shift >= 0; shift -= 8) {
    int histogram[256] = {0};
    for (int i = 0; i < count; i++) histogram[keys[i] >> shift & 255]++;
    int digit = 255;
    while (rank > histogram[digit]) rank -= histogram[digit--];
    int kept = 0;
    for (int i = 0; i < count; i++) {
      if ((int)(keys[i] >> shift & 255) == digit) keys[kept++] = keys[i];
    }
    count = kept;
    if (count == 1) break;
  }
  return keys[0];
}

}  // namespace

void select_head(const SelectArgs& args, int head, char* workspace) {
  const float* scores = args.scores + head * args.capacity;
  int32_t* rows = args.rows + head * args.capacity;
  uint64_t* keys = (uint64_t*)workspace;
  int count = 0;
  for (int row = 0; row < args.num_rows; row++) {
    if (scores[row] != -__builtin_inff()) keys[count++] = key_of(scores[row], (uint32_t)row);
  }
  const uint64_t least = count > args.window ? nth_largest(keys, count, args.window) : 0;
  int length = 0;
  for (int row = 0; row < args.num_rows; row++) {
    if (scores[row] != -__builtin_inff() && key_of(scores[row], (uint32_t)row) >= least) rows[length++] = row;
  }
  args.lengths[head] = length;
}

}  // namespace kvasir
