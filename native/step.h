// A planned operation of a network and the data of a step. Plain structures without library
// types, because each target's file is compiled for one kind of processor and must not emit
// library code for it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace talu {

struct Format;
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

struct Node {
  void (*run)(const Node& node, const Step& step) = nullptr;
  int inputs[3] = {kNone, kNone, kNone};  // numbers of values
  int output = kNone;                     // unused if there are linears
  Tensor weight, bias;
  float eps = 0, scale = 0;
  std::size_t group = 0;      // rms_norm: columns that are normalised together
  std::size_t head_size = 0;  // rope, attention
  std::size_t window = 0;
  bool causal = true;       // attention: rows do not attend to later rows
  std::size_t offset = 0;   // embed_position, embed_row: the first row of the table
  std::int32_t padding = -1;  // embed_position: the token that takes no position, -1 for none
  std::size_t layer = 0;
  std::size_t rotation = 0;  // index of the step's table of angles
  Activation activation = Activation::silu;
  const Linear* linears = nullptr;  // all of them read inputs[0]
  std::size_t linear_count = 0;
};

// Layout of the cache. A block holds, for each layer, the keys and then the values of
// its positions; for each KV head, keys are tiles of 16 positions [position / 16][column][16],
// values are tiles of 16 columns [column / 16][position][16].
struct Cache {
  std::byte* data = nullptr;
  std::size_t block_size = 0, block_bytes = 0;
  const std::size_t* layer_offsets = nullptr;
  const std::size_t* kv_heads = nullptr;
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
  std::byte* quantized;       // buffer for the quantized activations of any linear
};

}  // namespace talu
