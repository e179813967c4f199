// A planned operation of a network and the data of a step. Plain structures without library
// types, because each target's file is compiled for one kind of processor and must not emit
// library code for it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace talu {

struct Format;
struct KvDtype;
struct Node;
struct Step;

// A packed matrix, or a vector of floats if there is no format.
struct Tensor {
  const Format* format = nullptr;
  std::size_t rows = 0, columns = 0;
  const std::byte* data = nullptr;

  const float* floats() const { return reinterpret_cast<const float*>(data); }
};

// A float matrix of the step: row r begins at data + r * stride.
struct Value {
  float* data = nullptr;
  std::size_t width = 0, stride = 0, rows = 0;

  float* row(std::size_t r) const { return data + r * stride; }
};

constexpr int kNone = -1;

enum class Activation { silu, gelu_tanh, gelu, quick_gelu, relu };

// output = x · weightᵀ (+ bias) (+ residual), optionally activated
struct Linear {
  Tensor weight;
  const float* bias = nullptr;
  int residual = kNone;
  int output = kNone;
  bool activates = false;
  Activation activation = Activation::silu;
};

constexpr std::size_t kMostInputs = 4, kMostWeights = 4;

// A planned operation. Its parameters are a plain structure, which its header in ops/ defines.
struct Node {
  void (*run)(const Node& node, const Step& step) = nullptr;
  int inputs[kMostInputs] = {kNone, kNone, kNone, kNone};  // numbers of values
  int output = kNone;                                      // unused if there are linears
  Tensor weights[kMostWeights];
  const Linear* linears = nullptr;  // all of them read inputs[0]
  std::size_t linear_count = 0;
  alignas(8) std::byte parameters[48] = {};

  template <class Parameters>
  const Parameters& as() const {
    return *reinterpret_cast<const Parameters*>(parameters);
  }
};

// A block of the cache holds the positions of all layers and their KV heads (kv_dtypes/head.h).
struct Cache {
  const KvDtype* format = nullptr;
  std::byte* data = nullptr;
  std::size_t block_size = 0, block_bytes = 0;
  const std::size_t* layer_offsets = nullptr;
};

// cos and sin of position · frequency: (rows, count) each.
struct Rotation {
  std::size_t count = 0;
  const float* cosines = nullptr;
  const float* sines = nullptr;
};

// Neighbouring rows of one sequence that attend together.
struct QueryBlock {
  std::size_t sequence, first, last;
  std::size_t positions;  // of the sequence after the step
};

// What the scratch memory of a step depends on.
struct StepSize {
  std::size_t rows, positions;  // the largest number of positions of a sequence after the step
  std::size_t block_rows;       // of the largest query block
};

struct Step {
  std::size_t rows, output_count;
  const std::int32_t* tokens;
  const std::int32_t* positions;
  const std::int32_t* block_tables;  // (sequences, table_width)
  std::size_t table_width;
  const std::int32_t* outputs;
  const QueryBlock* query_blocks;
  std::size_t query_block_count;
  const Value* values;
  Cache cache;
  const Rotation* rotations;
  int threads;
  std::byte* scratch;         // scratch_bytes for each worker
  std::size_t scratch_bytes;
  std::byte* shared_scratch;  // for all workers together
  std::byte* quantized;       // buffer for the quantized activations of any linear
};

}  // namespace talu
