// Products of bf16 weights in matrix registers. The even and the odd ones of 32 columns are summed in two
// chains, and these are added to the sum of the columns before, for any number of rows of activations.
//
// A fragment of kernels.inc for targets with matrix registers.

template <>
struct Matrices<bf16> {
  static constexpr bool available = true;
  static constexpr std::size_t kFewestRows = 1;
  static constexpr std::size_t kColumnsAtOnce = 512, kRowBytes = kTilesAtOnce * kTileRows * sizeof(float);

  static void multiply_tiles(const std::byte* packed, std::size_t tiles, std::size_t columns,
                             const std::byte* x, std::size_t stride, std::size_t tokens,
                             float* sums) {
    const std::size_t padded = round_up(columns, bf16::group);
    const std::size_t whole = padded / (kMatrixBytes / 2) * (kMatrixBytes / 2);
    auto multiply_columns = tokens <= kMatrixRows ? multiply_few : multiply_many;
    if (whole > 0)
      multiply_columns(packed, tiles, padded, 0, whole, kMatrixBytes, x, stride, tokens, sums);
    if (whole < padded)
      multiply_columns(packed, tiles, padded, whole, padded, (padded - whole) * 2, x, stride, tokens,
                       sums);
  }

  static const std::byte* at(const std::byte* packed, std::size_t tile, std::size_t columns,
                             std::size_t column) {
    return packed + (tile * columns + column) * kTileRows * sizeof(bf16::element);
  }

  // The columns first .. last - 1, of which a register has `bytes` bytes. All tiles advance together, as
  // the processor reads several streams from memory faster than one.
  static void multiply_few(const std::byte* packed, std::size_t tiles, std::size_t columns,
                           std::size_t first, std::size_t last, std::size_t bytes, const std::byte* x,
                           std::size_t stride, std::size_t tokens, float* sums) {
    const MatrixRegisters registers(tokens, tokens, bytes);
    const std::byte* from[kTilesAtOnce];
    for (std::size_t r = 0; r < kTilesAtOnce; ++r)
      from[r] = at(packed, smaller(r, tiles - 1), columns, first);
    if (first == 0) {
      clear_sums();
    } else {
      load_matrix<0>(sums, kRowBytes);
      load_matrix<1>(sums + kTileRows, kRowBytes);
      load_matrix<2>(sums + 2 * kTileRows, kRowBytes);
      load_matrix<3>(sums + 3 * kTileRows, kRowBytes);
    }
    const std::size_t weights = bytes * kTileRows;
    for (std::size_t c = first; c < last; c += bytes / 2) {
      load_matrix<4>(x + c * 2, stride);
      multiply_next<0, 6>(from[0], weights);
      if (tiles > 1) multiply_next<1, 7>(from[1], weights);
      if (tiles > 2) multiply_next<2, 6>(from[2], weights);
      if (tiles > 3) multiply_next<3, 7>(from[3], weights);
    }
    store_matrix<0>(sums, kRowBytes);
    store_matrix<1>(sums + kTileRows, kRowBytes);
    store_matrix<2>(sums + 2 * kTileRows, kRowBytes);
    store_matrix<3>(sums + 3 * kTileRows, kRowBytes);
  }
  template <int SUMS, int WEIGHTS>
  TALU_INLINE void multiply_next(const std::byte*& from, std::size_t bytes) {
    prefetch<kMatrixRows * kMatrixBytes>(from + 4096);
    load_matrix<WEIGHTS>(from, kMatrixBytes);
    Bf16Product::add<SUMS, 4, WEIGHTS>();
    from += bytes;
  }

  static void multiply_many(const std::byte* packed, std::size_t tiles, std::size_t columns,
                            std::size_t first, std::size_t last, std::size_t bytes, const std::byte* x,
                            std::size_t stride, std::size_t tokens, float* sums) {
    const MatrixRegisters registers(first_rows(tokens), second_rows(tokens), bytes);
    for (std::size_t r = 0; r < tiles; r += 2) {
      alignas(64) float others[kMatrixPanel][2 * kTileRows];  // of a panel with rows of another
      for_panels(tokens, [&](const MatrixPanel& panel) {
        if (panel.done > panel.first && first > 0)
          for (std::size_t t = panel.first; t < panel.last; ++t)
            __builtin_memcpy(others[t - panel.first], sums + (t * kTilesAtOnce + r) * kTileRows,
                             sizeof others[0]);
      });
      for (std::size_t begin = first; begin < last; begin += kColumnsAtOnce) {
        const std::size_t width = smaller(kColumnsAtOnce, last - begin);
        for_panels(tokens, [&](const MatrixPanel& panel) {
          const bool own = panel.done == panel.first;
          add_to_sums<Bf16Product>(
              panel, begin == 0, x + panel.first * stride + begin * 2, stride,
              at(packed, r, columns, begin), at(packed, smaller(r + 1, tiles - 1), columns, begin),
              width * 2 / bytes, own ? sums + (panel.first * kTilesAtOnce + r) * kTileRows : others[0],
              own ? kRowBytes : sizeof others[0], kTileRows * sizeof(float));
        });
      }
      for_panels(tokens, [&](const MatrixPanel& panel) {
        if (panel.done > panel.first)
          for (std::size_t t = panel.done; t < panel.last; ++t)
            __builtin_memcpy(sums + (t * kTilesAtOnce + r) * kTileRows, others[t - panel.first],
                             sizeof others[0]);
      });
    }
  }
};
