// Products of 15-bit integers in matrix registers.
//
// An integer is 128 · upper + lower, of which both fit a signed byte, so a product has three sums: those of
// the upper bytes, of an upper and a lower one, and of the lower bytes.
//
// A fragment of kernels.inc for targets with matrix registers.
template <>
struct Matrices<i16> {
  static constexpr bool available = true;
  static constexpr std::size_t kFewestRows = kIntegerPanels[0] + 1;
  static constexpr std::size_t kColumns = i16::block;
  static constexpr std::size_t kSteps = kColumns / kMatrixBytes;  // registers of columns
  static_assert(i16::Row::scaled == kColumns && kColumns % kMatrixBytes == 0);

  // A block of a tile.
  struct Weights {
    std::byte upper[kSteps][kMatrixRows][kMatrixBytes], lower[kSteps][kMatrixRows][kMatrixBytes];
  };
  // The same columns of a panel of rows of activations. What it has of rows that do not exist has no
  // effect.
  struct Rows {
    std::byte upper[kMatrixPanel][kColumns], lower[kMatrixPanel][kColumns];
  };
  struct Sums {
    std::int32_t upper[kMatrixPanel][kTileRows], crossed[kMatrixPanel][kTileRows],
        lower[kMatrixPanel][kTileRows];
  };

  static void multiply_tiles(const std::byte* packed, std::size_t tiles, std::size_t columns,
                             const std::byte* x, std::size_t stride, std::size_t tokens, float* out) {
    const MatrixRegisters registers(kMatrixRows, kMatrixRows, kMatrixBytes);  // all of the same shape
    alignas(64) Weights weights[kTilesAtOnce];
    alignas(64) Rows rows = {};
    for (std::size_t begin = 0; begin < columns; begin += kColumns) {
      const std::size_t count = smaller(kColumns, columns - begin);
      f32x16 scales[kTilesAtOnce];
      for (std::size_t r = 0; r < tiles; ++r) {
        const std::byte* const block = packed + r * block_tile_bytes<i16>(columns) +
                                       begin / kColumns * i16::block_bytes(kColumns);
        prefetch_after<i16>(block);
        scales[r] = load(reinterpret_cast<const float*>(block));
        split_block(block + i16::kHeaderBytes, count, weights[r]);
      }
      for (std::size_t first = 0; first < tokens; first += kMatrixPanel) {
        const std::size_t last = smaller(tokens, first + kMatrixPanel);
        for (std::size_t t = first; t < last; ++t)
          split_row(x + t * stride + i16::Row::integers_at(columns) + begin * sizeof(std::int16_t),
                    count, rows.upper[t - first], rows.lower[t - first]);
        for (std::size_t r = 0; r < tiles; ++r) {
          alignas(64) Sums sums;
          if (last - first > kMatrixRows)
            multiply_panel<true>(rows, weights[r], sums);
          else
            multiply_panel<false>(rows, weights[r], sums);
          for (std::size_t t = first; t < last; ++t) {
            const float step = reinterpret_cast<const float*>(x + t * stride)[begin / kColumns];
            float* const to = out + (t * kTilesAtOnce + r) * kTileRows;
            store(to, fma(to_floats(whole(sums, t - first)), multiply(scales[r], splat(step)),
                          begin == 0 ? splat(0.0f) : load(to)));
          }
        }
      }
    }
  }

  // 64 bytes of each: those of `a` in the even bytes, and those of `b` in the odd ones.
  TALU_INLINE void split(__m512i a, __m512i b, std::byte* upper, std::byte* lower) {
    const __m512i even = _mm512_set1_epi16(0x00ff);
    store_codes(upper, {choose(even, _mm512_srli_epi16(a, 7), _mm512_slli_epi16(b, 1))});
    store_codes(lower, {_mm512_and_si512(choose(even, a, _mm512_slli_epi16(b, 8)),
                                         _mm512_set1_epi8(0x7f))});
  }

  // A row of a register has, of each row of the tile, two columns of the first half of a step and the same
  // two of the second: the order that `split_row` gives activations.
  static void split_block(const std::byte* from, std::size_t columns, Weights& to) {
    alignas(64) std::byte padded[kColumns * kTileRows * sizeof(std::int16_t)];
    if (columns < kColumns) {
      const std::size_t bytes = round_up(columns, i16::group) * kTileRows * sizeof(std::int16_t);
      __builtin_memset(padded, 0, sizeof padded);
      __builtin_memcpy(padded, from, bytes);
      from = padded;
    }
    for (std::size_t step = 0; step < kSteps; ++step, from += 2 * kMatrixRows * kMatrixBytes)
      for (std::size_t row = 0; row < kMatrixRows; ++row)
        split(_mm512_loadu_si512(from + row * kMatrixBytes),
              _mm512_loadu_si512(from + (kMatrixRows + row) * kMatrixBytes), to.upper[step][row],
              to.lower[step][row]);
  }
  static void split_row(const std::byte* from, std::size_t columns, std::byte* upper,
                        std::byte* lower) {
    alignas(64) std::byte padded[kColumns * sizeof(std::int16_t)];
    if (columns < kColumns) {
      __builtin_memset(padded, 0, sizeof padded);
      __builtin_memcpy(padded, from, round_up(columns, kTileRows) * sizeof(std::int16_t));
      from = padded;
    }
    for (std::size_t c = 0; c < kColumns; c += kMatrixBytes, from += 2 * kMatrixBytes)
      split(_mm512_loadu_si512(from), _mm512_loadu_si512(from + kMatrixBytes), upper + c, lower + c);
  }

  // Registers 0 to 2 have the sums of the first sixteen rows, 3 to 5 of the others, 6 activations and 7
  // weights.
  template <bool SECOND>
  static void multiply_panel(const Rows& x, const Weights& weights, Sums& sums) {
    clear_matrix<0>();
    clear_matrix<1>();
    clear_matrix<2>();
    clear_matrix<3>();
    clear_matrix<4>();
    clear_matrix<5>();
    for (std::size_t step = 0; step < kSteps; ++step) {
      const std::size_t c = step * kMatrixBytes;
      load_matrix<7>(weights.upper[step], kMatrixBytes);
      add_step<0>(x.upper[0] + c);
      add_step<1>(x.lower[0] + c);
      if constexpr (SECOND) add_step<3>(x.upper[kMatrixRows] + c);
      if constexpr (SECOND) add_step<4>(x.lower[kMatrixRows] + c);
      load_matrix<7>(weights.lower[step], kMatrixBytes);
      add_step<1>(x.upper[0] + c);
      add_step<2>(x.lower[0] + c);
      if constexpr (SECOND) add_step<4>(x.upper[kMatrixRows] + c);
      if constexpr (SECOND) add_step<5>(x.lower[kMatrixRows] + c);
    }
    store_matrix<0>(sums.upper, kMatrixBytes);
    store_matrix<1>(sums.crossed, kMatrixBytes);
    store_matrix<2>(sums.lower, kMatrixBytes);
    if constexpr (SECOND) {
      store_matrix<3>(sums.upper[kMatrixRows], kMatrixBytes);
      store_matrix<4>(sums.crossed[kMatrixRows], kMatrixBytes);
      store_matrix<5>(sums.lower[kMatrixRows], kMatrixBytes);
    }
  }
  template <int SUMS>
  TALU_INLINE void add_step(const std::byte* x) {
    load_matrix<6>(x, kColumns);
    SignedProduct::add<SUMS, 6, 7>();
  }

  static i32x16 whole(const Sums& sums, std::size_t row) {
    const __m512i upper = _mm512_slli_epi32(load(sums.upper[row]).v, 14);
    const __m512i crossed = _mm512_slli_epi32(load(sums.crossed[row]).v, 7);
    return add(i32x16{_mm512_add_epi32(upper, crossed)}, load(sums.lower[row]));
  }
};
