// The scales and minimums of a block with the least squared error, weighted by the importance of the
// columns, for sixteen rows as lanes.
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
