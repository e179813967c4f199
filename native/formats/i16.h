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
  static constexpr auto& panels = kIntegerPanels;
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

  // COLUMNS is the number of columns if it is known, else 0. If inlined, GCC would have no registers
  // left for the sums.
  template <std::size_t TOKENS, std::size_t COLUMNS>
  [[gnu::noinline]] static void add_block(const std::byte* block, std::size_t columns,
                                          const BlockActivations& x, bool first, float* sums,
                                          std::size_t sums_stride) {
    const auto* const weights = reinterpret_cast<const std::int16_t*>(block + kHeaderBytes);
    const std::byte *const integers = x.integers, *const sums_of_x = x.sums;
    const std::size_t stride = x.stride;
    if constexpr (COLUMNS != 0) columns = COLUMNS;
    i32x16 sum[TOKENS];
#pragma GCC unroll 12
    for (std::size_t t = 0; t < TOKENS; ++t)
      sum[t] = first_sum(block + kTileRows * sizeof(float), sums_of_x + t * stride);
#pragma GCC unroll 2
    for (std::size_t column = 0; column < columns; column += group)
      add_products(weights + column * kTileRows, integers + column * sizeof(Row::Integer), stride, sum);
    const f32x16 scales = load(reinterpret_cast<const float*>(block));
#pragma GCC unroll 12
    for (std::size_t t = 0; t < TOKENS; ++t) {
      float* const to = sums + t * sums_stride;
      const f32x16 both = multiply(scales, splat(x.scale(t)));
      store(to, fma(to_floats(sum[t]), both, first ? splat(0.0f) : load(to)));
    }
  }
};
