// Measures decoding of one token on a GPU: ceilings, then a step as one persistent kernel and as a
// graph of kernels, each checked against a computation in double precision on the processor.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "chain.cuh"
#include "persistent.cuh"

#define CHECK(call)                                                                       \
  do {                                                                                    \
    const cudaError_t status = (call);                                                    \
    if (status != cudaSuccess) {                                                          \
      std::printf("%s:%d %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(status)); \
      std::exit(1);                                                                       \
    }                                                                                     \
  } while (0)

namespace {

int g_blocks = 0;

// ---- numbers

__host__ __device__ inline uint32_t hashed(uint64_t i) {
  i = (i ^ (i >> 33)) * 0xff51afd7ed558ccdull;
  i = (i ^ (i >> 33)) * 0xc4ceb9fe1a85ec53ull;
  return static_cast<uint32_t>((i ^ (i >> 33)) >> 16);
}
// Between -1 and 1.
__host__ __device__ inline float uniform(uint64_t i) {
  return static_cast<float>(static_cast<int32_t>(hashed(i))) * (1.0f / 2147483648.0f);
}
__host__ __device__ inline uint16_t bf16_of(float x) {
#ifdef __CUDA_ARCH__
  const uint32_t bits = __float_as_uint(x);
#else
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
#endif
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
float float_of(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float x;
  std::memcpy(&x, &wide, 4);
  return x;
}
float half_of(uint16_t h) {
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  const float x = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                : std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25);
  return h & 0x8000 ? -x : x;
}

__global__ void fill_bf16(uint16_t* out, std::size_t count, uint64_t seed, float scale) {
  for (std::size_t i = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x; i < count;
       i += std::size_t{gridDim.x} * blockDim.x)
    out[i] = bf16_of(uniform(seed + i) * scale);
}
// 512 bytes of 4-bit numbers, then 32 scales of about scale / 8 in half precision.
__global__ void fill_q4(char* out, std::size_t units, uint64_t seed, float scale) {
  for (std::size_t i = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x; i < units * 160;
       i += std::size_t{gridDim.x} * blockDim.x) {
    char* const unit = out + i / 160 * Q4::kBytes;
    const std::size_t at = i % 160;
    if (at < 128) {
      reinterpret_cast<uint32_t*>(unit)[at] = hashed(seed + i);
    } else {
      const float wanted = scale / 8 * (1.0f + 0.5f * uniform(seed + i));
      uint16_t bits;
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(wanted));
      reinterpret_cast<uint16_t*>(unit + 512)[at - 128] = bits;
    }
  }
}

template <class T>
T* allocate(std::size_t count) {
  T* memory;
  CHECK(cudaMalloc(&memory, count * sizeof(T)));
  CHECK(cudaMemset(memory, 0, count * sizeof(T)));
  return memory;
}
template <class T>
T* on_device(const std::vector<T>& host) {
  T* const memory = allocate<T>(host.size());
  CHECK(cudaMemcpy(memory, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  return memory;
}
template <class T>
std::vector<T> on_host(const T* memory, std::size_t count) {
  std::vector<T> host(count);
  CHECK(cudaMemcpy(host.data(), memory, count * sizeof(T), cudaMemcpyDeviceToHost));
  return host;
}

// ---- a network of random numbers

template <class F>
struct Model {
  Network network;
  std::size_t bytes = 0;  // read for one token, without the cache
  std::vector<std::vector<char>> host_weights;
  std::vector<float> norms, head_norms, angles;
};

template <class F>
Model<F> make_model() {
  Model<F> model;
  uint64_t seed = 1;
  for (int stage = 0; stage <= kLayers * kStagesOfLayer; ++stage) {
    const int kind = stage == kLayers * kStagesOfLayer ? kStageHead : stage % kStagesOfLayer;
    const std::size_t size = static_cast<std::size_t>(rows_of(kind)) * row_bytes<F>(kind);
    char* const memory = allocate<char>(size);
    const float scale = std::sqrt(3.0f / static_cast<float>(columns_of(kind)));
    if constexpr (F::kBytes == 1024)
      fill_bf16<<<1024, 256>>>(reinterpret_cast<uint16_t*>(memory), size / 2, seed, scale);
    else
      fill_q4<<<1024, 256>>>(memory, size / F::kBytes, seed, scale);
    CHECK(cudaGetLastError());
    seed += size;
    model.network.weights[stage] = memory;
    model.bytes += size;
  }
  auto near_one = [&](std::size_t count) {
    std::vector<float> numbers(count);
    for (float& x : numbers) x = 1.0f + 0.2f * uniform(seed++);
    return numbers;
  };
  model.norms = near_one((2 * kLayers + 1) * kHidden);
  model.head_norms = near_one(2 * kLayers * kHeadSize);
  model.angles.resize(static_cast<std::size_t>(kMaxContext) * kHeadSize);
  for (int p = 0; p < kMaxContext; ++p)
    for (int i = 0; i < 64; ++i) {
      const double angle = p * std::pow(1e6, -i / 64.0);
      model.angles[p * kHeadSize + i] = static_cast<float>(std::cos(angle));
      model.angles[p * kHeadSize + 64 + i] = static_cast<float>(std::sin(angle));
    }
  auto& network = model.network;
  network.norms = on_device(model.norms);
  network.head_norms = on_device(model.head_norms);
  network.angles = on_device(model.angles);
  auto* const embedding = allocate<uint16_t>(static_cast<std::size_t>(kVocabulary) * kHidden);
  fill_bf16<<<1024, 256>>>(embedding, static_cast<std::size_t>(kVocabulary) * kHidden, seed, 1.0f);
  network.embedding = embedding;
  const std::size_t cache = static_cast<std::size_t>(kLayers) * kKvHeads * kMaxContext * kHeadSize;
  network.keys = allocate<uint16_t>(cache);
  network.values = allocate<uint16_t>(cache);
  fill_bf16<<<1024, 256>>>(network.keys, cache, seed + 1000, 1.0f);
  fill_bf16<<<1024, 256>>>(network.values, cache, seed + 2000, 1.0f);
  network.logits = allocate<float>(kVocabulary);
  network.token = allocate<int>(1);
  network.position = allocate<int>(1);
  CHECK(cudaDeviceSynchronize());
  return model;
}

// ---- the same step in double precision

template <class F>
double element(const char* weights, int stage, std::size_t row, int column) {
  const char* const unit =
      weights + row * row_bytes<F>(stage) + column / F::kColumns * F::kBytes;
  const int at = column % F::kColumns;
  if constexpr (F::kBytes == 1024) {
    return float_of(reinterpret_cast<const uint16_t*>(unit)[at]);
  } else {
    const uint32_t word = reinterpret_cast<const uint32_t*>(unit)[at / 8];
    const uint16_t scale = reinterpret_cast<const uint16_t*>(unit + 512)[at / 32];
    return (static_cast<int>(word >> (4 * (at % 8)) & 15) - 8) * static_cast<double>(half_of(scale));
  }
}

template <class F>
std::vector<double> reference(const Model<F>& model, int token, int position) {
  using Row = std::vector<double>;
  const auto& network = model.network;
  auto product = [&](int index, int stage, const Row& x) {
    const auto weights = on_host(network.weights[index],
                                 static_cast<std::size_t>(rows_of(stage)) * row_bytes<F>(stage));
    Row out(rows_of(stage));
#pragma omp parallel for
    for (int r = 0; r < rows_of(stage); ++r) {
      double sum = 0;
      for (int c = 0; c < columns_of(stage); ++c)
        sum += element<F>(weights.data(), stage, r, c) * x[c];
      out[r] = sum;
    }
    return out;
  };
  auto normalized = [](const double* x, const float* weight, int count) {
    double squares = 0;
    for (int i = 0; i < count; ++i) squares += x[i] * x[i];
    const double scale = 1 / std::sqrt(squares / count + kEps);
    Row out(count);
    for (int i = 0; i < count; ++i) out[i] = x[i] * scale * weight[i];
    return out;
  };
  auto turned = [&](Row x) {
    const float* const angles = model.angles.data() + position * kHeadSize;
    Row out(kHeadSize);
    for (int i = 0; i < 64; ++i) {
      out[i] = x[i] * angles[i] - x[64 + i] * angles[64 + i];
      out[64 + i] = x[64 + i] * angles[i] + x[i] * angles[64 + i];
    }
    return out;
  };
  const auto row = on_host(network.embedding + static_cast<std::size_t>(token) * kHidden, kHidden);
  Row x(kHidden);
  for (int i = 0; i < kHidden; ++i) x[i] = float_of(row[i]);
  for (int layer = 0; layer < kLayers; ++layer) {
    const int at = layer * kStagesOfLayer;
    const float* const norms = model.norms.data() + 2 * layer * kHidden;
    const float* const head_norms = model.head_norms.data() + 2 * layer * kHeadSize;
    const Row qkv = product(at + kStageQkv, kStageQkv, normalized(x.data(), norms, kHidden));
    Row attended(kQueries);
    for (int h = 0; h < kQueryHeads; ++h) {
      const int kv = h / kShared;
      const std::size_t head = (static_cast<std::size_t>(layer) * kKvHeads + kv) * kMaxContext * kHeadSize;
      const auto keys = on_host(network.keys + head, static_cast<std::size_t>(position + 1) * kHeadSize);
      const auto values = on_host(network.values + head, static_cast<std::size_t>(position + 1) * kHeadSize);
      const Row q = turned(normalized(qkv.data() + h * kHeadSize, head_norms, kHeadSize));
      const Row k = turned(normalized(qkv.data() + kQueries + kv * kHeadSize, head_norms + kHeadSize, kHeadSize));
      auto rounded = [](double v) { return double{float_of(bf16_of(static_cast<float>(v)))}; };
      Row scores(position + 1);
      double largest = -1e300, total = 0;
      for (int p = 0; p <= position; ++p) {
        for (int c = 0; c < kHeadSize; ++c)
          scores[p] += q[c] * (p < position ? float_of(keys[p * kHeadSize + c]) : rounded(k[c]));
        scores[p] /= std::sqrt(double{kHeadSize});
        largest = std::max(largest, scores[p]);
      }
      for (double& s : scores) total += s = std::exp(s - largest);
      for (int c = 0; c < kHeadSize; ++c) {
        double sum = 0;
        for (int p = 0; p <= position; ++p)
          sum += scores[p] * (p < position ? double{float_of(values[p * kHeadSize + c])}
                                           : rounded(qkv[kQueries + kKeys + kv * kHeadSize + c]));
        attended[h * kHeadSize + c] = sum / total;
      }
    }
    const Row output = product(at + kStageOutput, kStageOutput, attended);
    for (int i = 0; i < kHidden; ++i) x[i] += output[i];
    const Row both = product(at + kStageGateUp, kStageGateUp, normalized(x.data(), norms + kHidden, kHidden));
    Row inner(kInner);
    for (int i = 0; i < kInner; ++i)
      inner[i] = both[2 * i] / (1 + std::exp(-both[2 * i])) * both[2 * i + 1];
    const Row down = product(at + kStageDown, kStageDown, inner);
    for (int i = 0; i < kHidden; ++i) x[i] += down[i];
  }
  return product(kLayers * kStagesOfLayer, kStageHead,
                 normalized(x.data(), model.norms.data() + 2 * kLayers * kHidden, kHidden));
}

// ---- time

struct Times {
  float median, spread;  // microseconds; half of the distance between the quartiles
};
Times time_of(const std::function<void()>& run, int repeat, int inner = 1) {
  cudaEvent_t begin, end;
  CHECK(cudaEventCreate(&begin));
  CHECK(cudaEventCreate(&end));
  for (int i = 0; i < 5; ++i) run();
  CHECK(cudaDeviceSynchronize());
  std::vector<float> times(repeat);
  for (float& time : times) {
    CHECK(cudaEventRecord(begin));
    for (int i = 0; i < inner; ++i) run();
    CHECK(cudaEventRecord(end));
    CHECK(cudaEventSynchronize(end));
    CHECK(cudaEventElapsedTime(&time, begin, end));
    time = time * 1000 / inner;
  }
  std::sort(times.begin(), times.end());
  return {times[repeat / 2], (times[repeat * 3 / 4] - times[repeat / 4]) / 2};
}

__global__ void __launch_bounds__(512) read_all(const uint4* from, std::size_t count, uint32_t* out) {
  uint32_t sum = 0;
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  std::size_t i = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x;
  for (; i + 7 * stride < count; i += 8 * stride) {
    uint4 v[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) v[k] = __ldcs(from + i + k * stride);
#pragma unroll
    for (int k = 0; k < 8; ++k) sum ^= v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
  }
  if (sum == 0x12345678u) *out = sum;
}

void ceilings() {
  const std::size_t bytes = std::size_t{4} << 30;
  auto* const from = allocate<char>(bytes);
  auto* const to = allocate<char>(bytes);
  fill_bf16<<<1024, 256>>>(reinterpret_cast<uint16_t*>(from), bytes / 2, 77, 1.0f);
  auto* const out = allocate<uint32_t>(1);
  const Times copy = time_of([&] { CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice)); }, 11);
  std::printf("copy of 4 GiB: %.2f TB/s read and written\n", 2.0 * bytes / copy.median / 1e6);
  for (int blocks : {1, 2, 4}) {
    const Times read = time_of([&] { read_all<<<g_blocks * blocks, 512>>>(reinterpret_cast<const uint4*>(from), bytes / 16, out); }, 11);
    CHECK(cudaGetLastError());
    std::printf("read of 4 GiB, %d blocks of 512 on a multiprocessor: %.2f TB/s\n", blocks, bytes / read.median / 1e6);
  }
  // As much as one step reads, with a launch for all.
  const std::size_t step = std::size_t{1192} << 20;
  const Times read = time_of([&] { read_all<<<g_blocks * 2, 512>>>(reinterpret_cast<const uint4*>(from), step / 16, out); }, 51);
  std::printf("read of 1.25 GB in one kernel: %.1f us, %.2f TB/s\n", read.median, step / read.median / 1e6);
  CHECK(cudaFree(from));
  CHECK(cudaFree(to));
}

// ---- the two ways to run a step

template <class F, bool WAIT = true>
std::function<void()> persistent(const Network& network, cudaStream_t stream) {
  constexpr int kDepth = F::kBytes == 1024 ? 11 : 20;
  Exchange exchange;
  exchange.x = allocate<Tagged>(kHidden);
  exchange.middle = allocate<Tagged>(kHidden);
  exchange.qkv = allocate<Tagged>(kQkv);
  exchange.shares = allocate<Tagged>(kKvHeads * kSplits * kShared * kHeadSize);
  exchange.sums = allocate<Tagged>(kKvHeads * kSplits * kShared * 2);
  exchange.attended = allocate<Tagged>(kQueries);
  exchange.inner = allocate<Tagged>(kInner);
  exchange.candidates = allocate<Candidate>(g_blocks);
  exchange.finished = allocate<unsigned>(1);
  exchange.step = allocate<unsigned>(1);
  constexpr std::size_t kMemory = sizeof(PersistentMemory<F, kDepth>);
  CHECK(cudaFuncSetAttribute(persistent_step<F, kDepth, WAIT>, cudaFuncAttributeMaxDynamicSharedMemorySize, kMemory));
  return [=] {
    cudaLaunchConfig_t config = {};
    config.gridDim = g_blocks;
    config.blockDim = kThreads;
    config.dynamicSmemBytes = kMemory;
    config.stream = stream;
    cudaLaunchAttribute attribute[1];
    attribute[0].id = cudaLaunchAttributeCooperative;  // all blocks at once, or an error
    attribute[0].val.cooperative = 1;
    config.attrs = attribute;
    config.numAttrs = 1;
    CHECK(cudaLaunchKernelEx(&config, persistent_step<F, kDepth, WAIT>, network, exchange));
  };
}

template <class F>
std::function<void()> chain(const Network& network, cudaStream_t stream, bool overlap) {
  Activations a;
  a.x = allocate<float>(kHidden);
  a.middle = allocate<float>(kHidden);
  a.qkv = allocate<float>(kQkv);
  a.shares = allocate<float>(kKvHeads * kSplits * kShared * kHeadSize);
  a.sums = allocate<float>(kKvHeads * kSplits * kShared * 2);
  a.attended = allocate<float>(kQueries);
  a.inner = allocate<float>(kInner);
  a.candidates = allocate<Candidate>(g_blocks);
  auto launch = [=](auto kernel, int blocks, int threads, std::size_t memory, auto... arguments) {
    if (memory > 48 << 10)
      CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, memory));
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks;
    config.blockDim = threads;
    config.dynamicSmemBytes = memory;
    config.stream = stream;
    cudaLaunchAttribute attribute[1];
    attribute[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute[0].val.programmaticStreamSerializationAllowed = 1;
    config.attrs = attribute;
    config.numAttrs = overlap ? 1 : 0;
    CHECK(cudaLaunchKernelEx(&config, kernel, arguments...));
  };
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  for (int layer = 0; layer < kLayers; ++layer) {
    launch(product<F, kStageQkv>, g_blocks, kThreads, sizeof(MemoryOf<F, kStageQkv>), network, a, layer);
    launch(attention, kKvHeads * kSplits, kThreads, 0, network, a, layer);
    launch(merge, kKvHeads, kShared * kHeadSize, 0, a);
    launch(product<F, kStageOutput>, g_blocks, kThreads, sizeof(MemoryOf<F, kStageOutput>), network, a, layer);
    launch(product<F, kStageGateUp>, g_blocks, kThreads, sizeof(MemoryOf<F, kStageGateUp>), network, a, layer);
    launch(product<F, kStageDown>, g_blocks, kThreads, sizeof(MemoryOf<F, kStageDown>), network, a, layer);
  }
  launch(product<F, kStageHead>, g_blocks, kThreads, sizeof(MemoryOf<F, kStageHead>), network, a, int{kLayers});
  launch(choose, 1, kThreads, 0, network, a, g_blocks);
  cudaGraph_t graph;
  CHECK(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t runnable;
  CHECK(cudaGraphInstantiate(&runnable, graph, 0));
  return [=] { CHECK(cudaGraphLaunch(runnable, stream)); };
}

void set(int* at, int value) { CHECK(cudaMemcpy(at, &value, sizeof value, cudaMemcpyHostToDevice)); }

// ‖found - expected‖ / ‖expected‖ and whether the largest logit was chosen.
template <class F>
double check(const Model<F>& model, const std::vector<double>& expected, const std::function<void()>& step, int token, int position) {
  set(model.network.token, token);
  set(model.network.position, position);
  CHECK(cudaMemset(model.network.logits, 0xff, kVocabulary * sizeof(float)));
  step();
  CHECK(cudaDeviceSynchronize());
  const auto found = on_host(model.network.logits, kVocabulary);
  const int chosen = on_host(model.network.token, 1)[0];
  double distance = 0, size = 0;
  for (int i = 0; i < kVocabulary; ++i) {
    distance += (found[i] - expected[i]) * (found[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  const auto best = std::max_element(found.begin(), found.end()) - found.begin();
  if (best != chosen) std::printf("chose %d instead of %d\n", chosen, static_cast<int>(best));
  return std::sqrt(distance / size);
}

template <class F>
void measure(const char* name, cudaStream_t stream, const char* only) {
  const Model<F> model = make_model<F>();
  struct Way {
    const char* name;
    std::function<void()> step;
    bool right = true;
  };
  std::vector<Way> ways;
  if (std::strchr(only, 'g')) ways.push_back({"graph", chain<F>(model.network, stream, false)});
  if (std::strchr(only, 'd')) ways.push_back({"graph, dependent launch", chain<F>(model.network, stream, true)});
  if (std::strchr(only, 'p')) ways.push_back({"persistent kernel", persistent<F>(model.network, stream)});
  if (std::strchr(only, 'w')) ways.push_back({"persistent, no waiting", persistent<F, false>(model.network, stream), false});
  // A position that was not written before, so that both ways write it.
  std::vector<double> expected[2];
  const int positions[2] = {301, 37};
  for (int i = 0; i < 2; ++i) expected[i] = reference(model, 1234 + i, positions[i]);
  for (const Way& way : ways)
    for (int i = 0; way.right && i < 2; ++i)
      std::printf("%s, %s: position %d, distance from double precision %.1e\n", name, way.name, positions[i],
                  check(model, expected[i], way.step, 1234 + i, positions[i]));
  std::fflush(stdout);
  if (std::strchr(only, 'k')) return;
  for (int position : {16, 512, 2048}) {
    const double bytes = static_cast<double>(model.bytes) +
                         2.0 * kLayers * kKvHeads * position * kHeadSize * sizeof(uint16_t);
    for (const Way& way : ways) {
      set(model.network.position, position);
      const Times time = time_of(way.step, 31, 20);
      std::printf("%-5s %-24s context %5d: %7.1f us (±%.1f) %6.0f tokens/s  %.2f TB/s\n", name, way.name,
                  position, time.median, time.spread, 1e6 / time.median, bytes / time.median / 1e6);
      std::fflush(stdout);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const char* const only = argc > 1 ? argv[1] : "cgdpw4";
  cudaDeviceProp card;
  CHECK(cudaGetDeviceProperties(&card, 0));
  int driver = 0;
  CHECK(cudaDriverGetVersion(&driver));
  g_blocks = card.multiProcessorCount;
  std::printf("%s, %d multiprocessors, CUDA of the driver %d\n", card.name, g_blocks, driver);
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  // Everything runs on the default stream's behaviour: events on it wait for `stream`.
  if (std::strchr(only, 'c')) ceilings();
  measure<Bf16>("bf16", stream, only);
  if (std::strchr(only, '4')) measure<Q4>("4 bit", stream, only);
}
