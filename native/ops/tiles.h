// Packs and multiplies tiles of 16 output rows.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.

// A target with matrix registers specialises this for the formats that they multiply
// (formats/matrix_*.h).
template <class F>
struct Matrices {
  static constexpr bool available = false;
};

template <class F>
constexpr std::size_t place_in_tile(std::size_t column, std::size_t lane) {
  return (column / F::group * kTileRows + lane) * F::group + column % F::group;
}

template <class F>
static void pack(const void* source, std::size_t rows, std::size_t columns, std::size_t first,
                 std::size_t last, void* packed) {
  using element = typename F::element;
  constexpr std::size_t kColumns = 64;  // of a tile that are written together
  const std::size_t padded = round_up(columns, F::group);
  for (std::size_t tile = first; tile < last; ++tile) {
    element* out = static_cast<element*>(packed) + tile * padded * kTileRows;
    for (std::size_t begin = 0; begin < padded; begin += kColumns, out += kColumns * kTileRows) {
      for (std::size_t lane = 0; lane < kTileRows; ++lane) {
        const std::size_t row = tile * kTileRows + lane;
        const element* const from = static_cast<const element*>(source) + row * columns + begin;
        if (row < rows && begin + kColumns <= columns) {
          for (std::size_t column = 0; column < kColumns; column += F::group)
            __builtin_memcpy(out + place_in_tile<F>(column, lane), from + column,
                             F::group * sizeof(element));
        } else {
          for (std::size_t column = 0; column < smaller(kColumns, padded - begin); ++column)
            out[place_in_tile<F>(column, lane)] =
                row < rows && begin + column < columns ? from[column] : element{0};
        }
      }
    }
  }
}

template <class F>
static void dequantize_row(const void* packed, std::size_t row, std::size_t columns, float* out) {
  const std::size_t tile_elements = round_up(columns, F::group) * kTileRows;
  const auto* const tile =
      static_cast<const typename F::element*>(packed) + row / kTileRows * tile_elements;
  for (std::size_t column = 0; column < columns; ++column)
    out[column] = F::widen(tile[place_in_tile<F>(column, row % kTileRows)]);
}

// As many tiles at once as the registers can hold sums for.
constexpr std::size_t tiles_at_once(std::size_t tokens, std::size_t sums = kSumsAtOnce) {
  return sums >= 4 * tokens ? 4 : sums >= 2 * tokens ? 2 : 1;
}

// sums[token][tile] += tile · x for all columns: the only product of weights in floats with
// activations. Each sum is one chain of additions, columns ascending. A target may define add_columns
// for some formats and numbers of tokens and tiles.
template <class F, std::size_t TILES, std::size_t TOKENS>
static void add_tiles(const typename F::element* const* tiles, std::size_t columns,
                      const typename F::activation* x, std::size_t x_stride, float* sums,
                      std::size_t sums_stride) {
  f32x16 sum[TOKENS][TILES];
#pragma GCC unroll 12
  for (std::size_t t = 0; t < TOKENS; ++t)
#pragma GCC unroll 4
    for (std::size_t r = 0; r < TILES; ++r)
      sum[t][r] = load(sums + t * sums_stride + r * kTileRows);
  const typename F::element* w[TILES];
#pragma GCC unroll 4
  for (std::size_t r = 0; r < TILES; ++r) w[r] = tiles[r];
  if constexpr (requires { add_columns(w, columns, x, x_stride, sum); })
    add_columns(w, columns, x, x_stride, sum);
  else
    // This loop order keeps one tile's weights in registers together with the sums.
    for (std::size_t column = 0; column < columns; column += F::group) {
#pragma GCC unroll 2
      for (std::size_t part = 0; part < F::parts; ++part)
#pragma GCC unroll 4
        for (std::size_t r = 0; r < TILES; ++r) {
          const auto weights = F::load_part(w[r] + column * kTileRows, part);
#pragma GCC unroll 12
          for (std::size_t t = 0; t < TOKENS; ++t)
            sum[t][r] = F::multiply_add(weights, x + t * x_stride + column + part, sum[t][r]);
        }
    }
#pragma GCC unroll 12
  for (std::size_t t = 0; t < TOKENS; ++t)
#pragma GCC unroll 4
    for (std::size_t r = 0; r < TILES; ++r)
      store(sums + t * sums_stride + r * kTileRows, sum[t][r]);
}

// The same for any number of tiles and tokens: panels of as many tokens as possible, then fewer.
template <class F, std::size_t SIZE = 0>
static void add_panels(std::size_t tokens, const typename F::element* const* tiles,
                       std::size_t tile_count, std::size_t columns,
                       const typename F::activation* x, std::size_t x_stride, float* sums,
                       std::size_t sums_stride) {
  constexpr std::size_t TOKENS = F::panels[SIZE], TILES = tiles_at_once(TOKENS, F::sums_at_once);
  for (; tokens >= TOKENS; tokens -= TOKENS) {
    std::size_t r = 0;
    for (; r + TILES <= tile_count; r += TILES)
      add_tiles<F, TILES, TOKENS>(tiles + r, columns, x, x_stride, sums + r * kTileRows,
                                  sums_stride);
    for (; r < tile_count; ++r)
      add_tiles<F, 1, TOKENS>(tiles + r, columns, x, x_stride, sums + r * kTileRows, sums_stride);
    x += TOKENS * x_stride;
    sums += TOKENS * sums_stride;
  }
  if constexpr (TOKENS > 1)
    add_panels<F, SIZE + 1>(tokens, tiles, tile_count, columns, x, x_stride, sums, sums_stride);
}

template <class F>
static void multiply_tiles(const void* packed, std::size_t tiles, std::size_t columns,
                           const std::byte* x, std::size_t x_stride, std::size_t tokens,
                           float* sums) {
  if constexpr (Matrices<F>::available)
    return Matrices<F>::multiply_tiles(static_cast<const std::byte*>(packed), tiles, columns, x,
                                       x_stride, tokens, sums);
  using activation = typename F::activation;
  constexpr std::size_t kStride = kTilesAtOnce * kTileRows;
  const std::size_t padded = round_up(columns, F::group);
  const std::size_t at_once =
      tokens > F::panels[0] ? smaller(F::columns_at_once, padded) : padded;
  for (std::size_t i = 0; i < tokens * kStride; i += kTileRows) store(sums + i, splat(0.0f));
  for (std::size_t begin = 0; begin < padded; begin += at_once) {
    const std::size_t count = smaller(at_once, padded - begin);
    const typename F::element* starts[kTilesAtOnce];
    for (std::size_t r = 0; r < tiles; ++r)
      starts[r] = static_cast<const typename F::element*>(packed) +
                  (r * padded + begin) * kTileRows;
    const auto* const from = reinterpret_cast<const activation*>(x) + begin;
    const std::size_t group = tiles_at_once(smaller(tokens, F::panels[0]), F::sums_at_once);
    for (std::size_t r = 0; r < tiles; r += group)
      add_panels<F>(tokens, starts + r, smaller(group, tiles - r), count, from,
                    x_stride / sizeof(activation), sums + r * kTileRows, kStride);
  }
}

template <class F>
static void quantize_row(const float* x, std::size_t columns, void* out) {
  auto* const to = static_cast<typename F::activation*>(out);
  if constexpr (sizeof(*to) == sizeof(float)) {
    for_columns(columns, [&](std::size_t c, std::size_t n) {
      store_some(to + c, load_some(x + c, n), n);
    });
  } else {
    for_columns(columns, [&](std::size_t c, std::size_t n) {
      std::uint16_t rounded[kTileRows];
      F::store_lanes(rounded, load_some(x + c, n));
      __builtin_memcpy(to + c, rounded, n * sizeof rounded[0]);
    });
  }
  for (std::size_t c = columns; c < round_up(columns, F::group); ++c) to[c] = 0;
}

template <class F>
static std::size_t tile_bytes(std::size_t columns) {
  return round_up(columns, F::group) * kTileRows * sizeof(typename F::element);
}
template <class F>
static std::size_t row_bytes(std::size_t columns) {
  return round_up(columns, kTileRows) * sizeof(typename F::activation);
}

template <class F>
constexpr Format format_of() {
  constexpr bool floats = sizeof(typename F::activation) == sizeof(float);
  return {F::name,
          floats ? "f32" : "bf16",
          1,
          sizeof(typename F::element),
          floats ? F::group : 0,
          tile_bytes<F>,
          row_bytes<F>,
          quantize_row<F>,
          pack<F>,
          dequantize_row<F>,
          multiply_tiles<F>};
}
