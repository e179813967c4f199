// A step as a chain of kernels, six for a layer, captured as a graph. With programmatic dependent
// launch a kernel starts while the one before it runs, copies its weights into shared memory, and
// then waits for the results of the other.
#pragma once
#include "units.cuh"

struct Activations {
  float *x, *middle, *qkv, *shares, *sums, *attended, *inner;
  Candidate* candidates;
};

// Before Hopper a kernel starts when the one before it has ended.
__device__ inline void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

template <class F, int DEPTH, int COLUMNS, int PARTS>
struct ProductMemory {
  alignas(16) char ring[Ring<F, DEPTH>::kBytes];
  alignas(16) float x[COLUMNS];
  float parts[PARTS];
  float squares[kWarps];
  Candidate candidates[kWarps];
  Share share;
};
// Units of a warp in the largest block, for 128 blocks and more.
template <class F>
__host__ __device__ constexpr int depth_of(int stage) {
  return stage == kStageHead ? (F::kBytes == 1024 ? 11 : 20)
                             : ((rows_of(stage) + 127) / 128 * chunks_of<F>(stage) + kWarps - 1) / kWarps;
}
template <class F, int STAGE>
using MemoryOf = ProductMemory<F, depth_of<F>(STAGE), columns_of(STAGE), STAGE == kStageHead ? 4096 : 160>;

// One product with what comes before and after it.
template <class F, int STAGE>
__global__ void __launch_bounds__(kThreads, STAGE == kStageHead ? 1 : 2)
    product(const __grid_constant__ Network network, const __grid_constant__ Activations activations,
            int layer) {
  extern __shared__ __align__(16) char memory[];
  auto& shared = *reinterpret_cast<MemoryOf<F, STAGE>*>(memory);
  const int thread = threadIdx.x, block = blockIdx.x, blocks = gridDim.x;
  let_next_start();
  if (thread == 0) shared.share = share_of<F>(network, layer, STAGE, block, blocks);
  __syncthreads();
  Ring<F, depth_of<F>(STAGE)> ring(shared.ring, &shared.share, 1);
  constexpr bool kNormalized = STAGE == kStageQkv || STAGE == kStageGateUp || STAGE == kStageHead;
  constexpr int kChunks = chunks_of<F>(STAGE);
  const int first = first_row(STAGE, block, blocks), count = first_row(STAGE, block + 1, blocks) - first;
  float2 norm = {1, 1};
  if constexpr (kNormalized)
    norm = reinterpret_cast<const float2*>(
        network.norms + (2 * layer + (STAGE == kStageGateUp)) * kHidden)[thread];
  wait_for_previous();

  float factor = 1;
  if constexpr (kNormalized) {
    float2 v;
    if (STAGE == kStageQkv && layer == 0) {
      const uint32_t bits = reinterpret_cast<const uint32_t*>(
          network.embedding + static_cast<std::size_t>(*network.token) * kHidden)[thread];
      v = {widen(bits), __uint_as_float(bits & 0xffff0000u)};
      if (block == 0) reinterpret_cast<float2*>(activations.x)[thread] = v;
    } else {
      v = reinterpret_cast<const float2*>(STAGE == kStageGateUp ? activations.middle
                                                                : activations.x)[thread];
    }
    reinterpret_cast<float2*>(shared.x)[thread] = {v.x * norm.x, v.y * norm.y};
    factor = inverse_size(fmaf(v.x, v.x, v.y * v.y), shared.squares);
  } else {
    const float* const from = STAGE == kStageOutput ? activations.attended : activations.inner;
    for (int i = thread; i < columns_of(STAGE) / 4; i += kThreads)
      reinterpret_cast<float4*>(shared.x)[i] = reinterpret_cast<const float4*>(from)[i];
    __syncthreads();
  }
  ring.multiply(shared.share, kChunks, shared.x, shared.parts);
  __syncthreads();

  if constexpr (STAGE == kStageHead) {
    Candidate best = {-INFINITY, 0};
    for (int i = thread; i < count; i += kThreads) {
      const float logit = factor * sum_parts(shared.parts, i, kChunks);
      network.logits[first + i] = logit;
      best = better(best, {logit, first + i});
    }
    best = best_of_block(best, shared.candidates);
    if (thread == 0) activations.candidates[block] = best;
  } else if constexpr (STAGE == kStageGateUp) {
    if (thread < count / 2) {
      const float gate = factor * sum_parts(shared.parts, 2 * thread, kChunks);
      const float up = factor * sum_parts(shared.parts, 2 * thread + 1, kChunks);
      activations.inner[first / 2 + thread] = silu(gate) * up;
    }
  } else if (thread < count) {
    const float sum = factor * sum_parts(shared.parts, thread, kChunks);
    if constexpr (STAGE == kStageQkv) activations.qkv[first + thread] = sum;
    if constexpr (STAGE == kStageOutput)
      activations.middle[first + thread] = activations.x[first + thread] + sum;
    if constexpr (STAGE == kStageDown)
      activations.x[first + thread] = activations.middle[first + thread] + sum;
  }
}

// A block for each KV head and split; the shares are merged by the next kernel.
__global__ void __launch_bounds__(kThreads, 2)
    attention(const __grid_constant__ Network network, const __grid_constant__ Activations activations,
              int layer) {
  __shared__ AttentionScratch scratch;
  __shared__ float qkv[(kShared + 2) * kHeadSize];
  const int thread = threadIdx.x, kv_head = blockIdx.x / kSplits, split = blockIdx.x % kSplits;
  let_next_start();
  const int position = *network.position;
  const EarlyPositions early = read_early(network, layer, kv_head, split, position);
  const int at = thread < 2 * kHeadSize   ? kv_head * 2 * kHeadSize + thread
                 : thread < 3 * kHeadSize ? kQueries + kv_head * kHeadSize + thread - 256
                                          : kQueries + kKeys + kv_head * kHeadSize + thread - 384;
  wait_for_previous();
  qkv[thread] = activations.qkv[at];
  __syncthreads();
  attend(network, layer, kv_head, split, position, early, qkv, scratch);
  __syncthreads();
  if (thread < kShared * kHeadSize) {
    const int head = thread / kHeadSize;
    const Softmax mine = merge_warps(scratch, head, thread % kHeadSize);
    activations.shares[blockIdx.x * kShared * kHeadSize + thread] = mine.values.v[0];
    if (thread % kHeadSize == 0)
      reinterpret_cast<float2*>(activations.sums)[blockIdx.x * kShared + head] = {mine.largest,
                                                                                  mine.total};
  }
}

__global__ void __launch_bounds__(256) merge(const __grid_constant__ Activations activations) {
  let_next_start();
  wait_for_previous();
  const int kv_head = blockIdx.x, thread = threadIdx.x, head = thread / kHeadSize;
  const float* const shares = activations.shares + kv_head * kSplits * kShared * kHeadSize;
  const float2* const sums =
      reinterpret_cast<const float2*>(activations.sums) + kv_head * kSplits * kShared;
  float values[kSplits], largest = -INFINITY, total = 0, value = 0;
  float2 sum[kSplits];
#pragma unroll
  for (int i = 0; i < kSplits; ++i) {
    values[i] = shares[i * kShared * kHeadSize + thread];
    sum[i] = sums[i * kShared + head];
  }
#pragma unroll
  for (int i = 0; i < kSplits; ++i) largest = fmaxf(largest, sum[i].x);
#pragma unroll
  for (int i = 0; i < kSplits; ++i) {
    const float scale = __expf(sum[i].x - largest);
    total += scale * sum[i].y;
    value += scale * values[i];
  }
  activations.attended[kv_head * kShared * kHeadSize + thread] = value / total;
}

__global__ void __launch_bounds__(kThreads)
    choose(const __grid_constant__ Network network, const __grid_constant__ Activations activations, int blocks) {
  __shared__ Candidate scratch[kWarps];
  let_next_start();
  wait_for_previous();
  Candidate best = {-INFINITY, 0};
  if (static_cast<int>(threadIdx.x) < blocks) best = activations.candidates[threadIdx.x];
  best = best_of_block(best, scratch);
  if (threadIdx.x == 0) *network.token = best.row;
}
