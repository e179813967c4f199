// Products of codes with scales in matrix registers: formats of codes.h and groups.h.
//
// A fragment of kernels.inc for targets with matrix registers.

// What is added for a part beside codes · x · scale, of which a description is a structure with
//   term(step, total)  the factor of the offset, of the scale and the sum of the activations
//   add                adds the products of a part
struct NoOffset {
  static constexpr bool any = false;
  static float term(float, float) { return 0.0f; }
  TALU_INLINE f32x16 add(f32x16 sum, f32x16 scale, f32x16, f32x16 step, float, f32x16 y) {
    return fma(sum, multiply(scale, step), y);
  }
};
template <int SIGN>
struct MinimumOffset {
  static constexpr bool any = true;
  static float term(float step, float total) { return SIGN * step * total; }
  TALU_INLINE f32x16 add(f32x16 sum, f32x16 scale, f32x16 least, f32x16 step, float term, f32x16 y) {
    return fma(least, splat(term), fma(sum, multiply(scale, step), y));
  }
};
struct ZeroOffset {
  static constexpr bool any = true;
  static float term(float, float total) { return -total; }
  TALU_INLINE f32x16 add(f32x16 sum, f32x16 scale, f32x16 zero, f32x16 step, float term, f32x16 y) {
    return fma(fma(zero, splat(term), sum), multiply(scale, step), y);
  }
};

TALU_INLINE codes less(codes x, int offset) {
  return {_mm512_sub_epi8(x.v, _mm512_set1_epi8(static_cast<char>(offset)))};
}

// How a format is multiplied: the columns with one scale, how codes are stored in bytes, and unpack, which
// writes for each part sixteen scales, sixteen offsets, if there are any, and the bytes.
template <class F>
struct MatrixCodes;

template <class D>
struct MatrixCodes<Coded<D>> {
  using Format = Coded<D>;
  static constexpr std::size_t part = D::part;
  static constexpr bool is_signed = D::offset != 0;
  using Product = std::conditional_t<is_signed, SignedProduct, CodeProduct>;
  using Offset = std::conditional_t<D::minimum == 0, NoOffset, MinimumOffset<D::minimum>>;

  static void unpack(const std::byte* block, std::byte* to) {
    const auto whole = Format::whole_grid(block);
    for (std::size_t p = 0; p < Format::parts; ++p) {
      const auto grid = Format::grid(block, whole, p);
      store(reinterpret_cast<float*>(to), grid.scale);
      to += kTileRows * sizeof(float);
      if constexpr (Offset::any) {
        store(reinterpret_cast<float*>(to), grid.least);
        to += kTileRows * sizeof(float);
      }
      for (std::size_t g = p * part / 4; g < (p + 1) * part / 4; ++g, to += kMatrixBytes)
        store_codes(to, less(Format::Codes::group_codes(block + Format::kPlanes, g), D::offset));
    }
  }
};

template <int BITS, std::size_t COLUMNS, class SCALE, template <class> class OFFSET>
struct MatrixCodes<Group<BITS, COLUMNS, SCALE, OFFSET>> {
  using Format = Group<BITS, COLUMNS, SCALE, OFFSET>;
  static constexpr std::size_t part = 32;
  using Product = CodeProduct;
  using Offset = typename std::conditional_t<std::is_same_v<OFFSET<SCALE>, Minimum<SCALE>>,
                                             std::type_identity<MinimumOffset<1>>,
                                             std::type_identity<ZeroOffset>>::type;

  static void unpack(const std::byte* block, std::byte* to) {
    const f32x16 scale = SCALE::load(block), offset = Format::Offset::load(block + Format::kOffsets);
    for (std::size_t p = 0; p < Format::parts; ++p) {
      store(reinterpret_cast<float*>(to), scale);
      store(reinterpret_cast<float*>(to) + kTileRows, offset);
      to += 2 * kTileRows * sizeof(float);
      Format::Part::unpack(block + Format::kCodes + p * Format::Part::Codes::bytes, to);
      to += part * kTileRows;
    }
  }
};

template <class C>
struct MatricesOfCodes {
  static constexpr bool available = true;
  static constexpr std::size_t kFewestRows = kMatrixRows;
  using Format = typename C::Format;
  using Row = typename Format::Row;
  using Offset = typename C::Offset;
  static constexpr std::size_t part = C::part, kColumns = 256;  // that are unpacked together
  static constexpr std::size_t kGrid = (Offset::any ? 2 : 1) * kTileRows * sizeof(float);
  static constexpr std::size_t kPart = kGrid + part * kTileRows;  // bytes
  static_assert(kColumns % Format::block == 0 && kColumns / Row::scaled <= kTileRows);
  // What the sums of a row of activations are multiplied with, at distances that are known.
  struct Factors {
    float steps[kTileRows];
    float terms[Offset::any ? kColumns / part : 1];
  };
  using Products = std::int32_t[kMatrixRows][kTileRows];
  using Unpacked = std::byte[kColumns / part * kPart];
  using Panel = float[kMatrixRows][kTileRows];

  static void multiply_tiles(const std::byte* packed, std::size_t tiles, std::size_t columns,
                             const std::byte* x, std::size_t stride, std::size_t tokens,
                             float* sums) {
    constexpr std::size_t kStride = kTilesAtOnce * kTileRows;
    const MatrixRegisters registers(kMatrixRows, kMatrixRows, part);
    alignas(64) Unpacked unpacked[kTilesAtOnce];
    alignas(64) Factors factors[kTokensInCache];
    // The last sixteen rows of activations have sums of their own, because the panel before may have
    // some of these rows, too.
    alignas(64) Panel last[kTilesAtOnce];
    const std::size_t whole = tokens / kMatrixRows * kMatrixRows, end = tokens - kMatrixRows;
    for (std::size_t begin = 0; begin < columns; begin += kColumns) {
      const std::size_t width = smaller(kColumns, columns - begin);
      const auto activations = BlockActivations::from<Row>(begin, x, columns, stride);
      for (std::size_t t = 0; t < tokens; ++t)
        factors_of(activations.advance_rows(t), width / part, factors[t]);
      for (std::size_t r = 0; r < tiles; ++r)
        unpack(packed + r * block_tile_bytes<Format>(columns) +
                   begin / Format::block * Format::block_bytes(Format::block),
               width, unpacked[r]);
      auto add = [&](std::size_t t, float* to, std::size_t to_stride, std::size_t tile_stride) {
        add_panel(unpacked, tiles, width / part, activations.integers + t * stride, stride,
                  factors + t, begin == 0, to, to_stride, tile_stride);
      };
      for (std::size_t t = 0; t < whole; t += kMatrixRows)
        add(t, sums + t * kStride, kStride, kTileRows);
      if (whole < tokens) add(end, last[0][0], kTileRows, kMatrixRows * kTileRows);
    }
    for (std::size_t t = whole; t < tokens; ++t)
      for (std::size_t r = 0; r < tiles; ++r)
        store(sums + t * kStride + r * kTileRows, load(last[r][t - end]));
  }

  static void unpack(const std::byte* block, std::size_t columns, std::byte* to) {
    constexpr std::size_t kBlock = Format::block_bytes(Format::block);
    for (std::size_t c = 0; c < columns; c += Format::block, block += kBlock) {
      prefetch<kBlock>(block + 4096);
      C::unpack(block, to);
      to += Format::block / part * kPart;
    }
  }

  static constexpr std::size_t kParts = Row::scaled / part;  // with the same step
  static void factors_of(const BlockActivations& x, std::size_t parts, Factors& out) {
    constexpr std::size_t kSums = part / Row::summed;
    const auto* const sums = reinterpret_cast<const std::int32_t*>(x.sums);
    store(out.steps, load_some(reinterpret_cast<const float*>(x.scales), parts / kParts));
    for (std::size_t p = 0; Offset::any && p < parts; ++p) {
      std::int32_t total = sums[p * kSums];
      if constexpr (kSums == 2) total += sums[p * kSums + 1];
      out.terms[p] = Offset::term(out.steps[p / kParts], static_cast<float>(total));
    }
  }

  // y += several parts of some tiles · sixteen rows of activations. A few parts are multiplied before they
  // are scaled, so that a register of activations is loaded once for all tiles.
  [[gnu::noinline]] static void add_panel(const Unpacked* unpacked, std::size_t tiles,
                                          std::size_t parts, const std::byte* x, std::size_t stride,
                                          const Factors* factors, bool first, float* y,
                                          std::size_t y_stride, std::size_t tile_stride) {
    constexpr std::size_t kAtOnce = 4;
    alignas(64) Products products[kAtOnce][kTilesAtOnce];
    for (std::size_t begin = 0; begin < parts; begin += kAtOnce) {
      const std::size_t count = smaller(kAtOnce, parts - begin);
      for (std::size_t p = 0; p < count; ++p) {
        load_matrix<4>(x + (begin + p) * part, stride);
        multiply_part<0>(unpacked[0], begin + p, products[p][0]);
        if (tiles > 1) multiply_part<1>(unpacked[1], begin + p, products[p][1]);
        if (tiles > 2) multiply_part<2>(unpacked[2], begin + p, products[p][2]);
        if (tiles > 3) multiply_part<3>(unpacked[3], begin + p, products[p][3]);
      }
      for (std::size_t r = 0; r < tiles; ++r) {
        float* const to = y + r * tile_stride;
        f32x16 sums[kMatrixRows];
#pragma GCC unroll 16
        for (std::size_t t = 0; t < kMatrixRows; ++t)
          sums[t] = first && begin == 0 ? splat(0.0f) : load(to + t * y_stride);
#pragma GCC unroll 1
        for (std::size_t p = 0; p < count; ++p)
          add_part(unpacked[r], factors, begin + p, products[p][r], sums);
#pragma GCC unroll 16
        for (std::size_t t = 0; t < kMatrixRows; ++t) store(to + t * y_stride, sums[t]);
      }
    }
  }
  template <int TILE>
  TALU_INLINE void multiply_part(const std::byte* unpacked, std::size_t p, Products& products) {
    constexpr int kWeights = 6 + TILE % 2;
    clear_matrix<TILE>();
    load_matrix<kWeights>(unpacked + p * kPart + kGrid, kMatrixBytes);
    C::Product::template add<TILE, 4, kWeights>();
    store_matrix<TILE>(products, sizeof products[0]);
  }
  TALU_INLINE void add_part(const std::byte* unpacked, const Factors* factors, std::size_t p,
                            const Products& products, f32x16 (&sums)[kMatrixRows]) {
    const auto* const grid = reinterpret_cast<const float*>(unpacked + p * kPart);
    const f32x16 scale = load(grid), offset = Offset::any ? load(grid + kTileRows) : splat(0.0f);
#pragma GCC unroll 16
    for (std::size_t t = 0; t < kMatrixRows; ++t)
      sums[t] = Offset::add(to_floats(load(products[t])), scale, offset,
                            splat(factors[t].steps[p / kParts]),
                            factors[t].terms[Offset::any ? p : 0], sums[t]);
  }
};

template <class D>
struct Matrices<Coded<D>> : MatricesOfCodes<MatrixCodes<Coded<D>>> {};
template <int BITS, std::size_t COLUMNS, class SCALE, template <class> class OFFSET>
struct Matrices<Group<BITS, COLUMNS, SCALE, OFFSET>>
    : MatricesOfCodes<MatrixCodes<Group<BITS, COLUMNS, SCALE, OFFSET>>> {};
