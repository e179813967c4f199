// What some queries of one KV head find in one chunk of positions, and how results are merged.
//
// A fragment of kernels.inc.

// 2^x for x <= 0 to 2 units in the last place, 2^-126 below -126.
TALU_INLINE f32x16 power(f32x16 x) {
  const f32x16 bounded = at_least(-126.0f, x), n = nearest_integer(bounded);
  const f32x16 r = subtract(bounded, n);
  f32x16 p = splat(1.326472731e-3f);
  p = fma(p, r, splat(9.671512991e-3f));
  p = fma(p, r, splat(5.550733581e-2f));
  p = fma(p, r, splat(2.402224243e-1f));
  p = fma(p, r, splat(6.931470037e-1f));
  p = fma(p, r, splat(1.0f));
  return multiply(p, power_of_two(n));
}

// sums[query][tile] += columns of a tile, times a query's numbers; each sum is one chain. For a few
// queries, the next tiles are requested from memory meanwhile: blocks of the cache are too short for
// the processor's own prefetching.
template <class F, std::size_t TILES, std::size_t QUERIES>
TALU_INLINE void accumulate(const typename F::element* const (&tiles)[TILES],
                            const typename F::element* const (&next)[TILES], std::size_t columns,
                            const float* x, std::size_t x_stride,
                            f32x16 (&sums)[QUERIES][TILES]) {
  constexpr bool kRequests = QUERIES <= 4;
  for (std::size_t column = 0; column < columns; ++column) {
    f32x16 lanes[TILES];
#pragma GCC unroll 4
    for (std::size_t r = 0; r < TILES; ++r) {
      if constexpr (kRequests) __builtin_prefetch(next[r] + column * kTileRows);
      lanes[r] = F::load(tiles[r] + column * kTileRows);
    }
#pragma GCC unroll 12
    for (std::size_t q = 0; q < QUERIES; ++q) {
      const f32x16 number = splat(x[q * x_stride + column]);
#pragma GCC unroll 4
      for (std::size_t r = 0; r < TILES; ++r) sums[q][r] = fma(lanes[r], number, sums[q][r]);
    }
  }
}

// The part of a chunk in the cache that some queries attend to.
template <class F>
struct ChunkOfCache {
  static constexpr std::size_t kTiles = kChunk / kTileRows;
  using element = typename F::element;
  std::size_t begin, end;  // positions; `begin` is a multiple of 16
  std::size_t head_size, lanes;  // elements between tiles of columns
  const element *keys[kTiles], *values[kTiles];
  const float *key_scales[kTiles], *value_scales[kTiles];

  std::size_t tiles() const { return (end - begin + kTileRows - 1) / kTileRows; }

  ChunkOfCache(const HeadCache<F>& cache, std::size_t first, std::size_t last)
      : begin(first / kTileRows * kTileRows),
        end(last),
        head_size(cache.head_size),
        lanes(cache.block_size * kTileRows) {
    for (std::size_t t = 0, position = begin; position < end; position += kTileRows, ++t) {
      keys[t] = cache.key_tile(position);
      values[t] = cache.value_lanes(position);
      if constexpr (F::scaled) {
        key_scales[t] = cache.key_scales(position);
        value_scales[t] = cache.value_scales(position);
      }
    }
  }
};

// The scores of several queries for TILES tiles of positions.
template <class F, std::size_t TILES, std::size_t QUERIES>
static void score_tiles(const ChunkOfCache<F>& chunk, std::size_t tile, const float* queries,
                        std::size_t stride, float* scores) {
  f32x16 sums[QUERIES][TILES];
  const typename F::element *tiles[TILES], *next[TILES];
#pragma GCC unroll 4
  for (std::size_t r = 0; r < TILES; ++r) {
    tiles[r] = chunk.keys[tile + r];
    next[r] = chunk.keys[smaller(tile + TILES + r, chunk.tiles() - 1)];
#pragma GCC unroll 12
    for (std::size_t q = 0; q < QUERIES; ++q) sums[q][r] = splat(0.0f);
  }
  accumulate<F, TILES, QUERIES>(tiles, next, chunk.head_size, queries, stride, sums);
#pragma GCC unroll 4
  for (std::size_t r = 0; r < TILES; ++r)
#pragma GCC unroll 12
    for (std::size_t q = 0; q < QUERIES; ++q) {
      f32x16 score = sums[q][r];
      if constexpr (F::scaled) score = multiply(score, load(chunk.key_scales[tile + r]));
      store(scores + q * AttentionMemory::kStride + (tile + r) * kTileRows, score);
    }
}

// Adds the values of the positions from .. to - 1, times the weights of several queries, to TILES
// tiles of columns.
template <class F, std::size_t TILES, std::size_t QUERIES>
static void add_value_tiles(const ChunkOfCache<F>& chunk, std::size_t from, std::size_t to,
                            std::size_t column, const float* weights, float* out,
                            std::size_t out_stride) {
  f32x16 sums[QUERIES][TILES];
#pragma GCC unroll 12
  for (std::size_t q = 0; q < QUERIES; ++q)
#pragma GCC unroll 4
    for (std::size_t r = 0; r < TILES; ++r)
      sums[q][r] = load(out + q * out_stride + column + r * kTileRows);
  while (from < to) {
    const std::size_t tile = (from - chunk.begin) / kTileRows;
    const std::size_t last = smaller(to, chunk.begin + (tile + 1) * kTileRows);
    const typename F::element *tiles[TILES], *next[TILES];
#pragma GCC unroll 4
    for (std::size_t r = 0; r < TILES; ++r) {
      const std::size_t lanes = (column / kTileRows + r) * chunk.lanes;
      tiles[r] = chunk.values[tile] + lanes + from % kTileRows * kTileRows;
      next[r] = chunk.values[smaller(tile + 1, chunk.tiles() - 1)] + lanes;
    }
    accumulate<F, TILES, QUERIES>(tiles, next, last - from, weights + (from - chunk.begin),
                                  AttentionMemory::kStride, sums);
    from = last;
  }
#pragma GCC unroll 12
  for (std::size_t q = 0; q < QUERIES; ++q)
#pragma GCC unroll 4
    for (std::size_t r = 0; r < TILES; ++r)
      store(out + q * out_stride + column + r * kTileRows, sums[q][r]);
}

// body.run<TILES, QUERIES>(first query, tile) for as many queries and tiles as the registers hold
// sums for, then fewer.
template <std::size_t SIZE = 0, class Body>
static void in_panels(std::size_t first, std::size_t last, std::size_t tile, std::size_t last_tile,
                      const Body& body) {
  constexpr std::size_t QUERIES = kPanels[SIZE], TILES = tiles_at_once(QUERIES);
  for (; first + QUERIES <= last; first += QUERIES) {
    std::size_t t = tile;
    for (; t + TILES <= last_tile; t += TILES) body.template run<TILES, QUERIES>(first, t);
    for (; t < last_tile; ++t) body.template run<1, QUERIES>(first, t);
  }
  if constexpr (QUERIES > 1) in_panels<SIZE + 1>(first, last, tile, last_tile, body);
}

// What a difference of scores is multiplied by to become an exponent of two.
static float exponent_scale(const Attention& op) {
  constexpr float kLog2 = 1.44269504f;
  return op.soft_cap != 0 ? kLog2 : op.scale * kLog2;
}

// exp(score · scale) of a row for the columns begin .. end - 1, relative to the largest, and times the
// scales of their values; returns the sum of those without.
template <class F>
static float weigh_scores(const Attention& op, const ChunkOfCache<F>& chunk, std::size_t begin,
                          std::size_t end, float* scores, float* maximum) {
  constexpr float kInfinite = __builtin_inff();
  const std::size_t first = begin / kTileRows * kTileRows, last = round_up(end, kTileRows);
  if (op.soft_cap != 0)
    for (std::size_t c = first; c < last; c += kTileRows)
      store(scores + c, soft_capped(multiply(load(scores + c), splat(op.scale)), op.soft_cap));
  for (std::size_t c = first; c < begin; ++c) scores[c] = -kInfinite;
  for (std::size_t c = end; c < last; ++c) scores[c] = -kInfinite;
  f32x16 most = splat(-kInfinite);
  for (std::size_t c = first; c < last; c += kTileRows) most = larger(most, load(scores + c));
  *maximum = largest(most);
  // Scores are subtracted before they are scaled: their difference is never positive.
  const f32x16 top = splat(*maximum), scale = splat(exponent_scale(op));
  f32x16 total = splat(0.0f);
  for (std::size_t c = first; c < last; c += kTileRows) {
    f32x16 weight = power(multiply(subtract(load(scores + c), top), scale));
    total = add(total, weight);
    if constexpr (F::scaled) weight = multiply(weight, load(chunk.value_scales[c / kTileRows]));
    store(scores + c, weight);
  }
  return sum(total);
}

// Some queries of one KV head: neighbouring rows of a sequence, and of each the heads that share the
// KV head. The first `offset` of the first row are not among them.
struct Queries {
  std::size_t count, shared, offset;
  std::size_t position;      // of the first row
  std::size_t window, ends;  // where the sequence ends
  bool causal;

  std::size_t row(std::size_t query) const { return (offset + query) / shared; }
  std::size_t end_of(std::size_t query) const { return causal ? position + row(query) + 1 : ends; }
  std::size_t begin_of(std::size_t query) const {
    const std::size_t end = end_of(query);
    return window != 0 && end > window ? end - window : std::size_t{0};
  }
  std::size_t begin() const { return begin_of(0); }
  std::size_t end() const { return end_of(count - 1); }
  // Queries before the first row from this number on.
  std::size_t before(std::size_t rows) const {
    const std::size_t all = rows * shared;
    return all < offset ? 0 : smaller(count, all - offset);
  }
  // Queries that attend to some of the positions from .. to - 1 are first(from) .. last(to) - 1.
  std::size_t first(std::size_t from) const {
    return !causal || position >= from ? 0 : before(from - position);
  }
  std::size_t last(std::size_t to) const {
    if (window == 0) return count;
    return position + 1 >= to + window ? 0 : before(to + window - 1 - position);
  }
};

template <class F>
struct Scoring {
  const ChunkOfCache<F>& chunk;
  const float* queries;
  float* scores;

  template <std::size_t TILES, std::size_t QUERIES>
  void run(std::size_t first, std::size_t tile) const {
    const std::size_t stride = round_up(chunk.head_size, kTileRows);
    score_tiles<F, TILES, QUERIES>(chunk, tile, queries + first * stride, stride,
                                   scores + first * AttentionMemory::kStride);
  }
};

template <class F>
struct Summing {
  const ChunkOfCache<F>& chunk;
  const Queries& queries;
  const float* weights;
  float* sums;
  std::size_t stride;

  // Positions that all queries see are added for all together, the others for each query alone: a
  // weight of zero would not remove a value that is not finite.
  template <std::size_t TILES, std::size_t QUERIES>
  void run(std::size_t first, std::size_t tile) const {
    std::size_t begins[QUERIES], ends[QUERIES];
    for (std::size_t i = 0; i < QUERIES; ++i) {
      const std::size_t begin = queries.begin_of(first + i);
      begins[i] = begin > chunk.begin ? begin : chunk.begin;
      ends[i] = smaller(chunk.end, queries.end_of(first + i));
    }
    const std::size_t end = ends[0], begin = smaller(begins[QUERIES - 1], end);
    for (std::size_t i = 0; i < QUERIES; ++i)
      if (begins[i] < begin) add<TILES, 1>(begins[i], begin, first + i, tile);
    add<TILES, QUERIES>(begin, end, first, tile);
    for (std::size_t i = 0; i < QUERIES; ++i) {
      const std::size_t from = begins[i] > end ? begins[i] : end;
      if (from < ends[i]) add<TILES, 1>(from, ends[i], first + i, tile);
    }
  }
  template <std::size_t TILES, std::size_t QUERIES>
  void add(std::size_t from, std::size_t to, std::size_t query, std::size_t tile) const {
    add_value_tiles<F, TILES, QUERIES>(chunk, from, to, tile * kTileRows,
                                       weights + query * AttentionMemory::kStride,
                                       sums + query * stride, stride);
  }
};

// What the queries find in the chunk that starts at this position.
template <class F>
static void attend_chunk(const Attention& op, const HeadCache<F>& cache, const Queries& queries,
                         std::size_t start, const AttentionMemory& memory, const Attended& out) {
  const std::size_t padded = round_up(op.head_size, kTileRows);
  const ChunkOfCache<F> chunk(cache, queries.begin() > start ? queries.begin() : start,
                              smaller(queries.end(), start + kChunk));
  const std::size_t first = queries.first(start), last = queries.last(chunk.end);
  const std::size_t tiles = chunk.tiles();
  const std::size_t group = tiles_at_once(smaller(last - first, kPanels[0]));
  const Scoring<F> scoring{chunk, memory.queries, memory.scores};
  for (std::size_t t = 0; t < tiles; t += group) {
    const std::size_t next = smaller(tiles, t + group);
    in_panels(queries.first(chunk.begin + t * kTileRows),
              queries.last(smaller(chunk.end, chunk.begin + next * kTileRows)), t, next, scoring);
  }
  for (std::size_t i = first; i < last; ++i) {
    const std::size_t from = queries.begin_of(i), to = smaller(chunk.end, queries.end_of(i));
    out.total[i] = weigh_scores(op, chunk, from > chunk.begin ? from - chunk.begin : 0,
                                to - chunk.begin, memory.scores + i * AttentionMemory::kStride,
                                out.maximum + i);
  }
  for (std::size_t i = first * padded; i < last * padded; i += kTileRows)
    store(out.sums + i, splat(0.0f));
  const Summing<F> summing{chunk, queries, memory.scores, out.sums, padded};
  const std::size_t columns = padded / kTileRows;
  for (std::size_t t = 0; t < columns; t += group)
    in_panels(first, last, t, smaller(columns, t + group), summing);
}

// Adds what the queries found in the chunk that starts at this position to what they found before.
static void merge(const Attention& op, const Queries& queries, std::size_t start,
                  std::size_t padded, const Attended& chunk, const Attended& all) {
  const std::size_t first = queries.first(start);
  const std::size_t last = queries.last(smaller(queries.end(), start + kChunk));
  for (std::size_t i = first; i < last; ++i) {
    const bool is_first = queries.begin_of(i) >= start;
    const float before = is_first ? chunk.maximum[i] : all.maximum[i], here = chunk.maximum[i];
    const float top = here > before ? here : before;
    float factors[kTileRows] = {before - top, here - top};
    store(factors, power(multiply(load(factors), splat(exponent_scale(op)))));
    const f32x16 of_all = splat(factors[0]), of_chunk = splat(factors[1]);
    all.maximum[i] = top;
    all.total[i] =
        is_first ? chunk.total[i] : all.total[i] * factors[0] + chunk.total[i] * factors[1];
    for (std::size_t c = i * padded; c < (i + 1) * padded; c += kTileRows) {
      const f32x16 sum = load(chunk.sums + c);
      store(all.sums + c,
            is_first ? sum : fma(sum, of_chunk, multiply(load(all.sums + c), of_all)));
    }
  }
}
