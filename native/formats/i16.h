// 16-bit integers with one scale for each block of columns in a row, for weights and activations.
// Products are summed exactly in 32 bits, block by block; the blocks are scaled and added as floats.
//
// A target with crossed products gets two products of two columns from one multiplication, because
//   x0 w0 + x1 w1 = (x0 + w1)(x1 + w0) - x0 x1 - w0 w1
// and the last two are precomputed: S. Winograd, A New Algorithm for Inner Product, IEEE
// Transactions on Computers C-17 (1968). Wrap-around does not change the result.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.

// A scale and a sum for each block. The integers have the order of a tile; the sum is that of x0 x1,
// with the sign changed.
struct I15Row : IntegerRow<std::int16_t, 128, 128> {
  static constexpr float kLargest = 16383.0f;
  // A smaller scale becomes zero, and so does its block, so that the inverse stays finite.
  static constexpr float kSmallestScale = 1e-30f;

  static void quantize(const float* x, std::size_t columns, void* out) {
    auto* const scales = static_cast<float*>(out);
    auto* const sums =
        reinterpret_cast<std::int32_t*>(static_cast<std::byte*>(out) + sums_at(columns));
    auto* const integers =
        reinterpret_cast<Integer*>(static_cast<std::byte*>(out) + integers_at(columns));
    for (std::size_t begin = 0; begin < columns; begin += scaled) {
      const std::size_t count = smaller(scaled, columns - begin);
      f32x16 sizes = splat(0.0f);
      for_columns(count, [&](std::size_t c, std::size_t n) {
        sizes = larger_size(sizes, load_some(x + begin + c, n));
      });
      const float step = largest(sizes) / kLargest;
      const bool none = step < kSmallestScale;
      const f32x16 inverse = splat(none ? 0.0f : 1.0f / step);
      scales[begin / scaled] = (none ? 0.0f : step) + sum(multiply(sizes, splat(0.0f)));
      for_columns(count, [&](std::size_t c, std::size_t n) {
        store_i16(integers + begin + c, multiply(load_some(x + begin + c, n), inverse));
      });
      sums[begin / summed] = crossed_sum(integers + begin, count);
    }
  }
};

struct i16 {
  static constexpr char name[] = "i16", activation[] = "i15";
  static constexpr std::size_t group = 4;
  static constexpr std::size_t block = 128;
  static constexpr std::size_t blocks_in_cache = 4;
  static constexpr std::size_t source_columns = 1;
  using Row = I15Row;
  // Both are at most 16383, so that a sum of two fits 16 bits, and the weights of a block sum to at
  // most 2^17, including rounding: no sum of products in a block exceeds 32 bits.
  static constexpr float kLargest = Row::kLargest;
  static constexpr double kAllWeights = 131072.0 - block / 2.0;

  // A block begins with sixteen scales and sixteen sums of w0 w1 with the sign changed. Of four
  // columns, first the even ones of all sixteen rows, then the odd ones.
  static constexpr std::size_t kHeaderBytes = kTileRows * (sizeof(float) + sizeof(std::int32_t));
  static constexpr std::size_t block_bytes(std::size_t columns) {
    return kHeaderBytes + round_up(columns, group) * kTileRows * sizeof(std::int16_t);
  }
  static constexpr std::size_t source_bytes(std::size_t columns) {
    return columns * sizeof(float);
  }
  static std::size_t place(std::size_t column, std::size_t lane) {
    return column / group * group * kTileRows + column % 2 * 2 * kTileRows + lane * 2 +
           column % group / 2;
  }

  // NaN if one of the weights is not finite.
  static float scale_of(const float* weights, std::size_t columns) {
    float largest = 0.0f, finite = 0.0f;
    double all = 0.0;
    for (std::size_t c = 0; c < columns; ++c) {
      const float size = __builtin_fabsf(weights[c]);
      largest = size > largest ? size : largest;
      all += static_cast<double>(size);
      finite += weights[c] * 0.0f;
    }
    const float by_one = largest / kLargest;
    const float by_all = static_cast<float>(all / kAllWeights);
    const float scale = by_one > by_all ? by_one : by_all;
    return (scale < Row::kSmallestScale ? 0.0f : scale) + finite;
  }

  static void pack_block(const std::byte* source, std::size_t stride, std::size_t rows,
                         std::size_t columns, std::byte* out) {
    auto* const scales = reinterpret_cast<float*>(out);
    auto* const crossed = reinterpret_cast<std::int32_t*>(scales + kTileRows);
    auto* const numbers = reinterpret_cast<std::int16_t*>(out + kHeaderBytes);
    for (std::size_t lane = 0; lane < rows; ++lane, source += stride) {
      const auto* const from = reinterpret_cast<const float*>(source);
      scales[lane] = scale_of(from, columns);
      if (!(scales[lane] > 0.0f)) continue;
      const float inverse = 1.0f / scales[lane];
      for (std::size_t c = 0; c < columns; ++c)
        numbers[place(c, lane)] =
            static_cast<std::int16_t>(__builtin_nearbyintf(from[c] * inverse));
      for (std::size_t c = 0; c < columns; c += 2)
        crossed[lane] -= numbers[place(c, lane)] * numbers[place(c + 1, lane)];
    }
  }

  static void dequantize_block(const std::byte* block, std::size_t lane, std::size_t columns,
                               float* out) {
    const float scale = reinterpret_cast<const float*>(block)[lane];
    const auto* const numbers = reinterpret_cast<const std::int16_t*>(block + kHeaderBytes);
    for (std::size_t c = 0; c < columns; ++c)
      out[c] = static_cast<float>(numbers[place(c, lane)]) * scale;
  }

  // Several rows of activations times the blocks of several tiles that begin at the same column. If
  // inlined, GCC would have no registers left for the sums.
  template <std::size_t TOKENS, std::size_t TILES>
  [[gnu::noinline]] static void add_block(const std::byte* const (&blocks)[TILES],
                                          std::size_t columns, const BlockActivations& x,
                                          bool first, float* sums, std::size_t sums_stride) {
    const std::int16_t* weights[TILES];
    i32x16 sum[TOKENS][TILES];
#pragma GCC unroll 2
    for (std::size_t r = 0; r < TILES; ++r) {
      weights[r] = reinterpret_cast<const std::int16_t*>(blocks[r] + kHeaderBytes);
#pragma GCC unroll 12
      for (std::size_t t = 0; t < TOKENS; ++t)
        sum[t][r] = first_sum(blocks[r] + kTileRows * sizeof(float), x.sums + t * x.stride);
    }
    add_products(weights, columns, x.integers, x.stride, sum);
#pragma GCC unroll 2
    for (std::size_t r = 0; r < TILES; ++r) {
      const f32x16 scales = load(reinterpret_cast<const float*>(blocks[r]));
#pragma GCC unroll 12
      for (std::size_t t = 0; t < TOKENS; ++t) {
        float* const to = sums + t * sums_stride + r * kTileRows;
        const f32x16 both = multiply(scales, splat(x.scale(t)));
        store(to, fma(to_floats(sum[t][r]), both, first ? splat(0.0f) : load(to)));
      }
    }
  }

  // sums += the columns first .. last - 1 of some tiles, times any number of rows of activations:
  // panels of as many rows as possible, then fewer. `in_memory` says that the tiles may not be in a
  // cache yet.
  template <std::size_t TILES, std::size_t SIZE = 0>
  static void add_panels(std::size_t tokens, const std::byte* const (&tiles)[TILES], bool in_memory,
                         std::size_t first, std::size_t last, std::size_t columns,
                         const std::byte* x, std::size_t x_stride, float* sums,
                         std::size_t sums_stride) {
    constexpr std::size_t TOKENS = kIntegerPanels[SIZE];
    for (; tokens >= TOKENS; tokens -= TOKENS) {
      for (std::size_t begin = first; begin < last; begin += block) {
        const std::byte* blocks[TILES];
        for (std::size_t r = 0; r < TILES; ++r) {
          blocks[r] = tiles[r] + (begin - first) / block * block_bytes(block);
          if (in_memory) prefetch_after<i16>(blocks[r]);
        }
        const BlockActivations activations = {
            x + Row::integers_at(columns) + begin * sizeof(Row::Integer),
            x + begin / block * sizeof(float),
            x + Row::sums_at(columns) + begin / block * sizeof(std::int32_t), x_stride};
        add_block<TOKENS, TILES>(blocks, round_up(smaller(block, last - begin), group), activations,
                                 begin == 0, sums, sums_stride);
      }
      x += TOKENS * x_stride;
      sums += TOKENS * sums_stride;
      in_memory = false;
    }
    if constexpr (TOKENS > 1)
      add_panels<TILES, SIZE + 1>(tokens, tiles, in_memory, first, last, columns, x, x_stride, sums,
                                  sums_stride);
  }

  // See Format.
  static void multiply_tiles(const void* packed, std::size_t tiles, std::size_t columns,
                             const std::byte* x, std::size_t x_stride, std::size_t tokens,
                             float* sums) {
    const auto* const from = static_cast<const std::byte*>(packed);
    std::size_t r = 0;
    for (; r + kIntegerTiles <= tiles; r += kIntegerTiles)
      multiply_some<kIntegerTiles>(from, r, columns, x, x_stride, tokens, sums);
    for (; r < tiles; ++r) multiply_some<1>(from, r, columns, x, x_stride, tokens, sums);
  }
  template <std::size_t TILES>
  static void multiply_some(const std::byte* packed, std::size_t tile, std::size_t columns,
                            const std::byte* x, std::size_t x_stride, std::size_t tokens,
                            float* sums) {
    constexpr std::size_t kColumns = blocks_in_cache * block;
    for (std::size_t begin = 0; begin < columns; begin += kColumns) {
      const std::byte* tiles[TILES];
      for (std::size_t r = 0; r < TILES; ++r)
        tiles[r] = packed + (tile + r) * block_tile_bytes<i16>(columns) +
                   begin / block * block_bytes(block);
      add_panels<TILES>(tokens, tiles, true, begin, smaller(columns, begin + kColumns), columns, x,
                        x_stride, sums + tile * kTileRows, kTilesAtOnce * kTileRows);
    }
  }
};

template <class F>
static void multiply_integers(const void* packed, std::size_t tiles, std::size_t columns,
                              const std::byte* x, std::size_t x_stride, std::size_t tokens,
                              float* sums) {
  if constexpr (Matrices<F>::available)
    if (tokens >= Matrices<F>::kFewestRows)
      return Matrices<F>::multiply_tiles(static_cast<const std::byte*>(packed), tiles, columns, x,
                                         x_stride, tokens, sums);
  F::multiply_tiles(packed, tiles, columns, x, x_stride, tokens, sums);
}

template <class F>
constexpr Format format_of_integers() {
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
          multiply_integers<F>};
}
