// Formats of integers that share scales in blocks of columns, for weights and activations.
//
// A tile consists of consecutive blocks; the last one has the columns that are left. A format is a
// structure with
//   name, activation    names of the number formats of weights and activations
//   block, group        columns of a block, and columns that are multiplied at once
//   blocks_in_cache     blocks of a tile that the first cache has room for, beside activations
//   Integers            of a row of activations
//   block_bytes(n)      size of a block of n columns of a tile
//   pack_block          writes a block from rows of floats
//   dequantize_block    computes one row of a block
//   quantize_block      writes a block of a row of activations
//   add_block           adds the products of a block, for several rows of activations
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.

// A row of activations: the scales of its blocks, an integer sum of each block, then the integers.
template <class F>
struct BlockRow {
  static std::size_t blocks(std::size_t columns) {
    return round_up((columns + F::block - 1) / F::block, kTileRows);
  }
  static std::size_t sums_at(std::size_t columns) { return blocks(columns) * sizeof(float); }
  static std::size_t integers_at(std::size_t columns) {
    return blocks(columns) * (sizeof(float) + sizeof(std::int32_t));
  }
  static std::size_t bytes(std::size_t columns) {
    return integers_at(columns) + round_up(columns, kTileRows) * sizeof(typename F::Integers);
  }
};

// The activations of one block: those of the next row are `stride` bytes further.
struct BlockActivations {
  const std::byte* integers;
  const std::byte* scale;
  std::size_t to_sum;  // from the scale to the sum, in bytes
  std::size_t stride;
};

template <class F>
static std::size_t block_tile_bytes(std::size_t columns) {
  const std::size_t whole = columns / F::block * F::block_bytes(F::block);
  return columns % F::block == 0 ? whole : whole + F::block_bytes(columns % F::block);
}

template <class F>
static void pack_blocks(const void* source, std::size_t rows, std::size_t columns,
                        std::size_t first, std::size_t last, void* packed) {
  auto* out = static_cast<std::byte*>(packed) + first * block_tile_bytes<F>(columns);
  for (std::size_t tile = first; tile < last; ++tile)
    for (std::size_t begin = 0; begin < columns; begin += F::block) {
      const std::size_t count = smaller(F::block, columns - begin);
      __builtin_memset(out, 0, F::block_bytes(count));
      F::pack_block(static_cast<const float*>(source) + tile * kTileRows * columns + begin, columns,
                    smaller(kTileRows, rows - tile * kTileRows), count, out);
      out += F::block_bytes(count);
    }
}

template <class F>
static void dequantize_blocks(const void* packed, std::size_t row, std::size_t columns,
                              float* out) {
  const auto* block = static_cast<const std::byte*>(packed) +
                      row / kTileRows * block_tile_bytes<F>(columns);
  for (std::size_t begin = 0; begin < columns; begin += F::block) {
    const std::size_t count = smaller(F::block, columns - begin);
    F::dequantize_block(block, row % kTileRows, count, out + begin);
    block += F::block_bytes(count);
  }
}

template <class F>
static void quantize_blocks(const float* x, std::size_t columns, void* out) {
  auto* const scales = static_cast<float*>(out);
  auto* const sums = reinterpret_cast<std::int32_t*>(scales + BlockRow<F>::blocks(columns));
  auto* const integers =
      reinterpret_cast<typename F::Integers*>(sums + BlockRow<F>::blocks(columns));
  for (std::size_t begin = 0; begin < columns; begin += F::block)
    F::quantize_block(x + begin, smaller(F::block, columns - begin), integers + begin,
                      scales[begin / F::block], sums[begin / F::block]);
}

// sums += several blocks, columns first .. last - 1 of a tile, times any number of rows of
// activations: panels of as many rows as possible, then fewer. The first block of a tile begins the
// sums.
template <class F, std::size_t SIZE = 0>
static void add_blocks(std::size_t tokens, const std::byte* tile, std::size_t first,
                       std::size_t last, std::size_t columns, const std::byte* x,
                       std::size_t x_stride, float* sums, std::size_t sums_stride) {
  constexpr std::size_t TOKENS = kIntegerPanels[SIZE];
  for (; tokens >= TOKENS; tokens -= TOKENS) {
    for (std::size_t begin = first; begin < last; begin += F::block) {
      const std::byte* const block = tile + begin / F::block * F::block_bytes(F::block);
      const BlockActivations activations = {
          x + BlockRow<F>::integers_at(columns) + begin * sizeof(typename F::Integers),
          x + begin / F::block * sizeof(float), BlockRow<F>::sums_at(columns), x_stride};
      const std::size_t count = round_up(smaller(F::block, last - begin), F::group);
      if (count == F::block)
        F::template add_block<TOKENS, F::block>(block, count, activations, begin == 0, sums,
                                                sums_stride);
      else
        F::template add_block<TOKENS, 0>(block, count, activations, begin == 0, sums, sums_stride);
    }
    x += TOKENS * x_stride;
    sums += TOKENS * sums_stride;
  }
  if constexpr (TOKENS > 1)
    add_blocks<F, SIZE + 1>(tokens, tile, first, last, columns, x, x_stride, sums, sums_stride);
}

template <class F>
static void multiply_blocks(const void* packed, std::size_t tiles, std::size_t columns,
                            const std::byte* x, std::size_t x_stride, std::size_t tokens,
                            float* sums) {
  constexpr std::size_t kStride = kTilesAtOnce * kTileRows;
  constexpr std::size_t kColumns = F::blocks_in_cache * F::block;
  for (std::size_t r = 0; r < tiles; ++r) {
    const auto* const tile =
        static_cast<const std::byte*>(packed) + r * block_tile_bytes<F>(columns);
    for (std::size_t begin = 0; begin < columns; begin += kColumns)
      add_blocks<F>(tokens, tile, begin, smaller(columns, begin + kColumns), columns, x, x_stride,
                    sums + r * kTileRows, kStride);
  }
}

template <class F>
constexpr Format format_of_blocks() {
  return {F::name,
          F::activation,
          sizeof(float),
          0,
          block_tile_bytes<F>,
          BlockRow<F>::bytes,
          quantize_blocks<F>,
          pack_blocks<F>,
          dequantize_blocks<F>,
          multiply_blocks<F>};
}
