// The interface of a CPU target, used by the rest of the module.
#pragma once
#include <cstddef>
#include <cstdint>

#include "step.h"
#include "threads.h"

namespace talu {

// Output rows of a tile: each lane of a vector register is an output row.
constexpr std::size_t kTileRows = 16;
// Maximum tiles of one call of `multiply`, and the width of its sums in tiles.
constexpr std::size_t kTilesAtOnce = 4;
// Maximum rows of activations of one call of `multiply`, for the targets that read the most at once.
constexpr std::size_t kMostTokensAtOnce = 192;

// Layout of a weight matrix: tiles of 16 rows; within a tile `group` neighbouring
// columns of row 0, of row 1 to row 15, then the next columns. Missing rows and columns are zero.
// The layout is the same for every target, so packed files can be shared between machines.
struct Format {
  const char* name;
  const char* activation;    // number format that `quantize_activations` rounds to
  // The source is row-major; `source_columns` columns of a row take `source_bytes` bytes: 1 and 4
  // for floats, 1 and 2 for 16-bit formats, a block for quantized ones.
  std::size_t source_columns, source_bytes;
  // The columns must be a multiple of this for `multiply` to read a row of floats directly; 0 if
  // activations are always converted.
  std::size_t read_as_it_is;
  std::size_t (*tile_bytes)(std::size_t columns);
  std::size_t (*row_bytes)(std::size_t columns);  // of a row of quantized activations
  void (*quantize_activations)(const float* x, std::size_t columns, void* out);
  // Packs the tiles first .. last - 1 of a row-major matrix.
  void (*pack)(const void* source, std::size_t rows, std::size_t columns, std::size_t first,
               std::size_t last, void* packed);
  // One logical row as floats.
  void (*dequantize_row)(const void* packed, std::size_t row, std::size_t columns, float* out);
  // sums[token][tile][16] = tiles · activations, one chain of additions for each sum, columns
  // ascending, so that a sum does not depend on the other tokens. At most kTilesAtOnce tiles.
  // x_stride is the number of bytes between rows of activations.
  void (*multiply)(const void* packed, std::size_t tiles, std::size_t columns, const std::byte* x,
                   std::size_t x_stride, std::size_t tokens, float* sums);
  std::size_t multiple = 1;  // the columns must be a multiple of this
  // Packs the tiles first .. last - 1 of a row-major matrix of floats in a format whose codes have to
  // be chosen, with a factor from `factorize` or without; such a format has no `pack`.
  void (*choose)(const float* source, std::size_t rows, std::size_t columns, const float* factor,
                 std::size_t first, std::size_t last, void* packed, float* work) = nullptr;
  // Writes the blocks that a file has of the rows of the tiles first .. last - 1; they were zero.
  // Null if talu makes no files with this format.
  void (*encode)(const float* source, std::size_t rows, std::size_t columns, const float* factor,
                 std::size_t first, std::size_t last, void* encoded, float* work) = nullptr;
};

// Tiles of which one call of `choose` or `encode` chooses the codes, at most, and the floats that it
// works with for each column, and in addition.
constexpr std::size_t kTilesChosen = 8;
constexpr std::size_t kWorkOfChoosing = kTilesChosen * kTileRows + 32;
constexpr std::size_t kMoreWorkOfChoosing = kTilesChosen * kTileRows * 256;

// Layout of keys and values in the KV cache.
struct KvDtype {
  const char* name;
  std::size_t (*head_bytes)(std::size_t positions, std::size_t head_size);  // of a head in a block
  void (*attention)(const Node& node, const Step& step);
};

// Weights of tokens that are summed together.
constexpr std::size_t kWeighedTogether = 64;

// How a target runs one kind of operation; operations.h describes the kind itself.
struct Op {
  const char* kind;
  void (*run)(const Node& node, const Step& step);
};

// Multiplications that show how fast the processor is at most; ceilings.h measures them.
struct Ceiling {
  const char* numbers;     // their format
  std::size_t operations;  // multiplications, each with an addition, in one call
  void (*multiply)(const std::byte* data, std::byte* out);  // 16 KiB, and room for 64 bytes
};

template <class T>
struct List {
  const T* items;
  std::size_t count;
  const T* begin() const { return items; }
  const T* end() const { return items + count; }
};

struct Kernels {
  const char* name;
  bool (*supported)();
  List<Format> formats;
  List<KvDtype> kv_dtypes;
  List<Op> ops;
  // Factors a matrix that the operation "gram" has summed, in place; `work` has room for 64 floats
  // for each column. False if it has no factor, because it is not finite, or zero.
  bool (*factorize)(float* matrix, std::size_t columns, float* work, int threads);
  // weights[i] = e^((x[i] - peak) · factor) for x[i] <= peak, and zeros up to a multiple of kTileRows;
  // sums has one sum for kWeighedTogether of them. The same bits on every target.
  void (*weigh)(const float* x, std::size_t size, float peak, float factor, float* weights,
                float* sums);
  // The sum of `size` weights, a multiple of kTileRows, in the order of `weigh`.
  float (*sum_weights)(const float* weights, std::size_t size);
  float (*read_bytes)(const std::byte* from, std::size_t bytes);
  List<Ceiling> ceilings;
};

extern const Kernels generic_kernels;
#if defined(__x86_64__)
extern const Kernels avx2_kernels, avx512_kernels, avx512bf16_kernels, amx_kernels;
#endif

}  // namespace talu
