// Formats of integers that share scales in blocks of columns, for weights and activations.
//
// A tile consists of consecutive blocks. A format is a structure with
//   name, activation    names of the number formats of weights and activations
//   block               columns of a block
//   panels              numbers of rows of activations that are multiplied at once, descending
//   source_columns      of a block of the source: all of a block, or one, so that the last block of
//                       a tile has the columns that are left
//   source_bytes(n)     of n columns of a row of the source
//   block_bytes(n)      size of a block of n columns of a tile
//   pack_block          writes a block from rows of the source
//   dequantize_block    computes one row of a block
//   multiply_few        multiplies tiles together, for a few rows of activations
//   Unpacked            the same numbers in a form that is multiplied faster, with block_bytes;
//                       unpack, which makes it of a block; and add_several, which adds the products
//                       of several blocks
//   unpacks             whether it is worth that for many rows of activations
//   Row                 the layout of a row of activations, and how it is computed
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.

// A row of activations: scales, one for each SCALED columns; integer sums, one for each SUMMED; then
// the integers.
template <class INTEGER, std::size_t SCALED, std::size_t SUMMED>
struct IntegerRow {
  using Integer = INTEGER;
  static constexpr std::size_t scaled = SCALED, summed = SUMMED;

  static std::size_t sums_at(std::size_t columns) {
    return round_up((columns + scaled - 1) / scaled, kTileRows) * sizeof(float);
  }
  static std::size_t integers_at(std::size_t columns) {
    return sums_at(columns) +
           round_up((columns + summed - 1) / summed, kTileRows) * sizeof(std::int32_t);
  }
  static std::size_t bytes(std::size_t columns) {
    return round_up(integers_at(columns) + round_up(columns, kTileRows) * sizeof(Integer), 64);
  }
};

// The activations of one block of weights: those of the next row are `stride` bytes further.
struct BlockActivations {
  const std::byte *integers, *scales, *sums;
  std::size_t stride;

  float scale(std::size_t token, std::size_t number = 0) const {
    return reinterpret_cast<const float*>(scales + token * stride)[number];
  }
  std::int32_t sum(std::size_t token, std::size_t number = 0) const {
    return reinterpret_cast<const std::int32_t*>(sums + token * stride)[number];
  }

  // Those from a column of whole rows on.
  template <class ROW>
  static BlockActivations from(std::size_t column, const std::byte* rows, std::size_t columns,
                               std::size_t stride) {
    BlockActivations all = {rows + ROW::integers_at(columns), rows, rows + ROW::sums_at(columns),
                            stride};
    all.advance<ROW>(column);
    return all;
  }
  BlockActivations advance_rows(std::size_t rows) const {
    const std::size_t bytes = rows * stride;
    return {integers + bytes, scales + bytes, sums + bytes, stride};
  }
  template <class ROW>
  void advance(std::size_t columns) {
    integers += columns * sizeof(typename ROW::Integer);
    scales += columns / ROW::scaled * sizeof(float);
    sums += columns / ROW::summed * sizeof(std::int32_t);
  }
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
  const std::size_t stride = F::source_bytes(columns);
  for (std::size_t tile = first; tile < last; ++tile)
    for (std::size_t begin = 0; begin < columns; begin += F::block) {
      const std::size_t count = smaller(F::block, columns - begin);
      __builtin_memset(out, 0, F::block_bytes(count));
      F::pack_block(static_cast<const std::byte*>(source) + tile * kTileRows * stride +
                        F::source_bytes(begin),
                    stride, smaller(kTileRows, rows - tile * kTileRows), count, out);
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

// Requests BYTES before they are needed. The processor's own prefetching loses track where a block's
// scales and planes are read in turn, and at the end of a page.
template <std::size_t BYTES>
TALU_INLINE void prefetch(const std::byte* from) {
  constexpr std::size_t kLine = 64;
  for (std::size_t at = 0; at < BYTES; at += kLine) __builtin_prefetch(from + at);
}
template <class F>
TALU_INLINE void prefetch_after(const std::byte* block) {
  prefetch<F::block_bytes(F::block)>(block + 4096);
}

// sums += several blocks, columns first .. last - 1 of a tile, times any number of rows of
// activations: panels of as many rows as possible, then fewer. The first block of a tile begins the
// sums.
template <class U, std::size_t SIZE = 0>
static void add_blocks(std::size_t tokens, const std::byte* blocks, std::size_t first,
                       std::size_t last, std::size_t columns, const std::byte* x,
                       std::size_t x_stride, float* sums, std::size_t sums_stride) {
  constexpr std::size_t TOKENS = U::panels[SIZE];
  for (; tokens >= TOKENS; tokens -= TOKENS) {
    U::template add_several<TOKENS>(
        blocks, (last - first) / U::block,
        BlockActivations::from<typename U::Row>(first, x, columns, x_stride), first == 0, sums,
        sums_stride);
    x += TOKENS * x_stride;
    sums += TOKENS * sums_stride;
  }
  if constexpr (TOKENS > 1)
    add_blocks<U, SIZE + 1>(tokens, blocks, first, last, columns, x, x_stride, sums, sums_stride);
}

// sums = a tile · x, for enough rows of activations that it pays to unpack the blocks before.
template <class F>
constexpr std::size_t kUnpackedTokens = 3 * F::panels[0];
template <class F>
static void multiply_unpacked(std::size_t tokens, const std::byte* tile, std::size_t columns,
                              const std::byte* x, std::size_t x_stride, float* sums,
                              std::size_t sums_stride) {
  using U = typename F::Unpacked;
  constexpr std::size_t kAtOnce = F::block >= 512 ? 1 : 512 / F::block;  // blocks
  alignas(64) std::byte unpacked[kAtOnce * U::block_bytes(F::block)];
  for (std::size_t begin = 0; begin < columns; begin += kAtOnce * F::block) {
    const std::size_t end = smaller(columns, begin + kAtOnce * F::block);
    std::byte* to = unpacked;
    for (std::size_t c = begin; c < end; c += F::block) {
      prefetch_after<F>(tile);
      U::unpack(tile, to);
      tile += F::block_bytes(F::block);
      to += U::block_bytes(F::block);
    }
    add_blocks<U>(tokens, unpacked, begin, end, columns, x, x_stride, sums, sums_stride);
  }
}

// sums = tiles · x, for a few rows of activations.
template <class F, std::size_t SIZE = 0>
static void multiply_few(std::size_t tokens, const std::byte* packed, std::size_t tiles,
                         std::size_t columns, const std::byte* x, std::size_t x_stride, float* sums,
                         std::size_t sums_stride) {
  constexpr std::size_t TOKENS = F::panels[SIZE];
  for (; tokens >= TOKENS; tokens -= TOKENS) {
    F::template multiply_few<TOKENS>(
        packed, block_tile_bytes<F>(columns), tiles, columns,
        BlockActivations::from<typename F::Row>(0, x, columns, x_stride), sums, sums_stride);
    x += TOKENS * x_stride;
    sums += TOKENS * sums_stride;
  }
  if constexpr (TOKENS > 1)
    multiply_few<F, SIZE + 1>(tokens, packed, tiles, columns, x, x_stride, sums, sums_stride);
}

template <class F>
static void multiply_blocks(const void* packed, std::size_t tiles, std::size_t columns,
                            const std::byte* x, std::size_t x_stride, std::size_t tokens,
                            float* sums) {
  constexpr std::size_t kStride = kTilesAtOnce * kTileRows;
  const auto* const first = static_cast<const std::byte*>(packed);
  if constexpr (Matrices<F>::available)
    if (tokens >= Matrices<F>::kFewestRows)
      return Matrices<F>::multiply_tiles(first, tiles, columns, x, x_stride, tokens, sums);
  if (!F::unpacks || tokens < kUnpackedTokens<F>)
    return multiply_few<F>(tokens, first, tiles, columns, x, x_stride, sums, kStride);
  for (std::size_t r = 0; r < tiles; ++r)
    multiply_unpacked<F>(tokens, first + r * block_tile_bytes<F>(columns), columns, x, x_stride,
                         sums + r * kTileRows, kStride);
}

template <class F>
constexpr Format format_of_blocks() {
  return {F::name,
          F::activation,
          F::source_columns,
          F::source_bytes(F::source_columns),
          0,
          block_tile_bytes<F>,
          F::Row::bytes,
          F::Row::quantize,
          pack_blocks<F>,
          dequantize_blocks<F>,
          multiply_blocks<F>,
          F::source_columns};
}
