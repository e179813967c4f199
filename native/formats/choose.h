// Chooses the codes of rotated weights.
//
// A factor weights the errors of a row and lets later choices compensate earlier ones: GPTQ, Frantar
// et al., 2022, https://arxiv.org/abs/2210.17323. If xᵀx, summed over typical activations, is
// F·D·Fᵀ with a diagonal D and a lower triangle F with ones, then errors e of a row of weights change
// its products by
//   Σ_k D_k (e_k + Σ_{j>k} e_j F_jk)²
// so columns are chosen from the last to the first, each for the weight plus Σ_{j>k} e_j F_jk.
// Lanes are rows; all numbers are in units of their row.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.

TALU_INLINE f32x16 smaller_of(f32x16 a, f32x16 b) {
  const f32x16 zero = splat(0.0f);
  return subtract(zero, larger(subtract(zero, a), subtract(zero, b)));
}
TALU_INLINE f32x16 limited(f32x16 x, float least, float most) {
  return at_most(most, at_least(least, x));
}
// b where x < 0, else a; both finite.
TALU_INLINE f32x16 b_if_negative(f32x16 x, f32x16 a, f32x16 b) {
  const f32x16 keep = zero_below(x, 0.0f, splat(1.0f));
  return add(multiply(a, keep), multiply(b, subtract(splat(1.0f), keep)));
}

// targets += the errors of later columns times their factors, for `width` columns. A row of factors
// begins `stride` numbers after the one before.
static void add_errors(const float* errors, const float* factors, std::size_t stride,
                       std::size_t later, std::size_t width, float* targets) {
  constexpr std::size_t kAtOnce = kSumsAtOnce >= 8 ? 8 : 4;
  constexpr std::size_t kInCache = 128;  // columns of errors and factors
  for (std::size_t first = 0; first < later; first += kInCache)
    for (std::size_t k = 0; k < width; k += kAtOnce) {
      f32x16 sums[kAtOnce];
#pragma GCC unroll 8
      for (std::size_t i = 0; i < kAtOnce; ++i) sums[i] = load(targets + (k + i) * kTileRows);
      for (std::size_t j = first; j < smaller(later, first + kInCache); ++j) {
        const f32x16 error = load(errors + j * kTileRows);
        const float* const row = factors + j * stride + k;
#pragma GCC unroll 8
        for (std::size_t i = 0; i < kAtOnce; ++i) sums[i] = fma(error, splat(row[i]), sums[i]);
      }
#pragma GCC unroll 8
      for (std::size_t i = 0; i < kAtOnce; ++i) store(targets + (k + i) * kTileRows, sums[i]);
    }
}

// The factors of columns from `end` on for 32 columns from `begin` on, one row after the other.
static void copy_panel(const float* factor, std::size_t columns, std::size_t begin, std::size_t end,
                       float* panel) {
  for (std::size_t j = end; j < columns; ++j)
    __builtin_memcpy(panel + (j - end) * kScaled, factor + j * columns + begin,
                     kScaled * sizeof(float));
}

template <class D>
struct Chosen {
  using Layout = Rotated<D>;
  static constexpr float kMost = static_cast<float>(Layout::kLargest);
  static constexpr float kOffset = static_cast<float>(Layout::kOffset);

  // A code stands for scale · (code - kOffset) - minimum.
  struct Grid {
    f32x16 scale, inverse, minimum;

    f32x16 code(f32x16 weight) const {
      const f32x16 place = multiply(add(weight, minimum), inverse);
      return limited(add(nearest_integer(place), splat(kOffset)), D::integers ? 0.0f : 1.0f, kMost);
    }
    f32x16 meaning(f32x16 code) const {
      return subtract(multiply(subtract(code, splat(kOffset)), scale), minimum);
    }
  };
  static Grid grid(f32x16 scale, f32x16 minimum) {
    return {scale, divide(splat(1.0f), scale), minimum};
  }

  static void range(const float* weights, f32x16& low, f32x16& high) {
    low = high = splat(0.0f);
    for (std::size_t c = 0; c < kScaled; ++c) {
      const f32x16 w = load(weights + c * kTileRows);
      low = smaller_of(w, low);
      high = larger(w, high);
    }
  }

  // The best of several ranges for 32 columns, with an importance for each column.
  static Grid search(const float* weights, const float* importance) {
    constexpr float kShares[] = {1.0f, 0.95f, 0.9f, 0.85f, 0.8f, 0.75f, 0.7f};
    f32x16 low, high, least = splat(3e38f), scale = splat(1.0f), minimum = splat(0.0f);
    range(weights, low, high);
    for (const float of_low : kShares)
      for (const float of_high : kShares) {
        const f32x16 width =
            subtract(multiply(high, splat(of_high)), multiply(low, splat(of_low)));
        const f32x16 some_scale = limited(nearest_integer(multiply(width, splat(1.0f / kMost))),
                                          1.0f, static_cast<float>(kLargestScale));
        const f32x16 units =
            nearest_integer(multiply(low, splat(-of_low / static_cast<float>(kMinimumUnit))));
        const f32x16 some_minimum =
            multiply(limited(units, 0.0f, 238.0f), splat(static_cast<float>(kMinimumUnit)));
        const Grid tried = grid(some_scale, some_minimum);
        f32x16 error = splat(0.0f);
        for (std::size_t c = 0; c < kScaled; ++c) {
          const f32x16 w = load(weights + c * kTileRows);
          const f32x16 difference = subtract(tried.meaning(tried.code(w)), w);
          const f32x16 square = multiply(difference, difference);
          error = importance == nullptr ? add(error, square)
                                        : fma(square, splat(importance[c]), error);
        }
        const f32x16 better = subtract(error, least);
        scale = b_if_negative(better, scale, some_scale);
        minimum = b_if_negative(better, minimum, some_minimum);
        least = smaller_of(error, least);
      }
    return grid(scale, minimum);
  }

  // Rotated weights with rows as lanes, in units of their rows, which begin the tile.
  static void read(const float* source, std::size_t rows, std::size_t columns, float* units,
                   float* weights) {
    for (std::size_t begin = 0; begin < columns; begin += kRotated) {
      alignas(64) float block[kRotated];
      for (std::size_t lane = 0; lane < kTileRows; ++lane) {
        if (lane < rows) rotate_block(source + lane * columns + begin, block);
        for (std::size_t c = 0; c < kRotated; ++c)
          weights[(begin + c) * kTileRows + lane] = lane < rows ? block[c] : 0.0f;
      }
    }
    f32x16 most = splat(0.0f), finite = splat(0.0f);
    for (std::size_t c = 0; c < columns; c += kScaled) {
      f32x16 low, high;
      range(weights + c * kTileRows, low, high);
      most = larger(most, D::integers ? subtract(high, low) : larger(high, subtract(splat(0.0f), low)));
      for (std::size_t i = c; i < c + kScaled; ++i)
        finite = add(finite, multiply(load(weights + i * kTileRows), splat(0.0f)));
    }
    constexpr float kSteps =
        D::integers ? kMost * static_cast<float>(kLargestScale) : kMost - kOffset;
    const f32x16 unit = divide(most, splat(kSteps));
    // A smaller unit becomes zero, so that its inverse stays finite.
    const f32x16 kept = zero_below(unit, 1e-30f, unit);
    store(units, add(kept, finite));  // NaN if a weight is not finite
    const f32x16 inverse = zero_below(unit, 1e-30f, divide(splat(1.0f), larger(unit, splat(1e-30f))));
    for (std::size_t c = 0; c < columns * kTileRows; c += kTileRows)
      store(weights + c, multiply(load(weights + c), inverse));
  }

  static void write(std::byte* block, std::size_t column, f32x16 code) {
    alignas(16) std::int8_t codes[kTileRows];
    store_i8(codes, subtract(code, splat(kOffset)));
    for (std::size_t lane = 0; lane < kTileRows; ++lane) {
      const typename Layout::Place at = Layout::place(column, lane);
      const unsigned bits =
          static_cast<unsigned>(codes[lane] + Layout::kOffset) & Layout::kLargest;
      block[at.byte] |= static_cast<std::byte>(bits << at.shift);
    }
  }
  static void write_scales(std::byte* block, std::size_t part, const Grid& grid) {
    alignas(16) std::int8_t bytes[kTileRows];
    store_i8(bytes, grid.scale);
    __builtin_memcpy(block + part * kTileRows, bytes, kTileRows);
    constexpr float kUnit = static_cast<float>(kMinimumUnit);
    store_i8(bytes, subtract(multiply(grid.minimum, splat(1.0f / kUnit)), splat(128.0f)));
    for (std::size_t lane = 0; lane < kTileRows; ++lane)
      block[Layout::kMinimums + lane * 2 + part] = static_cast<std::byte>(bytes[lane] ^ 0x80);
  }

  // Chooses the codes of 32 columns of a tile, whose weights become errors.
  static void choose_part(float* weights, float* targets, const float* factor,
                          std::size_t columns, std::size_t begin, std::byte* tile) {
    float importance[kScaled];
    for (std::size_t c = 0; c < kScaled && factor != nullptr; ++c)
      importance[c] = factor[(begin + c) * columns + begin + c];
    std::byte* const block = tile + Layout::kHeader + begin / kRotated * Layout::kBlock;
    const std::size_t part = begin % kRotated / kScaled;
    Grid chosen = grid(splat(1.0f), splat(0.0f));
    if constexpr (D::integers) {
      chosen = search(targets, factor != nullptr ? importance : nullptr);
      write_scales(block, part, chosen);
    }
    for (std::size_t c = kScaled; c-- > 0;) {
      const f32x16 code = chosen.code(load(targets + c * kTileRows));
      write(block, part * kScaled + c, code);
      if (factor == nullptr) continue;
      const f32x16 error = subtract(load(weights + c * kTileRows), chosen.meaning(code));
      store(weights + c * kTileRows, error);
      const float* const row = factor + (begin + c) * columns + begin;
      for (std::size_t k = 0; k < c; ++k)
        store(targets + k * kTileRows, fma(error, splat(row[k]), load(targets + k * kTileRows)));
    }
  }

  // See Format::choose.
  static void choose_tiles(const float* source, std::size_t rows, std::size_t columns,
                           const float* factor, std::size_t first, std::size_t last, void* packed,
                           float* work) {
    auto* const out = static_cast<std::byte*>(packed);
    const std::size_t bytes = Layout::tile_bytes(columns), size = columns * kTileRows;
    float* const panel = work + kTilesChosen * size;
    for (std::size_t tile = first; tile < last; ++tile) {
      __builtin_memset(out + tile * bytes, 0, bytes);
      read(source + tile * size, smaller(kTileRows, rows - tile * kTileRows), columns,
           reinterpret_cast<float*>(out + tile * bytes), work + (tile - first) * size);
    }
    for (std::size_t end = columns; end > 0; end -= kScaled) {
      const std::size_t begin = end - kScaled, later = factor == nullptr ? 0 : columns - end;
      if (later > 0) copy_panel(factor, columns, begin, end, panel);
      for (std::size_t tile = first; tile < last; ++tile) {
        alignas(64) float targets[kScaled * kTileRows];
        float* const weights = work + (tile - first) * size;
        __builtin_memcpy(targets, weights + begin * kTileRows, sizeof targets);
        add_errors(weights + end * kTileRows, panel, kScaled, later, kScaled, targets);
        choose_part(weights + begin * kTileRows, targets, factor, columns, begin,
                    out + tile * bytes);
      }
    }
  }
};

template <class D>
constexpr Format format_of_rotated() {
  using Layout = Rotated<D>;
  return {D::name,
          "rotated",
          1,
          sizeof(float),
          0,
          Layout::tile_bytes,
          RotatedRow::bytes,
          RotatedRow::quantize,
          nullptr,
          Layout::dequantize_row,
          Layout::multiply_tiles,
          kRotated,
          Chosen<D>::choose_tiles};
}
