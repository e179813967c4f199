// Formats of integers that share scales in blocks of columns, for weights and activations.
//
// A tile consists of consecutive blocks; the last one has the columns that are left. A format is a
// structure with
//   name, activation    names of the number formats of weights and activations
//   block, group        columns of a block, and columns that are multiplied at once
//   blocks_in_cache     blocks of a tile that the first cache has room for, beside activations
//   panels              numbers of rows of activations that are multiplied at once, descending
//   source_columns      of a block of the source
//   source_bytes(n)     of n columns of a row of the source
//   block_bytes(n)      size of a block of n columns of a tile
//   pack_block          writes a block from rows of the source
//   dequantize_block    computes one row of a block
//   add_block           adds the products of a block, for several rows of activations; or instead
//   multiply_few        multiplies tiles together, for a few rows of activations
//   Unpacked            optional: the same numbers in a form that is multiplied faster, with
//                       block_bytes, add_block or add_several, which adds the products of several
//                       blocks, and unpack, which makes it of a block
//   unpacks             with Unpacked: whether it is worth that for many rows of activations
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
// sums. `in_memory` says that the blocks may not be in a cache yet.
template <class F, std::size_t SIZE = 0>
static void add_blocks(std::size_t tokens, const std::byte* blocks, bool in_memory,
                       std::size_t first, std::size_t last, std::size_t columns,
                       const std::byte* x, std::size_t x_stride, float* sums,
                       std::size_t sums_stride) {
  using Row = typename F::Row;
  constexpr std::size_t TOKENS = F::panels[SIZE];
  for (; tokens >= TOKENS; tokens -= TOKENS) {
    if constexpr (requires { F::template add_several<TOKENS>; })
      F::template add_several<TOKENS>(blocks, (last - first) / F::block,
                                      BlockActivations::from<Row>(first, x, columns, x_stride),
                                      first == 0, sums, sums_stride);
    else
      for (std::size_t begin = first; begin < last; begin += F::block) {
        const std::byte* const block = blocks + (begin - first) / F::block * F::block_bytes(F::block);
        if (in_memory) prefetch_after<F>(block);
        const auto activations = BlockActivations::from<Row>(begin, x, columns, x_stride);
        const std::size_t count = round_up(smaller(F::block, last - begin), F::group);
        if (F::source_columns == F::block || count == F::block)  // no block of the source is cut
          F::template add_block<TOKENS, F::block>(block, count, activations, begin == 0, sums,
                                                  sums_stride);
        else if constexpr (F::source_columns != F::block)
          F::template add_block<TOKENS, 0>(block, count, activations, begin == 0, sums, sums_stride);
      }
    x += TOKENS * x_stride;
    sums += TOKENS * sums_stride;
    in_memory = false;
  }
  if constexpr (TOKENS > 1)
    add_blocks<F, SIZE + 1>(tokens, blocks, in_memory, first, last, columns, x, x_stride, sums,
                            sums_stride);
}

// The same for enough rows of activations that it pays to unpack the blocks before.
template <class F>
constexpr std::size_t kUnpackedTokens = 3 * F::panels[0];
template <class F>
static void add_unpacked(std::size_t tokens, const std::byte* blocks, std::size_t first,
                         std::size_t last, std::size_t columns, const std::byte* x,
                         std::size_t x_stride, float* sums, std::size_t sums_stride) {
  using U = typename F::Unpacked;
  constexpr std::size_t kAtOnce = F::block >= 512 ? 1 : 512 / F::block;  // blocks
  alignas(64) std::byte unpacked[kAtOnce * U::block_bytes(F::block)];
  for (std::size_t begin = first; begin < last; begin += kAtOnce * F::block) {
    const std::size_t end = smaller(last, begin + kAtOnce * F::block);
    std::byte* to = unpacked;
    for (std::size_t c = begin; c < end; c += F::block) {
      const std::byte* const block = blocks + (c - first) / F::block * F::block_bytes(F::block);
      prefetch_after<F>(block);
      U::unpack(block, to);
      to += U::block_bytes(F::block);
    }
    add_blocks<U>(tokens, unpacked, false, begin, end, columns, x, x_stride, sums, sums_stride);
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
  auto for_tiles = [&](auto add_tile) {
    for (std::size_t r = 0; r < tiles; ++r)
      add_tile(first + r * block_tile_bytes<F>(columns), sums + r * kTileRows);
  };
  if constexpr (Matrices<F>::available)
    if (tokens >= Matrices<F>::kFewestRows)
      return Matrices<F>::multiply_tiles(first, tiles, columns, x, x_stride, tokens, sums);
  if constexpr (requires { typename F::Unpacked; })
    if (F::unpacks && tokens >= kUnpackedTokens<F>)
      return for_tiles([&](const std::byte* tile, float* to) {
        add_unpacked<F>(tokens, tile, 0, columns, columns, x, x_stride, to, kStride);
      });
  if constexpr (requires { F::template multiply_few<1>; })
    return multiply_few<F>(tokens, first, tiles, columns, x, x_stride, sums, kStride);
  else
    for_tiles([&](const std::byte* tile, float* to) {
      constexpr std::size_t kColumns = F::blocks_in_cache * F::block;
      for (std::size_t begin = 0; begin < columns; begin += kColumns)
        add_blocks<F>(tokens, tile + begin / F::block * F::block_bytes(F::block), true, begin,
                      smaller(columns, begin + kColumns), columns, x, x_stride, to, kStride);
    });
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
