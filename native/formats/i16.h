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
  static constexpr char name[] = "i16", activation[] = "i15";
  static constexpr std::size_t group = 4;
  static constexpr std::size_t block = 128;
  static constexpr std::size_t blocks_in_cache = 4;
  using Integers = std::int16_t;
  // Both are at most 16383, so that a sum of two fits 16 bits, and the weights of a block sum to at
  // most 2^17, including rounding: no sum of products in a block exceeds 32 bits.
  static constexpr float kLargest = 16383.0f;
  static constexpr double kAllWeights = 131072.0 - block / 2.0;
  // A smaller scale becomes zero, and so does its block, so that the inverse stays finite.
  static constexpr float kSmallestScale = 1e-30f;

  // A block begins with sixteen scales and sixteen sums of w0 w1 with the sign changed. Of four
  // columns, first the even ones of all sixteen rows, then the odd ones.
  static constexpr std::size_t kHeaderBytes = kTileRows * (sizeof(float) + sizeof(std::int32_t));
  static constexpr std::size_t block_bytes(std::size_t columns) {
    return kHeaderBytes + round_up(columns, group) * kTileRows * sizeof(std::int16_t);
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
    return (scale < kSmallestScale ? 0.0f : scale) + finite;
  }

  static void pack_block(const float* from, std::size_t stride, std::size_t rows,
                         std::size_t columns, std::byte* out) {
    auto* const scales = reinterpret_cast<float*>(out);
    auto* const crossed = reinterpret_cast<std::int32_t*>(scales + kTileRows);
    auto* const numbers = reinterpret_cast<std::int16_t*>(out + kHeaderBytes);
    for (std::size_t lane = 0; lane < rows; ++lane, from += stride) {
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

  // The integers have the order of a tile; the sum is that of x0 x1, with the sign changed.
  static void quantize_block(const float* x, std::size_t columns, Integers* numbers, float& scale,
                             std::int32_t& crossed) {
    f32x16 sizes = splat(0.0f);
    for_columns(columns, [&](std::size_t c, std::size_t n) {
      sizes = larger_size(sizes, load_some(x + c, n));
    });
    const float step = largest(sizes) / kLargest;
    const bool none = step < kSmallestScale;
    const f32x16 inverse = splat(none ? 0.0f : 1.0f / step);
    scale = (none ? 0.0f : step) + sum(multiply(sizes, splat(0.0f)));
    for_columns(columns, [&](std::size_t c, std::size_t n) {
      store_i16(numbers + c, multiply(load_some(x + c, n), inverse));
    });
    crossed = crossed_sum(numbers, columns);
  }

  // COLUMNS is the number of columns if it is known, else 0. If inlined, GCC would have no registers
  // left for the sums.
  template <std::size_t TOKENS, std::size_t COLUMNS>
  [[gnu::noinline]] static void add_block(const std::byte* block, std::size_t columns,
                                          const BlockActivations& x, bool first, float* sums,
                                          std::size_t sums_stride) {
    const auto* const weights = reinterpret_cast<const std::int16_t*>(block + kHeaderBytes);
    const std::byte *const integers = x.integers, *const scale = x.scale;
    const std::size_t stride = x.stride;
    if constexpr (COLUMNS != 0) columns = COLUMNS;
    i32x16 sum[TOKENS];
#pragma GCC unroll 12
    for (std::size_t t = 0; t < TOKENS; ++t)
      sum[t] = first_sum(block + kTileRows * sizeof(float), scale + x.to_sum + t * stride);
#pragma GCC unroll 2
    for (std::size_t column = 0; column < columns; column += group)
      add_products(weights + column * kTileRows, integers + column * sizeof(Integers), stride, sum);
    const f32x16 scales = load(reinterpret_cast<const float*>(block));
#pragma GCC unroll 12
    for (std::size_t t = 0; t < TOKENS; ++t) {
      float* const to = sums + t * sums_stride;
      const f32x16 both =
          multiply(scales, splat(*reinterpret_cast<const float*>(scale + t * stride)));
      store(to, fma(to_floats(sum[t]), both, first ? splat(0.0f) : load(to)));
    }
  }
};
