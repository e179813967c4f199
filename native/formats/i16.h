// 16-bit integers with one scale for each block of columns in a row, for weights and activations.
// Products are summed exactly in 32 bits, block by block; the blocks are scaled and added as floats.
//
// A target with crossed products gets two products of two columns from one multiplication, because
//   x0 w0 + x1 w1 = (x0 + w1)(x1 + w0) - x0 x1 - w0 w1
// and the last two are precomputed: S. Winograd, A New Algorithm for Inner Product, IEEE
// Transactions on Computers C-17 (1968). Wrap-around does not change the result.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
struct i16 {
  static constexpr char name[] = "i16";
  static constexpr std::size_t group = 4;    // columns multiplied at once
  static constexpr std::size_t block = 128;  // columns that share a scale
  // Both are at most 16383, so that a sum of two fits 16 bits, and the weights of a block sum to at
  // most 2^17, including rounding: no sum of products in a block exceeds 32 bits.
  static constexpr float kLargest = 16383.0f;
  static constexpr double kAllWeights = 131072.0 - block / 2.0;
  // A smaller scale becomes zero, and so does its block, so that the inverse stays finite.
  static constexpr float kSmallestScale = 1e-30f;

  // A tile consists of consecutive blocks: sixteen scales, sixteen sums of w0 w1 with the sign
  // changed, then the integers. The last block has the columns that are left, rounded up to a group.
  static constexpr std::size_t kHeaderBytes = kTileRows * (sizeof(float) + sizeof(std::int32_t));
  static std::size_t block_bytes(std::size_t columns) {
    return kHeaderBytes + round_up(columns, group) * kTileRows * sizeof(std::int16_t);
  }
  static std::size_t tile_bytes(std::size_t columns) {
    const std::size_t whole = columns / block * block_bytes(block);
    return columns % block == 0 ? whole : whole + block_bytes(columns % block);
  }
  // Of four columns, first the even ones of all sixteen rows, then the odd ones.
  static std::size_t place(std::size_t column, std::size_t lane) {
    return column / group * group * kTileRows + column % 2 * 2 * kTileRows + lane * 2 +
           column % group / 2;
  }
  // A row of activations consists of the scales of its blocks, their sums of x0 x1 with the sign
  // changed, then the integers in the order of a tile.
  static std::size_t row_blocks(std::size_t columns) {
    return round_up((columns + block - 1) / block, kTileRows);
  }
  static std::size_t row_header_bytes(std::size_t columns) {
    return row_blocks(columns) * (sizeof(float) + sizeof(std::int32_t));
  }
  static std::size_t row_bytes(std::size_t columns) {
    return row_header_bytes(columns) + round_up(columns, kTileRows) * sizeof(std::int16_t);
  }
};

// NaN if one of the weights is not finite.
TALU_INLINE float scale_of_weights(const float* weights, std::size_t columns) {
  float largest = 0.0f, finite = 0.0f;
  double all = 0.0;
  for (std::size_t c = 0; c < columns; ++c) {
    const float size = __builtin_fabsf(weights[c]);
    largest = size > largest ? size : largest;
    all += static_cast<double>(size);
    finite += weights[c] * 0.0f;
  }
  const float by_one = largest / i16::kLargest;
  const float by_all = static_cast<float>(all / i16::kAllWeights);
  const float scale = by_one > by_all ? by_one : by_all;
  return (scale < i16::kSmallestScale ? 0.0f : scale) + finite;
}

static void pack_integers(const void* source, std::size_t rows, std::size_t columns,
                          std::size_t first, std::size_t last, void* packed) {
  auto* out = static_cast<std::byte*>(packed) + first * i16::tile_bytes(columns);
  for (std::size_t tile = first; tile < last; ++tile)
    for (std::size_t begin = 0; begin < columns; begin += i16::block) {
      const std::size_t count = smaller(i16::block, columns - begin);
      auto* const scales = reinterpret_cast<float*>(out);
      auto* const crossed = reinterpret_cast<std::int32_t*>(scales + kTileRows);
      auto* const numbers = reinterpret_cast<std::int16_t*>(out + i16::kHeaderBytes);
      __builtin_memset(out, 0, i16::block_bytes(count));
      out += i16::block_bytes(count);
      for (std::size_t lane = 0; lane < smaller(kTileRows, rows - tile * kTileRows); ++lane) {
        const float* const from = static_cast<const float*>(source) +
                                  (tile * kTileRows + lane) * columns + begin;
        scales[lane] = scale_of_weights(from, count);
        if (!(scales[lane] > 0.0f)) continue;
        const float inverse = 1.0f / scales[lane];
        for (std::size_t c = 0; c < count; ++c)
          numbers[i16::place(c, lane)] =
              static_cast<std::int16_t>(__builtin_nearbyintf(from[c] * inverse));
        for (std::size_t c = 0; c < count; c += 2)
          crossed[lane] -= numbers[i16::place(c, lane)] * numbers[i16::place(c + 1, lane)];
      }
    }
}

static void dequantize_integers(const void* packed, std::size_t row, std::size_t columns, float* out) {
  const auto* block = static_cast<const std::byte*>(packed) +
                      row / kTileRows * i16::tile_bytes(columns);
  const std::size_t lane = row % kTileRows;
  for (std::size_t begin = 0; begin < columns; begin += i16::block) {
    const std::size_t count = smaller(i16::block, columns - begin);
    const float scale = reinterpret_cast<const float*>(block)[lane];
    const auto* const numbers = reinterpret_cast<const std::int16_t*>(block + i16::kHeaderBytes);
    for (std::size_t c = 0; c < count; ++c)
      out[begin + c] = static_cast<float>(numbers[i16::place(c, lane)]) * scale;
    block += i16::block_bytes(count);
  }
}

static void quantize_integers(const float* x, std::size_t columns, void* out) {
  auto* const scales = static_cast<float*>(out);
  auto* const crossed = reinterpret_cast<std::int32_t*>(scales + i16::row_blocks(columns));
  auto* const numbers = reinterpret_cast<std::int16_t*>(crossed + i16::row_blocks(columns));
  for (std::size_t begin = 0; begin < columns; begin += i16::block) {
    const std::size_t count = smaller(i16::block, columns - begin);
    f32x16 sizes = splat(0.0f);
    for_columns(count, [&](std::size_t c, std::size_t n) {
      sizes = larger_size(sizes, load_some(x + begin + c, n));
    });
    const float scale = largest(sizes) / i16::kLargest;
    const bool none = scale < i16::kSmallestScale;
    const f32x16 inverse = splat(none ? 0.0f : 1.0f / scale);
    scales[begin / i16::block] = (none ? 0.0f : scale) + sum(multiply(sizes, splat(0.0f)));
    for_columns(count, [&](std::size_t c, std::size_t n) {
      store_i16(numbers + begin + c, multiply(load_some(x + begin + c, n), inverse));
    });
    crossed[begin / i16::block] = crossed_sum(numbers + begin, count);
  }
}

// sums[token] += block of a tile · x, or = for the first block. `x` is the first token's integers,
// `header` the scale of its block, its crossed sum `to_crossed` bytes further. COLUMNS is the number
// of columns if it is known, else 0. If inlined, GCC would have no registers left for the sums.
template <std::size_t TOKENS, std::size_t COLUMNS>
[[gnu::noinline]] static void add_block(const std::byte* block, std::size_t columns,
                                        const std::byte* x, const std::byte* header,
                                        std::size_t to_crossed, std::size_t x_stride, bool first,
                                        float* sums, std::size_t sums_stride) {
  const auto* const weights = reinterpret_cast<const std::int16_t*>(block + i16::kHeaderBytes);
  if constexpr (COLUMNS != 0) columns = COLUMNS;
  i32x16 sum[TOKENS];
#pragma GCC unroll 12
  for (std::size_t t = 0; t < TOKENS; ++t)
    sum[t] = first_sum(block + kTileRows * sizeof(float), header + to_crossed + t * x_stride);
#pragma GCC unroll 2
  for (std::size_t column = 0; column < columns; column += i16::group)
    add_products(weights + column * kTileRows, x + column * sizeof(std::int16_t), x_stride, sum);
  const f32x16 scales = load(reinterpret_cast<const float*>(block));
#pragma GCC unroll 12
  for (std::size_t t = 0; t < TOKENS; ++t) {
    float* const to = sums + t * sums_stride;
    const f32x16 both =
        multiply(scales, splat(*reinterpret_cast<const float*>(header + t * x_stride)));
    store(to, fma(to_floats(sum[t]), both, first ? splat(0.0f) : load(to)));
  }
}

// The same for several blocks, columns first .. last - 1 of a tile, and any number of tokens: panels
// of as many tokens as possible, then fewer.
template <std::size_t SIZE = 0>
static void add_blocks(std::size_t tokens, const std::byte* tile, std::size_t first,
                       std::size_t last, std::size_t columns, const std::byte* x,
                       std::size_t x_stride, float* sums, std::size_t sums_stride) {
  constexpr std::size_t TOKENS = kIntegerPanels[SIZE];
  const std::size_t numbers = i16::row_header_bytes(columns), to_crossed = numbers / 2;
  for (; tokens >= TOKENS; tokens -= TOKENS) {
    for (std::size_t begin = first; begin < last; begin += i16::block) {
      const std::byte* const block = tile + begin / i16::block * i16::block_bytes(i16::block);
      const std::byte* const integers = x + numbers + begin * sizeof(std::int16_t);
      const std::byte* const header = x + begin / i16::block * sizeof(float);
      const std::size_t count = round_up(smaller(i16::block, last - begin), i16::group);
      if (count == i16::block)
        add_block<TOKENS, i16::block>(block, count, integers, header, to_crossed, x_stride,
                                      begin == 0, sums, sums_stride);
      else
        add_block<TOKENS, 0>(block, count, integers, header, to_crossed, x_stride, begin == 0,
                             sums, sums_stride);
    }
    x += TOKENS * x_stride;
    sums += TOKENS * sums_stride;
  }
  if constexpr (TOKENS > 1)
    add_blocks<SIZE + 1>(tokens, tile, first, last, columns, x, x_stride, sums, sums_stride);
}

static void multiply_integers(const void* packed, std::size_t tiles, std::size_t columns,
                              const std::byte* x, std::size_t x_stride, std::size_t tokens,
                              float* sums) {
  constexpr std::size_t kStride = kTilesAtOnce * kTileRows;
  constexpr std::size_t kColumns = 4 * i16::block;  // of a tile, that the first cache has room for
  for (std::size_t r = 0; r < tiles; ++r) {
    const auto* const tile = static_cast<const std::byte*>(packed) + r * i16::tile_bytes(columns);
    for (std::size_t begin = 0; begin < columns; begin += kColumns)
      add_blocks(tokens, tile, begin, smaller(columns, begin + kColumns), columns, x, x_stride,
                 sums + r * kTileRows, kStride);
  }
}

constexpr Format kI16 = {i16::name,           "i15",           sizeof(float), 0,
                         i16::tile_bytes,     i16::row_bytes,  quantize_integers,
                         pack_integers,       dequantize_integers,   multiply_integers};
