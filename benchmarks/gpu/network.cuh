// One decoding step of a network with the shape of Qwen3-0.6B: its sizes, its weights and the parts
// that every way of running it shares. One sequence, one new token.
//
// The columns of a row of weights are cut into units. A warp multiplies whole units; its lanes copy
// their own part of a unit into shared memory and read it from there, so that copies need no
// synchronization. Sums have a fixed order, and no float is added by an atomic operation.
#pragma once
#include <cstddef>
#include <cstdint>

constexpr int kHidden = 1024, kQueryHeads = 16, kKvHeads = 8, kHeadSize = 128;
constexpr int kQueries = kQueryHeads * kHeadSize, kKeys = kKvHeads * kHeadSize;
constexpr int kQkv = kQueries + 2 * kKeys, kInner = 3072, kVocabulary = 151936, kLayers = 28;
constexpr int kShared = kQueryHeads / kKvHeads;  // query heads of one KV head
constexpr float kEps = 1e-6f;

constexpr int kThreads = 512, kWarps = kThreads / 32;
constexpr int kSplits = 16;        // blocks that share the positions of one KV head
constexpr int kMaxContext = 4096;  // positions of the cache

enum Stage { kStageQkv, kStageOutput, kStageGateUp, kStageDown, kStagesOfLayer, kStageHead = 4 };

__host__ __device__ constexpr int rows_of(int stage) {
  return stage == kStageQkv ? kQkv
         : stage == kStageGateUp ? 2 * kInner
         : stage == kStageHead ? kVocabulary
                               : kHidden;
}
__host__ __device__ constexpr int columns_of(int stage) {
  return stage == kStageOutput ? kQueries : stage == kStageDown ? kInner : kHidden;
}
// Rows that stay together in a block: a row of the gate and the same row of the other projection
// are neighbours.
__host__ __device__ constexpr int granularity(int stage) { return stage == kStageGateUp ? 2 : 1; }

// The first row of a block; that of the next block is the end.
__host__ __device__ constexpr int first_row(int stage, int block, int blocks) {
  const int whole = rows_of(stage) / granularity(stage);
  return static_cast<int>(static_cast<long long>(whole) * block / blocks) * granularity(stage);
}

// bf16 weights: 512 columns a unit, 2 · 16 bytes a lane.
struct Bf16 {
  static constexpr int kColumns = 512, kBytes = 1024;
  static __device__ float dot(const char* unit, const float* x, int lane) {
    float sum = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint4 w = *reinterpret_cast<const uint4*>(unit + half * 512 + lane * 16);
      const float4 a = *reinterpret_cast<const float4*>(x + half * 256 + lane * 8);
      const float4 b = *reinterpret_cast<const float4*>(x + half * 256 + lane * 8 + 4);
      sum = fmaf(__uint_as_float(w.x << 16), a.x, sum);
      sum = fmaf(__uint_as_float(w.x & 0xffff0000u), a.y, sum);
      sum = fmaf(__uint_as_float(w.y << 16), a.z, sum);
      sum = fmaf(__uint_as_float(w.y & 0xffff0000u), a.w, sum);
      sum = fmaf(__uint_as_float(w.z << 16), b.x, sum);
      sum = fmaf(__uint_as_float(w.z & 0xffff0000u), b.y, sum);
      sum = fmaf(__uint_as_float(w.w << 16), b.z, sum);
      sum = fmaf(__uint_as_float(w.w & 0xffff0000u), b.w, sum);
    }
    return sum;
  }
  static __device__ void copy(char* to, const char* from, int lane) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to + half * 512 + lane * 16));
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address),
                   "l"(from + half * 512 + lane * 16));
    }
  }
};

// 4-bit weights with one scale for 32 columns, (q - 8) · scale: 1024 columns a unit, a block of 32
// a lane. The scales are floats in half precision behind the numbers of a unit.
struct Q4 {
  static constexpr int kColumns = 1024, kBytes = 576;
  static __device__ float dot(const char* unit, const float* x, int lane) {
    const uint4 w = *reinterpret_cast<const uint4*>(unit + lane * 16);
    const uint32_t words[4] = {w.x, w.y, w.z, w.w};
    const uint16_t bits = *reinterpret_cast<const uint16_t*>(unit + 512 + lane * 2);
    float scale;
    asm("cvt.f32.f16 %0, %1;" : "=f"(scale) : "h"(bits));
    float sum = 0;
#pragma unroll
    for (int word = 0; word < 4; ++word) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float4 v = *reinterpret_cast<const float4*>(x + lane * 32 + word * 8 + half * 4);
        const uint32_t q = words[word] >> (16 * half);
        sum = fmaf(static_cast<float>(static_cast<int>(q & 15) - 8), v.x, sum);
        sum = fmaf(static_cast<float>(static_cast<int>(q >> 4 & 15) - 8), v.y, sum);
        sum = fmaf(static_cast<float>(static_cast<int>(q >> 8 & 15) - 8), v.z, sum);
        sum = fmaf(static_cast<float>(static_cast<int>(q >> 12 & 15) - 8), v.w, sum);
      }
    }
    return sum * scale;
  }
  static __device__ void copy(char* to, const char* from, int lane) {
    auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to + lane * 16));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from + lane * 16));
    address = static_cast<uint32_t>(__cvta_generic_to_shared(to + 512 + (lane / 2) * 4));
    // Two lanes share four bytes of scales, the least that a copy takes; both write the same.
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(address),
                 "l"(from + 512 + (lane / 2) * 4));
  }
};

template <class F>
__host__ __device__ constexpr int chunks_of(int stage) { return columns_of(stage) / F::kColumns; }
template <class F>
__host__ __device__ constexpr int row_bytes(int stage) { return chunks_of<F>(stage) * F::kBytes; }

struct Network {
  const char* weights[kLayers * kStagesOfLayer + 1];  // stage after stage; the head last
  const float* norms;        // (layers, 2, hidden), then the last norm (hidden)
  const float* head_norms;   // (layers, 2, head size): of queries, of keys
  const float* angles;       // (positions, head size): cosines, then sines
  const uint16_t* embedding; // (vocabulary, hidden), bf16
  uint16_t* keys;            // (layers, KV heads, positions, head size), bf16
  uint16_t* values;
  float* logits;
  int* token;      // read at the beginning, written at the end
  int* position;   // read at the beginning; the last block adds one
};

__device__ inline float sum_of_warp(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
  return x;
}
__device__ inline float largest_of_warp(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
  return x;
}
__device__ inline float widen(uint32_t bits) { return __uint_as_float(bits << 16); }
__device__ inline uint32_t round_to_bf16(float x) {
  const uint32_t bits = __float_as_uint(x);
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

// The four numbers of a head that a lane holds: columns 2·lane, 2·lane + 1 and the same 64 further,
// which rope turns together.
struct Quad {
  float v[4];
};
__device__ inline Quad quad_of(const float* head, int lane) {
  return {{head[2 * lane], head[2 * lane + 1], head[64 + 2 * lane], head[65 + 2 * lane]}};
}
__device__ inline Quad normalize_and_turn(Quad x, const float* weight, const float* angles, int lane) {
  float squares = x.v[0] * x.v[0];
#pragma unroll
  for (int i = 1; i < 4; ++i) squares = fmaf(x.v[i], x.v[i], squares);
  const float scale = 1.0f / sqrtf(sum_of_warp(squares) / kHeadSize + kEps);
  const Quad w = quad_of(weight, lane);
#pragma unroll
  for (int i = 0; i < 4; ++i) x.v[i] *= scale * w.v[i];
  const float c0 = angles[2 * lane], c1 = angles[2 * lane + 1];
  const float s0 = angles[64 + 2 * lane], s1 = angles[65 + 2 * lane];
  return {{x.v[0] * c0 - x.v[2] * s0, x.v[1] * c1 - x.v[3] * s1, x.v[2] * c0 + x.v[0] * s0,
           x.v[3] * c1 + x.v[1] * s1}};
}
__device__ inline Quad load_quad(const uint16_t* row, int lane) {
  const uint32_t a = *reinterpret_cast<const uint32_t*>(row + 2 * lane);
  const uint32_t b = *reinterpret_cast<const uint32_t*>(row + 64 + 2 * lane);
  return {{widen(a), __uint_as_float(a & 0xffff0000u), widen(b), __uint_as_float(b & 0xffff0000u)}};
}
__device__ inline Quad store_quad(uint16_t* row, const Quad& x, int lane) {
  const uint32_t r[4] = {round_to_bf16(x.v[0]), round_to_bf16(x.v[1]), round_to_bf16(x.v[2]),
                         round_to_bf16(x.v[3])};
  *reinterpret_cast<uint32_t*>(row + 2 * lane) = r[0] | r[1] << 16;
  *reinterpret_cast<uint32_t*>(row + 64 + 2 * lane) = r[2] | r[3] << 16;
  return {{widen(r[0]), widen(r[1]), widen(r[2]), widen(r[3])}};
}

// What a warp, then a block knows of one query head: the largest score, the sum, the values.
struct Softmax {
  float largest, total;
  Quad values;
};

// Scratch of a block's attention in shared memory.
struct AttentionScratch {
  float largest[kWarps][kShared], total[kWarps][kShared];
  float values[kWarps][kShared][kHeadSize];
};

// The first positions of a warp's share, read before the queries are there.
constexpr int kEarly = 2;
struct EarlyPositions {
  Quad keys[kEarly], values[kEarly];
};
__device__ inline std::size_t head_of_cache(int layer, int kv_head) {
  return (static_cast<std::size_t>(layer) * kKvHeads + kv_head) * kMaxContext * kHeadSize;
}
__device__ inline EarlyPositions read_early(const Network& network, int layer, int kv_head,
                                            int split, int position) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const std::size_t head = head_of_cache(layer, kv_head);
  EarlyPositions early;
#pragma unroll
  for (int i = 0; i < kEarly; ++i) {
    const int p = (i * kWarps + warp) * kSplits + split;
    if (p < position) {
      early.keys[i] = load_quad(network.keys + head + p * kHeadSize, lane);
      early.values[i] = load_quad(network.values + head + p * kHeadSize, lane);
    }
  }
  return early;
}

// Attention of one KV head's queries to this block's share of the positions: position p belongs to
// split p % kSplits and, there, to warp p / kSplits % kWarps. `qkv` holds the block's queries, its key
// and its value, before norm and rope. Afterwards `scratch` holds the shares of the warps.
__device__ inline void attend(const Network& network, int layer, int kv_head, int split,
                              int position, const EarlyPositions& early, const float* qkv,
                              AttentionScratch& scratch) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const float* const norms = network.head_norms + layer * 2 * kHeadSize;
  const float* const angles = network.angles + position * kHeadSize;
  uint16_t* const keys = network.keys + head_of_cache(layer, kv_head);
  uint16_t* const values = network.values + head_of_cache(layer, kv_head);
  Quad q[kShared];
#pragma unroll
  for (int i = 0; i < kShared; ++i)
    q[i] = normalize_and_turn(quad_of(qkv + i * kHeadSize, lane), norms, angles, lane);

  Softmax share[kShared];
#pragma unroll
  for (int i = 0; i < kShared; ++i) share[i] = {-INFINITY, 0, {{0, 0, 0, 0}}};
  auto add = [&](const Quad& key, const Quad& value) {
#pragma unroll
    for (int i = 0; i < kShared; ++i) {
      float score = q[i].v[0] * key.v[0];
#pragma unroll
      for (int c = 1; c < 4; ++c) score = fmaf(q[i].v[c], key.v[c], score);
      score = sum_of_warp(score) * 0.08838834764831845f;
      const float top = fmaxf(share[i].largest, score);
      const float before = __expf(share[i].largest - top), now = __expf(score - top);
      share[i].total = share[i].total * before + now;
#pragma unroll
      for (int c = 0; c < 4; ++c)
        share[i].values.v[c] = share[i].values.v[c] * before + now * value.v[c];
      share[i].largest = top;
    }
  };
#pragma unroll
  for (int i = 0; i < kEarly; ++i)
    if ((i * kWarps + warp) * kSplits + split < position) add(early.keys[i], early.values[i]);
  for (int p = (kEarly * kWarps + warp) * kSplits + split; p < position; p += kWarps * kSplits)
    add(load_quad(keys + p * kHeadSize, lane), load_quad(values + p * kHeadSize, lane));
  if (position % kSplits == split && position / kSplits % kWarps == warp) {
    const Quad key = normalize_and_turn(quad_of(qkv + kShared * kHeadSize, lane),
                                        norms + kHeadSize, angles, lane);
    const Quad value = quad_of(qkv + (kShared + 1) * kHeadSize, lane);
    const Quad k = store_quad(keys + position * kHeadSize, key, lane);
    const Quad v = store_quad(values + position * kHeadSize, value, lane);
    add(k, v);
  }
#pragma unroll
  for (int i = 0; i < kShared; ++i) {
    if (lane == 0) {
      scratch.largest[warp][i] = share[i].largest;
      scratch.total[warp][i] = share[i].total;
    }
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      scratch.values[warp][i][2 * lane + c] = share[i].values.v[c];
      scratch.values[warp][i][64 + 2 * lane + c] = share[i].values.v[2 + c];
    }
  }
}

// One number of the sum over the warps of a block, with the largest score and the sum of its head.
__device__ inline Softmax merge_warps(const AttentionScratch& scratch, int head, int column) {
  Softmax all = {-INFINITY, 0, {{0, 0, 0, 0}}};
#pragma unroll
  for (int w = 0; w < kWarps; ++w) all.largest = fmaxf(all.largest, scratch.largest[w][head]);
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    const float factor =
        all.largest == -INFINITY ? 0.0f : __expf(scratch.largest[w][head] - all.largest);
    all.total += factor * scratch.total[w][head];
    all.values.v[0] += factor * scratch.values[w][head][column];
  }
  return all;
}
