// Products of rotated weights in matrix registers.
//
// A fragment of kernels.inc for targets with matrix registers.

// Codes of r8 are multiplied as they are. Weights of r4, integers below 2^11, are unpacked into two bytes,
// 16 · upper + lower, whose sums are separate.
template <class D>
struct Matrices<Rotated<D>> {
  static constexpr bool available = true;
  static constexpr std::size_t kFewestRows = kCodePanels[0] + 1;
  using Format = Rotated<D>;
  using Product = std::conditional_t<D::integers, SignedProduct, CodeProduct>;
  static constexpr std::size_t kColumns = 512;  // that are multiplied together
  static constexpr std::size_t kTiles = D::integers ? 1 : 2;

  static void multiply_tiles(const std::byte* tiles, std::size_t count, std::size_t columns,
                             const std::byte* x, std::size_t stride, std::size_t tokens, float* out) {
    const MatrixRegisters registers(first_rows(tokens), second_rows(tokens), kMatrixBytes);
    for (std::size_t r = 0; r < count; r += kTiles)
      for (std::size_t begin = 0; begin < columns; begin += kSummedColumns)
        multiply_some(tiles + r * Format::tile_bytes(columns), smaller(kTiles, count - r), columns,
                      begin, smaller(columns, begin + kSummedColumns), x, stride, tokens,
                      out + r * kTileRows);
  }

  // Two sums: of both tiles, or of the upper and the lower bytes.
  using Sums = std::int32_t[2][kTileRows];

  // The columns first .. last - 1, whose products are summed exactly.
  static void multiply_some(const std::byte* tiles, std::size_t count, std::size_t columns,
                            std::size_t first, std::size_t last, const std::byte* x,
                            std::size_t stride, std::size_t tokens, float* out) {
    alignas(64) std::byte unpacked[2][D::integers ? kColumns * kTileRows : 1];
    alignas(64) Sums sums[kRowsOfSums];
    for (std::size_t begin = first; begin < last; begin += kColumns) {
      const std::size_t width = smaller(kColumns, last - begin);
      const std::byte* const blocks =
          tiles + Format::kHeader + begin / kRotated * Format::kBlock;
      const std::byte* weights[2] = {blocks, blocks + (count - 1) * Format::tile_bytes(columns)};
      if constexpr (D::integers) {
        unpack(blocks, width, unpacked[0], unpacked[1]);
        weights[0] = unpacked[0];
        weights[1] = unpacked[1];
      }
      for_panels(tokens, [&](const MatrixPanel& panel) {
        add_to_sums<Product>(panel, begin == first,
                             x + panel.first * stride + RotatedRow::integers_at(columns) + begin,
                             stride, weights[0], weights[1], width / kMatrixBytes,
                             sums[panel.sums_at()], sizeof sums[0], sizeof sums[0][0]);
      });
    }
    for (std::size_t r = 0; r < count; ++r) {
      const f32x16 unit =
          load(reinterpret_cast<const float*>(tiles + r * Format::tile_bytes(columns)));
      for_panels(tokens, [&](const MatrixPanel& panel) {
        for (std::size_t t = panel.done; t < panel.last; ++t) {
          const std::byte* const row = x + t * stride;
          const f32x16 step = splat(*reinterpret_cast<const float*>(row));
          float* const to = out + (t * kTilesAtOnce + r) * kTileRows;
          store(to, fma(to_floats(whole_sum(sums[panel.sums_at() + t - panel.first], r, row,
                                            first, last)),
                        multiply(unit, step), first == 0 ? splat(0.0f) : load(to)));
        }
      });
    }
  }

  static i32x16 whole_sum(const Sums& sums, std::size_t tile, const std::byte* row, std::size_t first,
                          std::size_t last) {
    if constexpr (D::integers)
      return add(i32x16{_mm512_slli_epi32(load(sums[0]).v, 4)}, load(sums[1]));
    else
      return subtract(load(sums[tile]),
                      Format::excess(row + RotatedRow::kSumsAt + first / kScaled * sizeof(std::int16_t),
                                     last - first));
  }

  static void unpack(const std::byte* block, std::size_t columns, std::byte* upper, std::byte* lower) {
    for (std::size_t c = 0; c < columns; c += kRotated, block += Format::kBlock) {
      prefetch<Format::kBlock>(block + 4096);
      const __m512i minimums = _mm512_cvtepu16_epi32(
          load_256(reinterpret_cast<const std::uint16_t*>(block + Format::kMinimums)));
      for (std::size_t part = 0; part < kRotated / kScaled; ++part)
        for (std::size_t g = 0; g < kScaled / 4; ++g, upper += kMatrixBytes, lower += kMatrixBytes)
          unpack_codes(load_codes<D::bits>(block + Format::kPlanes, part * kScaled / 4 + g),
                       twice(_mm512_cvtepu8_epi32(load_quarter(block + part * kTileRows))),
                       twice(_mm512_slli_epi32(
                           _mm512_and_si512(_mm512_srli_epi32(minimums, part * 8),
                                            _mm512_set1_epi32(0xff)), 3)),
                       upper, lower);
    }
  }
  // code · scale - minimum, of which each 16 bits have one for the row.
  TALU_INLINE void unpack_codes(codes all, __m512i scale, __m512i minimum, std::byte* upper,
                                std::byte* lower) {
    const __m512i low_bytes = _mm512_set1_epi16(0x00ff);
    const __m512i even = _mm512_sub_epi16(
        _mm512_mullo_epi16(_mm512_and_si512(all.v, low_bytes), scale), minimum);
    const __m512i odd =
        _mm512_sub_epi16(_mm512_mullo_epi16(_mm512_srli_epi16(all.v, 8), scale), minimum);
    store_codes(upper,
                {choose(low_bytes, _mm512_srli_epi16(even, 4), _mm512_slli_epi16(odd, 4))});
    store_codes(lower, {_mm512_and_si512(choose(low_bytes, even, _mm512_slli_epi16(odd, 8)),
                                         _mm512_set1_epi8(0x0f))});
  }
  // The lower 16 bits of each 32 in the upper ones too.
  TALU_INLINE __m512i twice(__m512i x) { return _mm512_or_si512(x, _mm512_slli_epi32(x, 16)); }
};
