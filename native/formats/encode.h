// Chooses the codes of the formats that files have, for sixteen rows as lanes, in the blocks whose
// scales search_scales.h finds. With a factor (choose.h), later columns are chosen first and earlier
// ones compensate their errors.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.

// The parts of a block. The importance of a column is the diagonal of the factor, as a share of the
// largest, or one.
static void find_parts(const CodeScheme& scheme, const float* targets, const float* factor,
                       std::size_t columns, float* importance, PartOfRows* parts) {
  float largest = 0.0f;
  for (std::size_t c = 0; c < scheme.block; ++c) {
    importance[c] = factor == nullptr ? 1.0f : factor[c * columns + c];
    largest = importance[c] > largest ? importance[c] : largest;
  }
  for (std::size_t p = 0; p < scheme.block / scheme.part; ++p) {
    float total = 0.0f;
    for (std::size_t c = p * scheme.part; c < (p + 1) * scheme.part; ++c) {
      const float share = importance[c] / largest;
      importance[c] = share > 1e-6f ? share : 1e-6f;
      total += importance[c];
    }
    parts[p] = {targets + p * scheme.part * kTileRows, importance + p * scheme.part, total};
  }
}

// Encodes a block of sixteen rows: `weights`, with the errors of later columns compensated in
// `targets`. With a factor, the weights become errors. `factor` begins with the row and the column
// of the block.
static void encode_block(const CodeScheme& scheme, const Units& units, float* weights,
                         float* targets, const float* factor, std::size_t columns,
                         EncodedRows& out) {
  const std::size_t count = scheme.block / scheme.part;
  float importance[kLargestBlock];
  PartOfRows parts[kMostParts];
  find_parts(scheme, targets, factor, columns, importance, parts);
  Integers integers[kMostParts];
  BlockScales scales = {splat(0.0f), splat(0.0f)};
  if (scheme.most_scale > 0.0f) scales = search_block(scheme, parts, units, integers, out);
  for (std::size_t p = count; p-- > 0;) {
    const std::size_t begin = p * scheme.part, end = begin + scheme.part;
    if (factor != nullptr)
      add_errors(weights + end * kTileRows, factor + end * columns + begin, columns,
                 scheme.block - end, scheme.part, targets + begin * kTileRows);
    CodeGrid grid;
    if (scheme.most_scale > 0.0f) {
      if (factor != nullptr) {
        const Best best = search_integers(scheme, parts[p], search_part(scheme, parts[p], nullptr),
                                          scales.scale, scales.minimum);
        integers[p] = {best.scale, best.minimum};
      }
      store_i8(out.scales[p], integers[p].scale);
      store_i8(out.minimums[p], integers[p].minimum);
      grid = integers[p].grid(scales.scale, scales.minimum);
    } else {
      const Best best = search_part(scheme, parts[p], &units);
      grid = code_grid(units.rounded(scheme, best.scale, out.scale),
                       units.rounded(scheme, best.minimum, out.minimum));
    }
    for (std::size_t c = end; c-- > begin;) {
      const f32x16 code = grid.code(scheme, load(targets + c * kTileRows));
      alignas(16) std::int8_t bytes[kTileRows];
      store_i8(bytes, subtract(code, splat(scheme.low + 128.0f)));
      for (std::size_t lane = 0; lane < kTileRows; ++lane)
        out.codes[c][lane] = static_cast<std::uint8_t>(bytes[lane] + 128);
      if (factor == nullptr) continue;
      const f32x16 error = subtract(load(weights + c * kTileRows), grid.meaning(code));
      store(weights + c * kTileRows, error);
      const float* const row = factor + c * columns;
      for (std::size_t k = begin; k < c; ++k)
        store(targets + k * kTileRows, fma(error, splat(row[k]), load(targets + k * kTileRows)));
    }
  }
}

// Sixteen rows as lanes, in units of their largest weights.
static Units read_rows(const float* source, std::size_t rows, std::size_t columns, float* weights) {
  f32x16 sizes = splat(0.0f);
  for (std::size_t c = 0; c < columns; ++c) {
    for (std::size_t lane = 0; lane < kTileRows; ++lane)
      weights[c * kTileRows + lane] = lane < rows ? source[lane * columns + c] : 0.0f;
    sizes = larger(sizes, size_of(load(weights + c * kTileRows)));
  }
  alignas(64) float unit[kTileRows], inverse[kTileRows];
  store(unit, sizes);
  for (std::size_t lane = 0; lane < kTileRows; ++lane) {
    const int exponent = static_cast<int>(as_bits(unit[lane]) >> 23) - 127;
    const int bounded = exponent < -126 ? -126 : exponent > 126 ? 126 : exponent;
    unit[lane] = as_float(static_cast<std::uint32_t>(127 + bounded) << 23);
    inverse[lane] = as_float(static_cast<std::uint32_t>(127 - bounded) << 23);
  }
  const Units units = {load(unit), load(inverse)};
  for (std::size_t c = 0; c < columns; ++c)
    store(weights + c * kTileRows, multiply(load(weights + c * kTileRows), units.inverse));
  return units;
}

// See Format::encode.
static void encode_tiles(const CodeScheme& scheme, const float* source, std::size_t rows,
                         std::size_t columns, const float* factor, std::size_t first,
                         std::size_t last, void* encoded, float* work) {
  auto* const out = static_cast<std::uint8_t*>(encoded);
  const std::size_t size = columns * kTileRows, block = scheme.block * kTileRows;
  float* const panel = work + kTilesChosen * size;
  float* const targets = panel + columns * kScaled;
  Units units[kTilesChosen];
  for (std::size_t tile = first; tile < last; ++tile)
    units[tile - first] = read_rows(source + tile * size, smaller(kTileRows, rows - tile * kTileRows),
                                    columns, work + (tile - first) * size);
  for (std::size_t end = columns; end > 0; end -= scheme.block) {
    const std::size_t begin = end - scheme.block, later = factor == nullptr ? 0 : columns - end;
    for (std::size_t tile = 0; tile < last - first; ++tile)
      __builtin_memcpy(targets + tile * block, work + tile * size + begin * kTileRows,
                       block * sizeof(float));
    for (std::size_t some = 0; some < scheme.block && later > 0; some += kScaled) {
      copy_panel(factor, columns, begin + some, end, panel);
      for (std::size_t tile = 0; tile < last - first; ++tile)
        add_errors(work + tile * size + end * kTileRows, panel, kScaled, later, kScaled,
                   targets + tile * block + some * kTileRows);
    }
    for (std::size_t tile = first; tile < last; ++tile) {
      EncodedRows encoded_rows;
      encode_block(scheme, units[tile - first], work + (tile - first) * size + begin * kTileRows,
                   targets + (tile - first) * block,
                   factor == nullptr ? nullptr : factor + begin * columns + begin, columns,
                   encoded_rows);
      for (std::size_t lane = 0; lane < kTileRows && tile * kTileRows + lane < rows; ++lane)
        scheme.write(encoded_rows, lane,
                     out + ((tile * kTileRows + lane) * columns + begin) / scheme.block * scheme.bytes);
    }
  }
}

// Whether the description of a format says how a file has it.
template <class D>
concept Encodable = requires(const CodeBlock<D>& in, std::uint8_t* to) { D::write(in, to); };

template <class D>
struct EncodedBlocks {
  static void write(const EncodedRows& rows, std::size_t lane, std::uint8_t* to) {
    CodeBlock<D> block;
    block.scale = rows.scale[lane];
    block.minimum = rows.minimum[lane];
    for (std::size_t p = 0; p < D::block / D::part && D::integers; ++p) {
      block.scales[p] = rows.scales[p][lane];
      block.minimums[p] = static_cast<std::uint8_t>(rows.minimums[p][lane]);
    }
    for (std::size_t c = 0; c < D::block; ++c)
      block.codes[c] = static_cast<std::uint8_t>(rows.codes[c][lane] + kLow + D::offset);
    D::write(block, to);
  }

  static constexpr int kHigh = (1 << D::bits) - 1 - D::offset;
  // Eight bits have the same range on both sides: -128 is no code of a file.
  static constexpr int kLow = D::bits == 8 ? -kHigh : -D::offset;
  static constexpr CodeScheme scheme() {
    CodeScheme s = {D::block, D::part, D::bytes, kLow, kHigh, D::minimum, false, 0, 0, 0, write};
    if constexpr (D::integers) {
      s.least_scale = D::minimum == 0 ? -(D::largest_integer + 1) : 0;
      s.most_scale = D::largest_integer;
      s.most_minimum = D::minimum == 0 ? 0 : D::largest_integer;
    }
    return s;
  }
  static constexpr CodeScheme kScheme = scheme();
  static void encode(const float* source, std::size_t rows, std::size_t columns,
                     const float* factor, std::size_t first, std::size_t last, void* encoded,
                     float* work) {
    encode_tiles(kScheme, source, rows, columns, factor, first, last, encoded, work);
  }
};

template <class D>
constexpr Format format_of_codes() {
  Format format = format_of_blocks<Coded<D>>();
  if constexpr (Encodable<D>) format.encode = EncodedBlocks<D>::encode;
  return format;
}

// Groups of MLX (groups.h).
template <class G, int BITS, bool BRAIN>
struct EncodedGroups {
  static void write(const EncodedRows& rows, std::size_t lane, std::uint8_t* to) {
    write_u16(rows.scale[lane], to);
    write_u16(rows.minimum[lane], to + 2);
    for (std::size_t c = 0; c < G::block; ++c) {
      const std::size_t at = 4 + c * BITS / 8, shift = c * BITS % 8;
      add_bits(rows.codes[c][lane], shift, to[at]);
      if (shift + BITS > 8) add_bits(rows.codes[c][lane] >> (8 - shift), 0, to[at + 1]);
    }
  }
  static constexpr CodeScheme kScheme = {
      G::block, G::block, G::source_bytes(G::block), 0, (1 << BITS) - 1, 1, BRAIN, 0, 0, 0, write};
  static void encode(const float* source, std::size_t rows, std::size_t columns,
                     const float* factor, std::size_t first, std::size_t last, void* encoded,
                     float* work) {
    encode_tiles(kScheme, source, rows, columns, factor, first, last, encoded, work);
  }
};

template <int BITS, std::size_t COLUMNS, class SCALE, bool BRAIN>
constexpr Format format_of_minimums() {
  using G = Group<BITS, COLUMNS, SCALE, Minimum>;
  Format format = format_of_blocks<G>();
  format.encode = EncodedGroups<G, BITS, BRAIN>::encode;
  return format;
}
template <int BITS, std::size_t COLUMNS, class SCALE, bool BRAIN>
constexpr Format format_of_zeros() {
  return format_of_blocks<Group<BITS, COLUMNS, SCALE, ZeroPoint>>();
}

#define TALU_GROUPS_OF(bits, function)                                                 \
  function<bits, 32, NamedHalfScale, false>(), function<bits, 64, NamedHalfScale, false>(), \
      function<bits, 128, NamedHalfScale, false>(), function<bits, 32, BrainScale, true>(), \
      function<bits, 64, BrainScale, true>(), function<bits, 128, BrainScale, true>()
#define TALU_GROUPS                                                                       \
  TALU_GROUPS_OF(2, format_of_minimums), TALU_GROUPS_OF(3, format_of_minimums),           \
      TALU_GROUPS_OF(4, format_of_minimums), TALU_GROUPS_OF(5, format_of_minimums),       \
      TALU_GROUPS_OF(6, format_of_minimums), TALU_GROUPS_OF(8, format_of_minimums),       \
      TALU_GROUPS_OF(4, format_of_zeros), TALU_GROUPS_OF(8, format_of_zeros)
