// The units of weights that a warp multiplies, copied ahead of their use into its ring of shared
// memory. A lane waits for its own copies only.
#pragma once
#include "network.cuh"

// The rows of one stage that belong to a block.
struct Share {
  const char* weights;
  int units;
};
template <class F>
__device__ Share share_of(const Network& network, int layer, int stage, int block, int blocks) {
  const int first = first_row(stage, block, blocks), last = first_row(stage, block + 1, blocks);
  const int at = stage == kStageHead ? kLayers * kStagesOfLayer : layer * kStagesOfLayer + stage;
  return {network.weights[at] + static_cast<std::size_t>(first) * row_bytes<F>(stage),
          (last - first) * chunks_of<F>(stage)};
}

template <class F, int DEPTH>
class Ring {
 public:
  static constexpr int kBytes = kWarps * DEPTH * F::kBytes;

  // `shares` lists the stages in their order; they stay in shared memory.
  __device__ Ring(char* memory, const Share* shares, int stages)
      : memory_(memory + threadIdx.x / 32 * DEPTH * F::kBytes), shares_(shares), stages_(stages),
        unit_(threadIdx.x / 32) {
#pragma unroll 1
    for (int i = 0; i < DEPTH; ++i) copy_next();
  }

  // parts[unit] = unit · x for all units of the next stage, `chunks` units a row.
  __device__ void multiply(const Share& share, int chunks, const float* x, float* parts) {
    const int lane = threadIdx.x % 32;
    for (int unit = threadIdx.x / 32; unit < share.units; unit += kWarps) {
      asm volatile("cp.async.wait_group %0;" ::"n"(DEPTH - 1) : "memory");
      const char* const from = memory_ + read_ * F::kBytes;
      const float sum = sum_of_warp(F::dot(from, x + unit % chunks * F::kColumns, lane));
      if (lane == 0) parts[unit] = sum;
      read_ = read_ + 1 == DEPTH ? 0 : read_ + 1;
      copy_next();
    }
  }

 private:
  __device__ void copy_next() {
    while (stage_ < stages_ && unit_ >= shares_[stage_].units) {
      ++stage_;
      unit_ = threadIdx.x / 32;
    }
    if (stage_ < stages_) {
      F::copy(memory_ + write_ * F::kBytes,
              shares_[stage_].weights + static_cast<std::size_t>(unit_) * F::kBytes,
              threadIdx.x % 32);
      unit_ += kWarps;
      write_ = write_ + 1 == DEPTH ? 0 : write_ + 1;
    }
    asm volatile("cp.async.commit_group;" ::: "memory");  // also an empty one, for the count
  }

  char* memory_;
  const Share* shares_;
  int stages_, stage_ = 0, unit_, read_ = 0, write_ = 0;
};

__device__ inline float sum_parts(const float* parts, int row, int chunks) {
  float sum = parts[row * chunks];
  for (int c = 1; c < chunks; ++c) sum += parts[row * chunks + c];
  return sum;
}
__device__ inline float silu(float x) { return x / (1.0f + __expf(-x)); }

// 1 / sqrt(mean of squares + eps), from each thread's squares; `scratch` has a float a warp, and the
// threads are synchronized.
__device__ inline float inverse_size(float squares, float* scratch) {
  const float sum = sum_of_warp(squares);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = sum;
  __syncthreads();
  float all = scratch[0];
#pragma unroll
  for (int w = 1; w < kWarps; ++w) all += scratch[w];
  return 1.0f / sqrtf(all / kHidden + kEps);
}

// The largest logit of a block's rows, the first of equals, and its row; thread 0 has the result.
struct Candidate {
  float logit;
  int row;
};
__device__ inline Candidate better(Candidate a, Candidate b) {
  return b.logit > a.logit || (b.logit == a.logit && b.row < a.row) ? b : a;
}
__device__ inline Candidate best_of_block(Candidate mine, Candidate* scratch) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2)
    mine = better(mine, {__shfl_xor_sync(~0u, mine.logit, step), __shfl_xor_sync(~0u, mine.row, step)});
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = mine;
  __syncthreads();
  mine = scratch[0];
  for (int w = 1; w < kWarps; ++w) mine = better(mine, scratch[w]);
  return mine;
}
