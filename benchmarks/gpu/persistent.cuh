// A step as one kernel that stays on all multiprocessors. Blocks exchange activations through global
// memory, each number beside a tag that says which layer of which step it belongs to: who needs a
// number reads it until its tag is right, so there is no barrier and no second read. (The same idea
// as the LL protocol of NVIDIA's NCCL.) Weights stream ahead of all this.
#pragma once
#include "units.cuh"

using Tagged = uint2;  // bits of a float, tag

struct Exchange {
  Tagged *x, *middle, *qkv, *shares, *sums, *attended, *inner;
  Candidate* candidates;
  unsigned* finished;
  unsigned* step;
};

__device__ inline void put(Tagged* at, float x, unsigned tag) {
  asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(at), "r"(__float_as_uint(x)),
               "r"(tag)
               : "memory");
}
// WAIT = false takes whatever is there: a wrong result, at the speed of the weights alone.
template <bool WAIT>
__device__ float get(const Tagged* at, unsigned tag) {
  unsigned bits, found, tries = 0;
  do {
    asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];" : "=r"(bits), "=r"(found) : "l"(at) : "memory");
    if (++tries > 1u << 24) __trap();
  } while (WAIT && found != tag);
  return __uint_as_float(bits);
}
// Two neighbours, the first one even.
template <bool WAIT>
__device__ float2 get_pair(const Tagged* at, unsigned tag) {
  unsigned a, b, tag_a, tag_b, tries = 0;
  do {
    asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a), "=r"(tag_a), "=r"(b), "=r"(tag_b)
                 : "l"(at)
                 : "memory");
    if (++tries > 1u << 24) __trap();
  } while (WAIT && (tag_a != tag || tag_b != tag));
  return {__uint_as_float(a), __uint_as_float(b)};
}

template <class F, int DEPTH>
struct PersistentMemory {
  alignas(16) char ring[Ring<F, DEPTH>::kBytes];
  alignas(16) float x[kInner];
  float residual[kHidden];
  union {
    AttentionScratch attention;
    float parts[4096];
    float merge[3][kSplits][16];
  };
  float qkv[(kShared + 2) * kHeadSize];
  float squares[kWarps];
  Candidate candidates[kWarps];
  Share shares[kLayers * kStagesOfLayer + 1];
  unsigned last;
};

template <class F, int DEPTH, bool WAIT>
__global__ void __launch_bounds__(kThreads, 1)
    persistent_step(const __grid_constant__ Network network, const __grid_constant__ Exchange exchange) {
  extern __shared__ __align__(16) char memory[];
  auto& shared = *reinterpret_cast<PersistentMemory<F, DEPTH>*>(memory);
  const int block = blockIdx.x, blocks = gridDim.x, thread = threadIdx.x;
  constexpr int kStages = kLayers * kStagesOfLayer + 1;
  if (thread < kStages)
    shared.shares[thread] =
        share_of<F>(network, thread / kStagesOfLayer,
                    thread == kStages - 1 ? kStageHead : thread % kStagesOfLayer, block, blocks);
  __syncthreads();
  Ring<F, DEPTH> ring(shared.ring, shared.shares, kStages);
  const int position = *network.position, token = *network.token;
  const unsigned first_tag = *exchange.step * (kLayers + 1) + 1;
  const int kv_head = block / kSplits, split = block % kSplits;

  // x · norm for the next product; returns the factor of its result.
  auto load_hidden = [&](const Tagged* from, unsigned tag, const float* norm) {
    const float2 w = reinterpret_cast<const float2*>(norm)[thread];
    float2 v;
    if (from != nullptr) {
      v = get_pair<WAIT>(from + 2 * thread, tag);
    } else {
      const uint32_t bits = reinterpret_cast<const uint32_t*>(
          network.embedding + static_cast<std::size_t>(token) * kHidden)[thread];
      v = {widen(bits), __uint_as_float(bits & 0xffff0000u)};
    }
    reinterpret_cast<float2*>(shared.residual)[thread] = v;
    reinterpret_cast<float2*>(shared.x)[thread] = {v.x * w.x, v.y * w.y};
    return inverse_size(fmaf(v.x, v.x, v.y * v.y), shared.squares);
  };
  auto load = [&](const Tagged* from, int count, unsigned tag) {
    for (int i = thread; i < count / 2; i += kThreads)
      reinterpret_cast<float2*>(shared.x)[i] = get_pair<WAIT>(from + 2 * i, tag);
    __syncthreads();
  };
  auto first_of = [&](int stage) { return first_row(stage, block, blocks); };
  auto count_of = [&](int stage) { return first_row(stage, block + 1, blocks) - first_of(stage); };
  auto multiply = [&](int layer, int stage) {
    ring.multiply(shared.shares[stage == kStageHead ? kStages - 1 : layer * kStagesOfLayer + stage],
                  chunks_of<F>(stage), shared.x, shared.parts);
    __syncthreads();
  };

  for (int layer = 0; layer < kLayers; ++layer) {
    const unsigned tag = first_tag + layer;
    const float* const norms = network.norms + layer * 2 * kHidden;
    float factor = load_hidden(layer == 0 ? nullptr : exchange.x, tag - 1, norms);
    multiply(layer, kStageQkv);
    if (thread < count_of(kStageQkv))
      put(exchange.qkv + first_of(kStageQkv) + thread,
          factor * sum_parts(shared.parts, thread, chunks_of<F>(kStageQkv)), tag);

    if (block < kKvHeads * kSplits) {
      const EarlyPositions early = read_early(network, layer, kv_head, split, position);
      const int at = thread < 2 * kHeadSize   ? kv_head * 2 * kHeadSize + thread
                     : thread < 3 * kHeadSize ? kQueries + kv_head * kHeadSize + thread - 256
                                              : kQueries + kKeys + kv_head * kHeadSize + thread - 384;
      shared.qkv[thread] = get<WAIT>(exchange.qkv + at, tag);
      __syncthreads();
      attend(network, layer, kv_head, split, position, early, shared.qkv, shared.attention);
      __syncthreads();
      Tagged* const shares = exchange.shares + kv_head * kSplits * kShared * kHeadSize;
      Tagged* const sums = exchange.sums + kv_head * kSplits * kShared * 2;
      if (thread < kShared * kHeadSize) {
        const int head = thread / kHeadSize;
        const Softmax mine = merge_warps(shared.attention, head, thread % kHeadSize);
        put(shares + split * kShared * kHeadSize + thread, mine.values.v[0], tag);
        if (thread % kHeadSize == 0) {
          put(sums + (split * kShared + head) * 2, mine.largest, tag);
          put(sums + (split * kShared + head) * 2 + 1, mine.total, tag);
        }
      }
      __syncthreads();  // all have read the shares of the warps
      // Each block merges 16 of the columns.
      if (thread < kSplits * 16) {
        const int other = thread / 16, column = split * 16 + thread % 16;
        const float value = get<WAIT>(shares + other * kShared * kHeadSize + column, tag);
        const float2 sum = get_pair<WAIT>(sums + (other * kShared + column / kHeadSize) * 2, tag);
        shared.merge[0][other][thread % 16] = value;
        shared.merge[1][other][thread % 16] = sum.x;
        shared.merge[2][other][thread % 16] = sum.y;
      }
      __syncthreads();
      if (thread < 16) {
        float largest = shared.merge[1][0][thread], total = 0, value = 0;
#pragma unroll
        for (int i = 1; i < kSplits; ++i) largest = fmaxf(largest, shared.merge[1][i][thread]);
#pragma unroll
        for (int i = 0; i < kSplits; ++i) {
          const float scale = __expf(shared.merge[1][i][thread] - largest);
          total += scale * shared.merge[2][i][thread];
          value += scale * shared.merge[0][i][thread];
        }
        put(exchange.attended + kv_head * kShared * kHeadSize + split * 16 + thread, value / total, tag);
      }
    }

    load(exchange.attended, kQueries, tag);
    multiply(layer, kStageOutput);
    if (thread < count_of(kStageOutput)) {
      const int row = first_of(kStageOutput) + thread;
      put(exchange.middle + row,
          shared.residual[row] + sum_parts(shared.parts, thread, chunks_of<F>(kStageOutput)), tag);
    }

    factor = load_hidden(exchange.middle, tag, norms + kHidden);
    multiply(layer, kStageGateUp);
    if (thread < count_of(kStageGateUp) / 2) {
      constexpr int kChunks = chunks_of<F>(kStageGateUp);
      const float gate = factor * sum_parts(shared.parts, 2 * thread, kChunks);
      const float up = factor * sum_parts(shared.parts, 2 * thread + 1, kChunks);
      put(exchange.inner + first_of(kStageGateUp) / 2 + thread, silu(gate) * up, tag);
    }

    load(exchange.inner, kInner, tag);
    multiply(layer, kStageDown);
    if (thread < count_of(kStageDown)) {
      const int row = first_of(kStageDown) + thread;
      put(exchange.x + row,
          shared.residual[row] + sum_parts(shared.parts, thread, chunks_of<F>(kStageDown)), tag);
    }
  }

  const float factor =
      load_hidden(exchange.x, first_tag + kLayers - 1, network.norms + kLayers * 2 * kHidden);
  multiply(0, kStageHead);
  Candidate best = {-INFINITY, 0};
  for (int i = thread; i < count_of(kStageHead); i += kThreads) {
    const int row = first_of(kStageHead) + i;
    const float logit = factor * sum_parts(shared.parts, i, chunks_of<F>(kStageHead));
    network.logits[row] = logit;
    best = better(best, {logit, row});
  }
  best = best_of_block(best, shared.candidates);
  if (thread == 0) {
    exchange.candidates[block] = best;
    __threadfence();
    shared.last = atomicAdd(exchange.finished, 1u) == static_cast<unsigned>(blocks) - 1;
  }
  __syncthreads();
  if (shared.last) {
    __threadfence();
    const volatile Candidate* const all = exchange.candidates;
    best = thread < blocks ? Candidate{all[thread].logit, all[thread].row} : Candidate{-INFINITY, 0};
    best = best_of_block(best, shared.candidates);
    if (thread == 0) {
      *network.token = best.row;
      *exchange.finished = 0;
      ++*exchange.step;
    }
  }
}
