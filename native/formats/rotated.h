// Formats of rotated weights: each 64 columns of weights and of activations are multiplied by an
// orthonormal Hadamard matrix, which spreads outliers and keeps the products of rows. All products
// of a row with one row of activations are then summed exactly, as integers.
//   r4  4-bit codes with an integer scale and minimum for 32 columns and a float for a row:
//       weight = unit · (scale · code - 8 · minimum)
//   r8  8-bit codes with a float for a row: weight = unit · (code - 128)
//
// A description is a structure with
//   name, bits     of the codes
//   integers       whether 32 columns have a scale and a minimum
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.

constexpr std::size_t kRotated = 64;  // columns of a block, which are rotated together
constexpr std::size_t kScaled = 32;   // columns with one scale and one minimum
// Scales are at most 127, and eight minimums at most 15 scales. A product of codes of r4 with
// activations is at most 15 · 127, so a sum of 32 columns is at most 15 · 127 · 127 · 32 < 2^23; of
// r8, 255 · 127 · 32 < 2^20. Sums of 8192 columns, 256 times as many, fit in 32 bits. They are then
// converted to floats and added in order.
constexpr int kLargestScale = 127, kMinimumUnit = 8;
constexpr std::size_t kSummedColumns = 8192;

// The same additions in the same order on every target.
TALU_INLINE void rotate(f32x16 (&x)[4]) {
  for (f32x16& v : x) v = butterfly<1>(butterfly<2>(butterfly<4>(butterfly<8>(v))));
  const f32x16 a = add(x[0], x[1]), b = subtract(x[0], x[1]);
  const f32x16 c = add(x[2], x[3]), d = subtract(x[2], x[3]);
  x[0] = add(a, c);
  x[1] = add(b, d);
  x[2] = subtract(a, c);
  x[3] = subtract(b, d);
}
constexpr float kNorm = 0.125f;  // makes the rotation orthonormal
// `out` may be `x`.
static void rotate_block(const float* x, float* out) {
  f32x16 block[4];
  for (std::size_t i = 0; i < 4; ++i) block[i] = load(x + i * kTileRows);
  rotate(block);
  for (std::size_t i = 0; i < 4; ++i)
    store(out + i * kTileRows, multiply(block[i], splat(kNorm)));
}

// Rotated activations in 8 bits: one scale for the row; sums of 32 integers in 16 bits; the integers.
struct RotatedRow {
  static constexpr float kSmallestScale = 1e-30f;  // a smaller one becomes zero
  static constexpr std::size_t kSumsAt = 64;

  static std::size_t integers_at(std::size_t columns) {
    return kSumsAt + round_up(columns / kScaled * sizeof(std::int16_t), 64);
  }
  static std::size_t bytes(std::size_t columns) {
    return integers_at(columns) + round_up(columns, kRotated);
  }
  static void quantize(const float* x, std::size_t columns, void* out) {
    auto* const sums =
        reinterpret_cast<std::int16_t*>(static_cast<std::byte*>(out) + kSumsAt);
    auto* const integers =
        reinterpret_cast<std::int8_t*>(static_cast<std::byte*>(out) + integers_at(columns));
    f32x16 sizes = splat(0.0f);
    for (std::size_t begin = 0; begin < columns; begin += kRotated) {
      f32x16 block[4];
      for (std::size_t i = 0; i < 4; ++i) block[i] = load(x + begin + i * kTileRows);
      rotate(block);
      for (const f32x16& v : block) sizes = larger_size(sizes, v);
    }
    const float step = largest(sizes) / 127.0f;
    const bool none = step < kSmallestScale;
    const f32x16 inverse = splat(none ? 0.0f : 1.0f / step);
    *static_cast<float*>(out) =
        (none ? 0.0f : step * kNorm) + sum(multiply(sizes, splat(0.0f)));
    for (std::size_t begin = 0; begin < columns; begin += kRotated) {
      f32x16 block[4];
      for (std::size_t i = 0; i < 4; ++i) block[i] = load(x + begin + i * kTileRows);
      rotate(block);
      for (std::size_t i = 0; i < 4; ++i)
        store_i8(integers + begin + i * kTileRows, multiply(block[i], inverse));
      for (std::size_t half = 0; half < 2; ++half) {
        int total = 0;
        for (std::size_t c = 0; c < kScaled; ++c) total += integers[begin + half * kScaled + c];
        sums[begin / kScaled + half] = static_cast<std::int16_t>(total);
      }
    }
  }
};

// A tile begins with the sixteen floats of its rows. A block of 64 columns follows after the other:
// sixteen scales of its first 32 columns, sixteen of its second; pairs of minimums of the rows; the
// planes of the codes, as in codes.h.
template <class D>
struct Rotated {
  static constexpr std::size_t kHeader = kTileRows * sizeof(float);
  static constexpr std::size_t kMinimums = 2 * kTileRows, kPlanes = D::integers ? 4 * kTileRows : 0;
  static constexpr std::size_t kGroupBytes = 4 * kTileRows * D::bits / 8;  // four columns
  static constexpr std::size_t kBlock = kPlanes + kRotated / 4 * kGroupBytes;
  static constexpr int kOffset = D::integers ? 0 : 1 << (D::bits - 1);
  static constexpr int kLargest = (1 << D::bits) - 1;
  static constexpr bool kWide = kLargest > kLargestCode;  // multiplied as signed numbers, less 128
  static constexpr int kExcess = kOffset - (kWide ? 128 : 0);

  static std::size_t tile_bytes(std::size_t columns) {
    return kHeader + columns / kRotated * kBlock;
  }

  // Byte and shift of a code within a block.
  struct Place {
    std::size_t byte, shift;
  };
  static Place place(std::size_t column, std::size_t lane) {
    const std::size_t half = column / 4 * 2 + lane / 8, in_vector = 8 / D::bits;
    return {kPlanes + half / in_vector * 32 + lane % 8 * 4 + column % 4,
            half % in_vector * static_cast<std::size_t>(D::bits)};
  }
  static unsigned code(const std::byte* block, std::size_t column, std::size_t lane) {
    const Place at = place(column, lane);
    return static_cast<unsigned>(block[at.byte]) >> at.shift & kLargest;
  }
  // A weight before its rotation, in units of the row: an integer below 2^11.
  static int integer(const std::byte* block, std::size_t column, std::size_t lane) {
    const int value = static_cast<int>(code(block, column, lane)) - kOffset;
    if constexpr (!D::integers) return value;
    const std::size_t half = column / kScaled;
    return static_cast<int>(block[half * kTileRows + lane]) * value -
           kMinimumUnit * static_cast<int>(block[kMinimums + lane * 2 + half]);
  }

  static void dequantize_row(const void* packed, std::size_t row, std::size_t columns,
                             float* out) {
    const auto* const tile =
        static_cast<const std::byte*>(packed) + row / kTileRows * tile_bytes(columns);
    const std::size_t lane = row % kTileRows;
    const f32x16 unit = splat(reinterpret_cast<const float*>(tile)[lane]);
    for (std::size_t begin = 0; begin < columns; begin += kRotated) {
      const std::byte* const block = tile + kHeader + begin / kRotated * kBlock;
      for (std::size_t c = 0; c < kRotated; ++c)
        out[begin + c] = static_cast<float>(integer(block, c, lane));
      rotate_block(out + begin, out + begin);  // exact: integers below 2^17, divided by 8
      for (std::size_t c = 0; c < kRotated; c += kTileRows)
        store(out + begin + c, multiply(load(out + begin + c), unit));
    }
  }

  // sums[token] += the products of 32 columns.
  template <std::size_t TOKENS>
  [[gnu::always_inline]] static void add_part(const std::byte* block, std::size_t part,
                                              const std::byte* x, std::size_t stride,
                                              i32x16 (&sums)[TOKENS]) {
    constexpr std::size_t groups = kScaled / 4;
    constexpr std::size_t at_once = smaller(groups, groups_before_overflow(kLargest));
    if constexpr (kWide) {
#pragma GCC unroll kUnrolledGroups
      for (std::size_t g = 0; g < groups; ++g) {
        const auto w = less_128(load_codes<D::bits>(block + kPlanes, part * groups + g));
#pragma GCC unroll 12
        for (std::size_t t = 0; t < TOKENS; ++t)
          sums[t] = add_signed(w, x + t * stride + g * 4, sums[t]);
      }
    } else {
#pragma GCC unroll kUnrolledGroups
      for (std::size_t begin = 0; begin < groups; begin += at_once) {
        partial products[TOKENS];
#pragma GCC unroll 12
        for (std::size_t t = 0; t < TOKENS; ++t) products[t] = no_products();
#pragma GCC unroll kUnrolledGroups
        for (std::size_t g = begin; g < begin + at_once; ++g) {
          const codes w = load_codes<D::bits>(block + kPlanes, part * groups + g);
#pragma GCC unroll 12
          for (std::size_t t = 0; t < TOKENS; ++t)
            products[t] = add_codes(w, x + t * stride + g * 4, products[t]);
        }
#pragma GCC unroll 12
        for (std::size_t t = 0; t < TOKENS; ++t)
          if constexpr (D::integers)
            sums[t] = add(sums[t], scaled(products[t], load_scales(block + part * kTileRows)));
          else
            sums[t] = add(sums[t], widen(products[t]));
      }
    }
  }

  // sums[token] += the products of a block: `x` are its integers, `sums_of_x` the pairs of their sums.
  template <std::size_t TOKENS>
  [[gnu::always_inline]] static void add_block(const std::byte* block, const std::byte* x,
                                               const std::byte* sums_of_x, std::size_t stride,
                                               i32x16 (&sums)[TOKENS]) {
#pragma GCC unroll 1
    for (std::size_t part = 0; part < kRotated / kScaled; ++part)
      add_part<TOKENS>(block, part, x + part * kScaled, stride, sums);
    if constexpr (D::integers) {
      const pairs minimums = load_pairs<-kMinimumUnit>(block + kMinimums);
#pragma GCC unroll 12
      for (std::size_t t = 0; t < TOKENS; ++t)
        sums[t] = add_pairs(sums[t], minimums, sums_of_x + t * stride);
    }
  }

  // What all codes of these columns are too large by, times the activations.
  static std::int32_t excess(const std::byte* sums_of_x, std::size_t columns) {
    std::int32_t total = 0;
    for (std::size_t part = 0; part < columns / kScaled; ++part)
      total += reinterpret_cast<const std::int16_t*>(sums_of_x)[part];
    return kExcess * total;
  }

  // sums = TILES tiles · x, for TOKENS rows of activations. The tiles advance together: the processor
  // reads several streams from memory faster than one. `in_memory` says that they may not be in a cache.
  template <std::size_t TOKENS, std::size_t TILES>
  [[gnu::noinline]] static void multiply_panel(const std::byte* tiles, bool in_memory,
                                               std::size_t columns, const std::byte* x,
                                               std::size_t stride, float* out) {
    const std::size_t bytes = tile_bytes(columns);
    for (std::size_t begin = 0; begin < columns; begin += kSummedColumns) {
      const std::size_t width = smaller(kSummedColumns, columns - begin);
      const std::byte* const integers = x + RotatedRow::integers_at(columns) + begin;
      const std::byte* const sums_of_x =
          x + RotatedRow::kSumsAt + begin / kScaled * sizeof(std::int16_t);
      const std::byte* const blocks = tiles + kHeader + begin / kRotated * kBlock;
      i32x16 sums[TILES][TOKENS];
#pragma GCC unroll 12
      for (std::size_t t = 0; t < TOKENS; ++t) {
        const std::int32_t less = kExcess == 0 ? 0 : -excess(sums_of_x + t * stride, width);
#pragma GCC unroll 4
        for (std::size_t r = 0; r < TILES; ++r) sums[r][t] = splat_integer(less);
      }
      for (std::size_t c = 0; c < width; c += kRotated)
#pragma GCC unroll 1
        for (std::size_t r = 0; r < TILES; ++r) {
          const std::byte* const block = blocks + r * bytes + c / kRotated * kBlock;
          if (in_memory) prefetch<kBlock>(block + 1024);
          add_block<TOKENS>(block, integers + c, sums_of_x + c / kScaled * sizeof(std::int16_t),
                            stride, sums[r]);
        }
#pragma GCC unroll 4
      for (std::size_t r = 0; r < TILES; ++r) {
        const f32x16 unit = load(reinterpret_cast<const float*>(tiles + r * bytes));
#pragma GCC unroll 12
        for (std::size_t t = 0; t < TOKENS; ++t) {
          const f32x16 step = splat(*reinterpret_cast<const float*>(x + t * stride));
          float* const to = out + (t * kTilesAtOnce + r) * kTileRows;
          store(to, fma(to_floats(sums[r][t]), multiply(unit, step),
                        begin == 0 ? splat(0.0f) : load(to)));
        }
      }
    }
  }
  template <std::size_t TILES, std::size_t SIZE = 0>
  static void multiply_some(const std::byte* tiles, bool in_memory, std::size_t columns,
                            const std::byte* x, std::size_t stride, std::size_t tokens, float* out) {
    constexpr std::size_t TOKENS = kCodePanels[SIZE];
    for (; tokens >= TOKENS; tokens -= TOKENS) {
      multiply_panel<TOKENS, TILES>(tiles, in_memory, columns, x, stride, out);
      x += TOKENS * stride;
      in_memory = false;
      out += TOKENS * kTilesAtOnce * kTileRows;
    }
    if constexpr (TOKENS > 1)
      multiply_some<TILES, SIZE + 1>(tiles, in_memory, columns, x, stride, tokens, out);
  }

  static void multiply_tiles(const void* packed, std::size_t tiles, std::size_t columns,
                             const std::byte* x, std::size_t stride, std::size_t tokens, float* out) {
    const auto* const from = static_cast<const std::byte*>(packed);
    if constexpr (Matrices<Rotated>::available)
      if (tokens >= Matrices<Rotated>::kFewestRows)
        return Matrices<Rotated>::multiply_tiles(from, tiles, columns, x, stride, tokens, out);
    if (tiles == kTilesAtOnce && tokens <= kCodePanels[0])
      return multiply_some<kTilesAtOnce>(from, true, columns, x, stride, tokens, out);
    for (std::size_t r = 0; r < tiles; ++r)
      multiply_some<1>(from + r * tile_bytes(columns), true, columns, x, stride, tokens,
                       out + r * kTileRows);
  }
};

struct r4 {
  static constexpr char name[] = "r4";
  static constexpr int bits = 4;
  static constexpr bool integers = true;
};
struct r8 {
  static constexpr char name[] = "r8";
  static constexpr int bits = 8;
  static constexpr bool integers = false;
};
