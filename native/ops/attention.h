// Attention over the paged cache, causal or over the whole sequence, in chunks of positions.
//
// A chunk begins at a multiple of kChunk. Its scores, their largest, the weights relative to that, and
// the sums of the weights and of the weighted values depend on the row and the chunk alone, and the
// results of a row's chunks are merged in their order. So a row has the same bits whatever it is
// computed together with, and the chunks of a row can be divided among threads.
//
// A fragment of operations.inc.

constexpr std::size_t kChunk = 256;         // positions
constexpr std::size_t kQueriesAtOnce = 24;  // of one KV head; their scores stay in the first cache
// Memory for the results of chunks that are computed apart from each other.
constexpr std::size_t kMostSharedFloats = std::size_t{1} << 20;

// What some queries found in one chunk, or in all chunks so far.
struct Attended {
  float* maximum;  // of the scores
  float* total;    // of the weights
  float* sums;     // of the weighted values: (queries, head size rounded up)

  static constexpr std::size_t floats(std::size_t queries, std::size_t padded) {
    return 2 * round_up(queries, kTileRows) + queries * padded;
  }
  static Attended at(float* memory, std::size_t queries) {
    const std::size_t count = round_up(queries, kTileRows);
    return {memory, memory + count, memory + 2 * count};
  }
};

// The scratch memory of a worker.
struct AttentionMemory {
  static constexpr std::size_t kStride = kChunk + kTileRows;  // of scores, in several sets of a cache
  float *queries, *scores, *chunk, *all;

  static constexpr std::size_t floats(std::size_t queries, std::size_t head_size) {
    return queries * (round_up(head_size, kTileRows) + kStride) +
           2 * Attended::floats(queries, round_up(head_size, kTileRows));
  }
  static AttentionMemory at(float* memory, std::size_t queries, std::size_t head_size) {
    const std::size_t padded = round_up(head_size, kTileRows);
    float* const scores = memory + queries * padded;
    float* const chunk = scores + queries * kStride;
    return {memory, scores, chunk, chunk + Attended::floats(queries, padded)};
  }
};

struct Attention {
  static constexpr char kind[] = "attention";
  std::size_t head_size, layer, window;  // a window of 0 positions is all of them
  std::uint32_t kv_heads, shared;        // KV heads, and query heads of each
  float scale, soft_cap;                 // of the scores; a cap of 0 is none
  bool causal;                           // rows do not attend to later rows

#if TALU_PREPARES
  static Attention prepare(Preparation& op) {
    op.reads(3, 0);
    op.same_width(0);
    op.all_rows();
    const std::size_t head_size = op.divides_width("head_size"), layer = op.integer("layer");
    check_heads(op, head_size, layer);
    const double scale = op.number("scale");
    op.require(scale > 0, "scale is " + std::to_string(scale) + ", expected more than 0");
    const double cap = op.number("soft_cap");
    op.require(cap >= 0, "soft_cap is " + std::to_string(cap) + ", expected 0 or more");
    const std::size_t window = op.integer("window");
    const bool causal = op.integer("causal") != 0;
    op.require(causal || window == 0, "it is not causal and has a window of " +
                                          std::to_string(window) +
                                          "; a window needs causal attention");
    if (!causal) op.whole_sequences();
    op.reads_back(window);
    const auto kv_heads = static_cast<std::uint32_t>(op.width_of(1) / head_size);
    const auto shared = static_cast<std::uint32_t>(op.width() / op.width_of(1));
    return {head_size, layer,  window, kv_heads, shared, static_cast<float>(scale),
            static_cast<float>(cap), causal};
  }
  static void check_heads(const Preparation& op, std::size_t size, std::size_t layer) {
    const std::size_t keys = op.width_of(1), values = op.width_of(2);
    op.require(keys == values, "keys have " + std::to_string(keys) + " columns, values " +
                                   std::to_string(values) + ", expected as many");
    op.require(keys % size == 0 && op.width() % keys == 0,
               "queries have " + std::to_string(op.width()) + " columns and keys " +
                   std::to_string(keys) + ", expected multiples of the head size " +
                   std::to_string(size) + ", queries a multiple of keys");
    op.cache_layer(layer, keys / size, size);
  }
  std::size_t scratch(const StepSize& size) const {
    const std::size_t queries = smaller(size.block_rows * shared, kQueriesAtOnce);
    return AttentionMemory::floats(queries, head_size) * sizeof(float);
  }
  // At least what the results of the chunks take, if they are few.
  std::size_t shared_scratch(const StepSize& size) const {
    const std::size_t padded = round_up(head_size, kTileRows);
    const std::size_t chunks = round_up(size.positions, kChunk) / kChunk;
    const std::size_t floats = chunks * size.rows * kv_heads * Attended::floats(shared, padded);
    return smaller(floats, kMostSharedFloats) * sizeof(float);
  }
#else
  void run(const Node& node, const Step& step) const { step.cache.format->attention(node, step); }
#endif
};

#if !TALU_PREPARES
// 2^x to 2 units in the last place, 2^-126 below -126; x is at most 127.
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

// sums[query][tile] += columns of a tile, times a query's numbers; each sum is one chain.
template <class F, std::size_t TILES, std::size_t QUERIES>
TALU_INLINE void accumulate(const typename F::element* const (&tiles)[TILES], std::size_t columns,
                            const float* x, std::size_t x_stride,
                            f32x16 (&sums)[QUERIES][TILES]) {
  for (std::size_t column = 0; column < columns; ++column)
#pragma GCC unroll 4
    for (std::size_t r = 0; r < TILES; ++r) {
      const f32x16 lanes = F::load(tiles[r] + column * kTileRows);
#pragma GCC unroll 12
      for (std::size_t q = 0; q < QUERIES; ++q)
        sums[q][r] = fma(lanes, splat(x[q * x_stride + column]), sums[q][r]);
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
  const typename F::element* tiles[TILES];
#pragma GCC unroll 4
  for (std::size_t r = 0; r < TILES; ++r) {
    tiles[r] = chunk.keys[tile + r];
#pragma GCC unroll 12
    for (std::size_t q = 0; q < QUERIES; ++q) sums[q][r] = splat(0.0f);
  }
  accumulate<F, TILES, QUERIES>(tiles, chunk.head_size, queries, stride, sums);
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
    const std::size_t next = smaller(to, chunk.begin + (tile + 1) * kTileRows);
    const typename F::element* tiles[TILES];
#pragma GCC unroll 4
    for (std::size_t r = 0; r < TILES; ++r)
      tiles[r] = chunk.values[tile] + (column / kTileRows + r) * chunk.lanes +
                 from % kTileRows * kTileRows;
    accumulate<F, TILES, QUERIES>(tiles, next - from, weights + (from - chunk.begin),
                                  AttentionMemory::kStride, sums);
    from = next;
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

// exp(score · scale) of a row for the columns begin .. end - 1, relative to the largest, and times the
// scales of their values; returns the sum of those without.
template <class F>
static float weigh_scores(const Attention& op, const ChunkOfCache<F>& chunk, std::size_t begin,
                          std::size_t end, float* scores, float* maximum) {
  constexpr float kLog2 = 1.44269504f, kInfinite = __builtin_inff();
  const std::size_t first = begin / kTileRows * kTileRows, last = round_up(end, kTileRows);
  float scale = op.scale * kLog2;
  if (op.soft_cap != 0) {
    for (std::size_t c = first; c < last; c += kTileRows)
      store(scores + c, soft_capped(multiply(load(scores + c), splat(op.scale)), op.soft_cap));
    scale = kLog2;
  }
  for (std::size_t c = first; c < begin; ++c) scores[c] = -kInfinite;
  for (std::size_t c = end; c < last; ++c) scores[c] = -kInfinite;
  f32x16 most = splat(-kInfinite);
  for (std::size_t c = first; c < last; c += kTileRows) most = larger(most, load(scores + c));
  const float top = largest(most) * scale;
  *maximum = top;
  f32x16 total = splat(0.0f);
  for (std::size_t c = first; c < last; c += kTileRows) {
    f32x16 weight = power(fma(load(scores + c), splat(scale), splat(-top)));
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
  const std::size_t tiles = (chunk.end - chunk.begin + kTileRows - 1) / kTileRows;
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
static void merge(const Queries& queries, std::size_t start, std::size_t padded,
                  const Attended& chunk, const Attended& all) {
  const std::size_t first = queries.first(start);
  const std::size_t last = queries.last(smaller(queries.end(), start + kChunk));
  for (std::size_t i = first; i < last; ++i) {
    const bool is_first = queries.begin_of(i) >= start;
    const float before = is_first ? chunk.maximum[i] : all.maximum[i], here = chunk.maximum[i];
    const float top = here > before ? here : before;
    float factors[kTileRows] = {before - top, here - top};
    store(factors, power(load(factors)));
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

// One KV head of a query block, or some of its queries.
template <class F>
struct Attending {
  const Step& step;
  const Attention& op;
  const Value &q, &out;
  const QueryBlock& rows;
  std::size_t kv_head, skipped;  // queries of the block before these
  Queries queries;
  HeadCache<F> cache;

  Attending(const Node& node, const Step& now, const QueryBlock& block, std::size_t head,
            std::size_t first = 0)
      : step(now),
        op(node.as<Attention>()),
        q(now.values[node.inputs[0]]),
        out(now.values[node.output]),
        rows(block),
        kv_head(head),
        skipped(first),
        queries{smaller((block.last - block.first) * op.shared - first, kQueriesAtOnce),
                op.shared,
                first % op.shared,
                static_cast<std::size_t>(now.positions[block.first]) + first / op.shared,
                op.window,
                block.positions,
                op.causal},
        cache(now.cache, now.block_tables + block.sequence * now.table_width, op.layer, head,
              op.head_size) {}

  std::size_t padded() const { return round_up(op.head_size, kTileRows); }
  std::size_t start() const { return queries.begin() / kChunk * kChunk; }
  std::size_t chunks() const { return round_up(queries.end() - start(), kChunk) / kChunk; }
  std::size_t floats() const { return Attended::floats(queries.count, padded()); }
  float* row(const Value& of, std::size_t query) const {
    const std::size_t head = kv_head * op.shared + (skipped + query) % op.shared;
    return of.row(rows.first + (skipped + query) / op.shared) + head * op.head_size;
  }
  AttentionMemory memory(int worker) const {
    auto* const own = step.scratch + static_cast<std::size_t>(worker) * step.scratch_bytes;
    return AttentionMemory::at(reinterpret_cast<float*>(own), queries.count, op.head_size);
  }
  void read(const AttentionMemory& to) const {
    for (std::size_t i = 0; i < queries.count; ++i) {
      float* const copy = to.queries + i * padded();
      if constexpr (F::rotated)
        rotate_head(row(q, i), op.head_size, copy);
      else
        for_columns(op.head_size, [&](std::size_t c, std::size_t n) {
          store(copy + c, load_some(row(q, i) + c, n));
        });
    }
  }
  void chunk(std::size_t number, const AttentionMemory& own, const Attended& result) const {
    attend_chunk(op, cache, queries, start() + number * kChunk, own, result);
  }
  // `result(chunk)` is what the queries found in a chunk.
  template <class Result>
  void merge_all(float* memory, Result result) const {
    if (chunks() == 1) return write(result(0));
    const Attended all = Attended::at(memory, queries.count);
    for (std::size_t c = 0; c < chunks(); ++c)
      merge(queries, start() + c * kChunk, padded(), result(c), all);
    write(all);
  }
  void write(const Attended& all) const {
    for (std::size_t i = 0; i < queries.count; ++i) {
      const f32x16 factor = splat(1.0f / all.total[i]);
      for_columns(op.head_size, [&](std::size_t c, std::size_t n) {
        store_some(row(out, i) + c, multiply(load(all.sums + i * padded() + c), factor), n);
      });
    }
  }
};

// Attention whose KV heads and query blocks are too few for the threads, divided by chunks as well.
template <class F>
class Divided {
 public:
  Divided(const Node& node, const Step& step) : node_(node), step_(step) {
    const Attention& op = node.as<Attention>();
    heads_ = op.kv_heads;
    const std::size_t blocks = step.query_block_count;
    possible_ = step.threads > 1 && blocks <= kBlocks &&
                blocks * heads_ < kItemsOfThread * static_cast<std::size_t>(step.threads);
    for (std::size_t i = 0; possible_ && i < blocks; ++i) {
      const Attending<F> some(node, step, step.query_blocks[i], 0);
      places_[i] = {items_, floats_};
      items_ += some.chunks() * heads_;
      floats_ += some.chunks() * heads_ * some.floats();
      const QueryBlock& rows = step.query_blocks[i];
      possible_ = floats_ <= kMostSharedFloats &&
                  (rows.last - rows.first) * op.shared <= kQueriesAtOnce;
    }
    possible_ = possible_ && items_ > blocks * heads_;
  }
  bool possible() const { return possible_; }

  void run(std::size_t work) const {
    auto attend_some = [&](std::size_t item, int worker) {
      std::size_t block = step_.query_block_count - 1;
      while (places_[block].item > item) --block;
      const std::size_t place = item - places_[block].item;
      const Attending<F> some(node_, step_, step_.query_blocks[block], place % heads_);
      const AttentionMemory own = some.memory(worker);
      some.read(own);
      some.chunk(place / heads_, own, result(some, block, place));
    };
    for_each(step_, items_, work, attend_some);
    auto merge_some = [&](std::size_t item, int worker) {
      const std::size_t block = item / heads_, head = item % heads_;
      const Attending<F> some(node_, step_, step_.query_blocks[block], head);
      some.merge_all(some.memory(worker).all, [&](std::size_t chunk) {
        return result(some, block, chunk * heads_ + head);
      });
    };
    for_each(step_, step_.query_block_count * heads_, floats_, merge_some);
  }

 private:
  static constexpr std::size_t kBlocks = 32, kItemsOfThread = 4;
  struct Place {
    std::size_t item, floats;  // the first of a query block
  };

  Attended result(const Attending<F>& some, std::size_t block, std::size_t place) const {
    auto* const all = reinterpret_cast<float*>(step_.shared_scratch);
    return Attended::at(all + places_[block].floats + place * some.floats(), some.queries.count);
  }

  const Node& node_;
  const Step& step_;
  std::size_t heads_ = 0, items_ = 0, floats_ = 0;
  bool possible_ = false;
  Place places_[kBlocks] = {};
};

template <class F>
static void attend(const Node& node, const Step& step) {
  const Attention& op = node.as<Attention>();
  const Value& k = step.values[node.inputs[1]];
  const Value& v = step.values[node.inputs[2]];
  const std::size_t items = step.query_block_count * op.kv_heads;

  auto write_rows = [&](std::size_t item, int worker) {
    const Attending<F> some(node, step, step.query_blocks[item / op.kv_heads], item % op.kv_heads);
    const std::size_t column = some.kv_head * op.head_size;
    for (std::size_t row = some.rows.first; row < some.rows.last;) {
      const auto position = static_cast<std::size_t>(step.positions[row]);
      const std::size_t count = smaller(some.rows.last - row, kTileRows - position % kTileRows);
      F::write(some.cache, position, count,
               {k.row(row) + column, v.row(row) + column, k.stride, v.stride},
               some.memory(worker).queries);
      row += count;
    }
  };
  for_each(step, items, step.rows * k.width, write_rows);

  std::size_t work = 0;
  for (std::size_t i = 0; i < step.query_block_count; ++i) {
    const QueryBlock& rows = step.query_blocks[i];
    work += (rows.last - rows.first) * rows.positions * op.kv_heads * op.shared * op.head_size * 2;
  }
  const Divided<F> divided(node, step);
  if (divided.possible()) return divided.run(work);
  auto attend_rows = [&](std::size_t item, int worker) {
    // The last rows of a prompt read the most positions, so they go first.
    const QueryBlock& rows = step.query_blocks[step.query_block_count - 1 - item / op.kv_heads];
    const std::size_t queries = (rows.last - rows.first) * op.shared;
    for (std::size_t first = 0; first < queries; first += kQueriesAtOnce) {
      const Attending<F> some(node, step, rows, item % op.kv_heads, first);
      const AttentionMemory own = some.memory(worker);
      const Attended chunk = Attended::at(own.chunk, some.queries.count);
      some.read(own);
      some.merge_all(own.all, [&](std::size_t number) {
        some.chunk(number, own, chunk);
        return chunk;
      });
    }
  };
  for_each(step, items, work, attend_rows);
}
#endif
