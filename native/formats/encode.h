// Chooses the codes of the formats that files have: scales, minimums and codes with the least
// squared error, weighted by the importance of the columns, for sixteen rows as lanes. With a factor
// (choose.h), later columns are chosen first and earlier ones compensate their errors.
//
// Scales are rounded to their stored type before codes are chosen for them. All numbers are in units
// of their row, a power of two.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.

constexpr std::size_t kLargestBlock = 256, kMostParts = 16;

// Sixteen rows of a block: codes and integers of parts as files have them, codes from 0 on.
struct EncodedRows {
  alignas(64) std::uint16_t scale[kTileRows], minimum[kTileRows];
  std::int8_t scales[kMostParts][kTileRows], minimums[kMostParts][kTileRows];
  std::uint8_t codes[kLargestBlock][kTileRows];
};

// A format as the search sees it: weight = scale · code + minimum.
struct CodeScheme {
  std::size_t block, part, bytes;  // columns of a block and of a part with one scale; bytes of a block
  float low, high;                 // codes
  int minimum;                     // 0: there is none; 1: any; -1: none above zero
  bool brain;                      // scale and minimum are stored in bf16, not f16
  // Integers of parts, which multiply the scale of the block; 0 if there are none.
  float least_scale, most_scale, most_minimum;
  void (*write)(const EncodedRows& rows, std::size_t lane, std::uint8_t* to);
};

// How the numbers of sixteen rows are rounded when they are stored.
struct Units {
  f32x16 unit, inverse;

  f32x16 rounded(const CodeScheme& scheme, f32x16 x, std::uint16_t* stored) const {
    const f32x16 in_file = multiply(x, unit);
    if (scheme.brain)
      store_bf16(stored, limited(in_file, -0x1p120f, 0x1p120f));
    else
      store_f16(stored, limited(in_file, -65504.0f, 65504.0f));
    return multiply(scheme.brain ? load_bf16(stored) : load_f16(stored), inverse);
  }
};

// 1 / x, and 0 for 0.
TALU_INLINE f32x16 inverse_of(f32x16 x) {
  return divide(x, larger(multiply(x, x), splat(1e-36f)));
}
TALU_INLINE f32x16 size_of(f32x16 x) { return larger(x, subtract(splat(0.0f), x)); }
TALU_INLINE f32x16 bounded_ratio(f32x16 a, f32x16 b) {
  return limited(divide(a, larger(b, splat(1e-20f))), -1e4f, 1e4f);
}
// The unknown x of the equations xx·x + xy·y = xb, xy·x + yy·y = yb. If they have no clear solution,
// that of y = 0.
TALU_INLINE f32x16 solved(f32x16 xx, f32x16 xy, f32x16 yy, f32x16 xb, f32x16 yb) {
  const f32x16 product = multiply(xx, yy), determinant = subtract(product, multiply(xy, xy));
  const f32x16 both = subtract(multiply(xb, yy), multiply(yb, xy));
  return b_if_negative(subtract(determinant, fma(product, splat(1e-5f), splat(1e-20f))),
                       bounded_ratio(both, determinant), bounded_ratio(xb, xx));
}

struct CodeGrid {
  f32x16 scale, inverse, minimum;

  f32x16 code(const CodeScheme& scheme, f32x16 weight) const {
    return limited(nearest_integer(multiply(subtract(weight, minimum), inverse)), scheme.low,
                   scheme.high);
  }
  f32x16 meaning(f32x16 code) const { return add(multiply(code, scale), minimum); }
};
TALU_INLINE CodeGrid code_grid(f32x16 scale, f32x16 minimum) {
  return {scale, inverse_of(scale), minimum};
}

// Part of a block: its weights, and the importance of its columns with their sum.
struct PartOfRows {
  const float *weights, *importance;
  float total;
};

// The error of a grid, and sums over its codes c and weights x for a least-squares fit.
struct Fit {
  f32x16 error, c, cc, x, cx;
};

[[gnu::noinline]] static Fit fit(const CodeScheme& scheme, const PartOfRows& part,
                                 const CodeGrid& grid) {
  Fit sums;
  sums.error = sums.c = sums.cc = sums.x = sums.cx = splat(0.0f);
  for (std::size_t k = 0; k < scheme.part; ++k) {
    const f32x16 weight = load(part.weights + k * kTileRows);
    const f32x16 importance = splat(part.importance[k]);
    const f32x16 code = grid.code(scheme, weight), weighted = multiply(code, importance);
    const f32x16 difference = subtract(grid.meaning(code), weight);
    sums.error = fma(multiply(difference, difference), importance, sums.error);
    sums.c = add(sums.c, weighted);
    sums.cc = fma(code, weighted, sums.cc);
    sums.x = fma(weight, importance, sums.x);
    sums.cx = fma(weight, weighted, sums.cx);
  }
  return sums;
}

// The scale and the minimum with the least squared error for the codes of a fit.
static CodeGrid fitted(const CodeScheme& scheme, const PartOfRows& part, const Fit& sums) {
  const f32x16 alone = bounded_ratio(sums.cx, sums.cc), total = splat(part.total);
  if (scheme.minimum == 0) return code_grid(alone, splat(0.0f));
  const f32x16 scale = solved(sums.cc, sums.c, total, sums.cx, sums.x);
  const f32x16 minimum = divide(subtract(sums.x, multiply(scale, sums.c)), total);
  if (scheme.minimum > 0) return code_grid(scale, minimum);
  const f32x16 above = subtract(splat(0.0f), minimum);  // negative if the minimum is not allowed
  return code_grid(b_if_negative(above, scale, alone), smaller_of(minimum, splat(0.0f)));
}

// The best grid of those that were tried.
struct Best {
  f32x16 error, scale, minimum;

  static Best none() { return {splat(3e38f), splat(0.0f), splat(0.0f)}; }
  void keep(f32x16 other_error, f32x16 other_scale, f32x16 other_minimum) {
    const f32x16 better = subtract(other_error, error);
    scale = b_if_negative(better, scale, other_scale);
    minimum = b_if_negative(better, minimum, other_minimum);
    error = smaller_of(other_error, error);
  }
};

// Grids for all or most of the range of a part, each improved by least squares. Without units they
// are not rounded.
static void try_grid(const CodeScheme& scheme, const PartOfRows& part, CodeGrid grid,
                     const Units* units, Best& best) {
  constexpr int kFits = 3;
  std::uint16_t unused[kTileRows];
  for (int i = 0; i < kFits; ++i) {
    if (units != nullptr)
      grid = code_grid(units->rounded(scheme, grid.scale, unused),
                       scheme.minimum == 0 ? grid.minimum
                                           : units->rounded(scheme, grid.minimum, unused));
    const Fit sums = fit(scheme, part, grid);
    best.keep(sums.error, grid.scale, grid.minimum);
    grid = fitted(scheme, part, sums);
  }
}

// How far the weights reach beyond a grid that is tried, in steps of the grid.
constexpr float kBeyond[] = {0.0f, 0.4f, -0.4f, 0.8f, -0.8f, 1.2f};

static Best search_part(const CodeScheme& scheme, const PartOfRows& part, const Units* units) {
  f32x16 low, high;
  low = high = load(part.weights);
  for (std::size_t k = 1; k < scheme.part; ++k) {
    const f32x16 weight = load(part.weights + k * kTileRows);
    low = smaller_of(low, weight);
    high = larger(high, weight);
  }
  Best best = Best::none();
  if (scheme.minimum == 0) {
    const f32x16 other = add(low, high);
    const f32x16 extreme = b_if_negative(other, high, low);  // the weight of the largest size
    for (const float end : {scheme.low, scheme.high})
      for (const float beyond : kBeyond)
        try_grid(scheme, part,
                 code_grid(divide(extreme, splat(end < 0.0f ? end - beyond : end + beyond)),
                           splat(0.0f)),
                 units, best);
    return best;
  }
  if (scheme.minimum < 0) low = smaller_of(low, splat(0.0f));
  const f32x16 width = subtract(high, low);
  for (const float below : kBeyond)
    for (const float above : kBeyond) {
      const f32x16 scale = divide(width, splat(scheme.high + below + above));
      const f32x16 minimum = fma(scale, splat(below), low);
      try_grid(scheme, part,
               code_grid(scale, scheme.minimum < 0 ? smaller_of(minimum, splat(0.0f)) : minimum),
               units, best);
    }
  return best;
}

// Scale and minimum of a part as integers that multiply those of the block.
struct Integers {
  f32x16 scale, minimum;

  CodeGrid grid(f32x16 block_scale, f32x16 block_minimum) const {
    return code_grid(multiply(scale, block_scale),
                     subtract(splat(0.0f), multiply(minimum, block_minimum)));
  }
};

// The best integers near those of a real grid, for a scale and a minimum of the block.
static Best search_integers(const CodeScheme& scheme, const PartOfRows& part, const Best& real,
                            f32x16 block_scale, f32x16 block_minimum) {
  const f32x16 middle = nearest_integer(multiply(real.scale, inverse_of(block_scale)));
  const f32x16 inverse_minimum = inverse_of(block_minimum);
  Best best = Best::none();  // of the integers
  for (const float step : {0.0f, -1.0f, 1.0f}) {
    Integers tried = {
        limited(add(middle, splat(step)), scheme.least_scale, scheme.most_scale), splat(0.0f)};
    f32x16 minimum = real.minimum;
    for (int i = 0; i < (scheme.minimum == 0 ? 1 : 2); ++i) {
      if (scheme.minimum != 0)
        tried.minimum = limited(
            nearest_integer(multiply(subtract(splat(0.0f), minimum), inverse_minimum)), 0.0f,
            scheme.most_minimum);
      const CodeGrid grid = tried.grid(block_scale, block_minimum);
      const Fit sums = fit(scheme, part, grid);
      best.keep(sums.error, tried.scale, tried.minimum);
      minimum = divide(subtract(sums.x, multiply(grid.scale, sums.c)), splat(part.total));
    }
  }
  return best;
}

// Sums for the least-squares scale and minimum of a block whose parts have integers.
struct BlockFit {
  f32x16 error, ss, sm, mm, xs, xm;

  static BlockFit none() {
    const f32x16 zero = splat(0.0f);
    return {zero, zero, zero, zero, zero, zero};
  }
  void add_part(const PartOfRows& part, const Fit& sums, const Integers& integers) {
    const f32x16 s = integers.scale, m = integers.minimum;
    error = add(error, sums.error);
    ss = fma(multiply(s, s), sums.cc, ss);
    sm = fma(multiply(s, m), sums.c, sm);
    mm = fma(multiply(m, m), splat(part.total), mm);
    xs = fma(s, sums.cx, xs);
    xm = fma(m, sums.x, xm);
  }
  // weight = scale · s c - minimum · m
  f32x16 scale() const {
    const f32x16 zero = splat(0.0f);
    return solved(ss, subtract(zero, sm), mm, xs, subtract(zero, xm));
  }
  f32x16 minimum(f32x16 scale) const {
    return bounded_ratio(subtract(multiply(scale, sm), xm), mm);
  }
};

// Scale, minimum and integers of a block. `parts` are its parts; the integers are written to
// `integers` and the rounded numbers are returned.
struct BlockScales {
  f32x16 scale, minimum;
};
static BlockScales search_block(const CodeScheme& scheme, const PartOfRows* parts,
                                const Units& units, Integers* integers, EncodedRows& out) {
  constexpr int kFits = 3;
  const std::size_t count = scheme.block / scheme.part;
  Best real[kMostParts];
  f32x16 low = splat(0.0f), high = low, deepest = low;
  for (std::size_t p = 0; p < count; ++p) {
    real[p] = search_part(scheme, parts[p], nullptr);
    low = smaller_of(low, real[p].scale);
    high = larger(high, real[p].scale);
    deepest = smaller_of(deepest, real[p].minimum);
  }
  // The scale of the largest size gets the integer of the largest size.
  const f32x16 extreme = b_if_negative(add(low, high), high, low);
  const bool has_signs = scheme.least_scale < 0.0f;
  BlockScales tried = {
      divide(has_signs ? extreme : high, splat(has_signs ? scheme.least_scale : scheme.most_scale)),
      divide(deepest, splat(scheme.most_minimum > 0.0f ? -scheme.most_minimum : -1.0f))};
  Best best = Best::none();
  for (int i = 0; i < kFits; ++i) {
    alignas(64) std::uint16_t unused[kTileRows];
    tried = {units.rounded(scheme, tried.scale, unused),
             units.rounded(scheme, tried.minimum, unused)};
    BlockFit sums = BlockFit::none();
    Integers own[kMostParts];
    for (std::size_t p = 0; p < count; ++p) {
      const Best found = search_integers(scheme, parts[p], real[p], tried.scale, tried.minimum);
      own[p] = {found.scale, found.minimum};
      sums.add_part(parts[p], fit(scheme, parts[p], own[p].grid(tried.scale, tried.minimum)), own[p]);
    }
    const f32x16 better = subtract(sums.error, best.error);
    for (std::size_t p = 0; p < count; ++p)
      integers[p] = i == 0 ? own[p]
                           : Integers{b_if_negative(better, integers[p].scale, own[p].scale),
                                      b_if_negative(better, integers[p].minimum, own[p].minimum)};
    best.keep(sums.error, tried.scale, tried.minimum);
    tried.scale = sums.scale();
    tried.minimum = sums.minimum(tried.scale);
  }
  return {units.rounded(scheme, best.scale, out.scale),
          units.rounded(scheme, best.minimum, out.minimum)};
}

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
