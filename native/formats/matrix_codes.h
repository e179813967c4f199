// Products of codes with scales in matrix registers: formats of codes.h and groups.h.
//
// A fragment of kernels.inc for targets with matrix registers.

// What is added for a part beside codes · x · scale, of which a description is a structure with
//   term(step, total)  the factor of the offset, of the scale and the sum of the activations
//   add                adds the products of a part
struct NoOffset {
  static constexpr bool any = false;
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
  static constexpr std::size_t part = C::part, kColumns = 512;  // that are unpacked together
  static constexpr std::size_t kGrid = (Offset::any ? 2 : 1) * kTileRows * sizeof(float);
  static constexpr std::size_t kPart = kGrid + part * kTileRows;  // bytes
  static_assert(kColumns % Format::block == 0);
  using Terms = float[kColumns / part];
  using Panel = float[kMatrixRows][kTileRows];

  static void multiply_tiles(const std::byte* packed, std::size_t tiles, std::size_t columns,
                       const std::byte* x, std::size_t stride, std::size_t tokens, float* sums) {
    constexpr std::size_t kStride = kTilesAtOnce * kTileRows;
    const MatrixRegisters registers(kMatrixRows, kMatrixRows, part);
    alignas(64) std::byte unpacked[kColumns / part * kPart];
    alignas(64) Terms terms[kTokensInCache];
    // The last sixteen rows of activations have sums of their own, because the panel before may have
    // some of these rows, too.
    alignas(64) Panel last[kTilesAtOnce];
    const std::size_t whole = tokens / kMatrixRows * kMatrixRows, end = tokens - kMatrixRows;
    for (std::size_t begin = 0; begin < columns; begin += kColumns) {
      const std::size_t width = smaller(kColumns, columns - begin);
      const auto activations = BlockActivations::from<Row>(begin, x, columns, stride);
      if constexpr (Offset::any) compute_terms(activations, tokens, width / part, terms);
      for (std::size_t r = 0; r < tiles; ++r) {
        unpack(packed + r * block_tile_bytes<Format>(columns) +
                   begin / Format::block * Format::block_bytes(Format::block),
               width, unpacked);
        auto add = [&](std::size_t t, float* to, std::size_t to_stride) {
          add_panel(unpacked, width / part, activations.advance_rows(t), terms + t, begin == 0, to,
                    to_stride);
        };
        for (std::size_t t = 0; t < whole; t += kMatrixRows)
          add(t, sums + t * kStride + r * kTileRows, kStride);
        if (whole < tokens) add(end, last[r][0], kTileRows);
      }
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

  static void compute_terms(const BlockActivations& x, std::size_t tokens, std::size_t parts,
                            Terms* terms) {
    constexpr std::size_t kSums = part / Row::summed, kParts = Row::scaled / part;
    for (std::size_t t = 0; t < tokens; ++t) {
      const auto* const steps = reinterpret_cast<const float*>(x.scales + t * x.stride);
      const auto* const sums = reinterpret_cast<const std::int32_t*>(x.sums + t * x.stride);
      for (std::size_t p = 0; p < parts; ++p) {
        std::int32_t total = sums[p * kSums];
        if constexpr (kSums == 2) total += sums[p * kSums + 1];
        terms[t][p] = Offset::term(steps[p / kParts], static_cast<float>(total));
      }
    }
  }

  // y += a part after the other of a tile · sixteen rows of activations. The product of a part is
  // computed while that of the part before is scaled.
  [[gnu::noinline]] static void add_panel(const std::byte* unpacked, std::size_t parts,
                                          const BlockActivations& x, const Terms* terms, bool first,
                                          float* y, std::size_t y_stride) {
    alignas(64) std::int32_t products[2][kMatrixRows][kTileRows];
    f32x16 sums[kMatrixRows];
#pragma GCC unroll 16
    for (std::size_t t = 0; t < kMatrixRows; ++t)
      sums[t] = first ? splat(0.0f) : load(y + t * y_stride);
    multiply_part<0>(unpacked, x, 0, products[0]);
    for (std::size_t p = 0; p < parts; p += 2) {
      if (p + 1 < parts) multiply_part<1>(unpacked, x, p + 1, products[1]);
      add_part(unpacked, x, terms, p, products[0], sums);
      if (p + 1 == parts) break;
      if (p + 2 < parts) multiply_part<0>(unpacked, x, p + 2, products[0]);
      add_part(unpacked, x, terms, p + 1, products[1], sums);
    }
#pragma GCC unroll 16
    for (std::size_t t = 0; t < kMatrixRows; ++t) store(y + t * y_stride, sums[t]);
  }
  template <int REGISTER>
  TALU_INLINE void multiply_part(const std::byte* unpacked, const BlockActivations& x, std::size_t p,
                                 std::int32_t (*products)[kTileRows]) {
    clear_matrix<REGISTER>();
    load_matrix<4 + REGISTER>(x.integers + p * part, x.stride);
    load_matrix<6 + REGISTER>(unpacked + p * kPart + kGrid, kMatrixBytes);
    C::Product::template add<REGISTER, 4 + REGISTER, 6 + REGISTER>();
    store_matrix<REGISTER>(products, sizeof products[0]);
  }
  TALU_INLINE void add_part(const std::byte* unpacked, const BlockActivations& x, const Terms* terms,
                            std::size_t p, const std::int32_t (*products)[kTileRows],
                            f32x16 (&sums)[kMatrixRows]) {
    const auto* const grid = reinterpret_cast<const float*>(unpacked + p * kPart);
    const f32x16 scale = load(grid), offset = Offset::any ? load(grid + kTileRows) : splat(0.0f);
    const std::byte* const steps = x.scales + p * part / Row::scaled * sizeof(float);
#pragma GCC unroll 16
    for (std::size_t t = 0; t < kMatrixRows; ++t) {
      const float step = *reinterpret_cast<const float*>(steps + t * x.stride);
      sums[t] = Offset::add(to_floats(load(products[t])), scale, offset, splat(step),
                            Offset::any ? terms[t][p] : 0.0f, sums[t]);
    }
  }
};

template <class D>
struct Matrices<Coded<D>> : MatricesOfCodes<MatrixCodes<Coded<D>>> {};
template <int BITS, std::size_t COLUMNS, class SCALE, template <class> class OFFSET>
struct Matrices<Group<BITS, COLUMNS, SCALE, OFFSET>>
    : MatricesOfCodes<MatrixCodes<Group<BITS, COLUMNS, SCALE, OFFSET>>> {};
