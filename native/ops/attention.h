// Attention over the paged cache, causal or over the whole sequence. Keys and values are tiles like
// weights, so both products use tiles.h: lanes are positions in q · kᵀ and columns in p · v.
//
// A fragment of operations.inc.

// Offsets in the scratch memory of a worker, for one panel of queries over the keys and values of a
// sequence.
struct PanelLayout {
  std::size_t outputs, tiles, scores, bytes;

  static constexpr PanelLayout of(std::size_t queries, std::size_t head_size,
                                  std::size_t positions) {
    const std::size_t padded = round_up(head_size, kTileRows);
    const std::size_t columns = round_up(positions, kTileRows);
    const std::size_t pointers = round_up((columns + padded) / kTileRows, kTileRows);
    PanelLayout layout{};
    layout.outputs = queries * padded * sizeof(float);
    layout.tiles = layout.outputs + queries * padded * sizeof(float);
    layout.scores = layout.tiles + pointers * sizeof(void*);
    layout.bytes = layout.scores + queries * columns * sizeof(float);
    return layout;
  }
};

struct Attention {
  static constexpr char kind[] = "attention";
  std::size_t head_size, layer, window;  // a window of 0 positions is all of them
  float scale, soft_cap;  // of the scores; a cap of 0 is none
  bool causal;  // rows do not attend to later rows

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
    return {head_size, layer, window, static_cast<float>(scale), static_cast<float>(cap),
            causal};
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
    return PanelLayout::of(size.queries_at_once, head_size, size.positions).bytes;
  }
#else
  void run(const Node& node, const Step& step) const { step.cache.format->attention(node, step); }
#endif
};

#if !TALU_PREPARES
// Keys and values as tiles with groups of one column, widened to floats.
template <class F>
struct Cached : F {
  static constexpr std::size_t group = 1, parts = 1;
  using activation = float;
  static f32x16 load_part(const typename F::element* p, std::size_t) { return F::load_lanes(p); }
  static f32x16 multiply_add(f32x16 w, const activation* x, f32x16 sum) {
    return fma(w, splat(*x), sum);
  }
};

// One KV head of one layer in the blocks of one sequence.
template <class F>
struct HeadCache {
  using element = typename F::element;
  std::byte* base;
  const std::int32_t* table;
  std::size_t block_size, block_bytes, keys, values;  // offsets in a block

  HeadCache(const Attention& op, const Step& step, std::size_t sequence, std::size_t kv_head)
      : base(step.cache.data),
        table(step.block_tables + sequence * step.table_width),
        block_size(step.cache.block_size),
        block_bytes(step.cache.block_bytes) {
    const std::size_t padded = round_up(op.head_size, kTileRows);
    const std::size_t key_bytes = block_size * op.head_size * sizeof(element);
    const std::size_t value_bytes = block_size * padded * sizeof(element);
    const std::size_t layer = step.cache.layer_offsets[op.layer];
    keys = layer + kv_head * key_bytes;
    values = layer + step.cache.kv_heads[op.layer] * key_bytes + kv_head * value_bytes;
  }
  std::byte* block(std::size_t index) const {
    return base + static_cast<std::size_t>(table[index]) * block_bytes;
  }
  // Tile of the 16 positions from `position`, a multiple of 16.
  element* key_tile(std::size_t position, std::size_t head_size) const {
    return reinterpret_cast<element*>(block(position / block_size) + keys) +
           position % block_size * head_size;
  }
  // Values of `position`: 16 columns, and the next 16 block_size * 16 elements further.
  element* value_lanes(std::size_t position) const {
    return reinterpret_cast<element*>(block(position / block_size) + values) +
           position % block_size * kTileRows;
  }
};

// Whether a row of one head has a number that a format with a small range rounds to infinity.
template <class F>
static bool overflows(const float* x, std::size_t head_size) {
  f32x16 sizes = splat(0.0f);
  for_columns(head_size, [&](std::size_t c, std::size_t n) {
    sizes = larger_size(sizes, load_some(x + c, n));
  });
  return !(largest(sizes) < F::kOverflow);
}

// Stores keys and values of `count` positions of one tile, from consecutive rows. Where a number
// overflows, the value of the position becomes NaN, and so does every row that attends to it: an
// infinite key alone could take the position out of the softmax, and leave a finite, wrong result.
template <class F>
static void write_kv(const HeadCache<F>& cache, std::size_t head_size, std::size_t position,
                     std::size_t count, const float* keys, std::size_t key_stride,
                     const float* values, std::size_t value_stride) {
  auto* const key_lanes = cache.key_tile(position / kTileRows * kTileRows, head_size) +
                          position % kTileRows;
  auto* const value_lanes = cache.value_lanes(position);
  typename F::element rounded[kTileRows][kTileRows];
  for_columns(head_size, [&](std::size_t c, std::size_t n) {
    for (std::size_t i = 0; i < count; ++i) {
      F::store_lanes(rounded[i], load_some(keys + i * key_stride + c, n));
      F::store_lanes(value_lanes + i * kTileRows + c * cache.block_size,
                     load_some(values + i * value_stride + c, n));
    }
    for (std::size_t column = 0; column < n; ++column)
      for (std::size_t i = 0; i < count; ++i)
        key_lanes[(c + column) * kTileRows + i] = rounded[i][column];
  });
  if constexpr (requires { F::kOverflow; })
    for (std::size_t i = 0; i < count; ++i)
      if (overflows<F>(keys + i * key_stride, head_size) ||
          overflows<F>(values + i * value_stride, head_size))
        value_lanes[i * kTileRows] = F::kNotANumber;
}

// exp(score · scale - maximum) for the columns begin .. end - 1 of a row and 0 for the others, of
// `columns` together; returns the sum.
static float softmax(float* scores, std::size_t columns, std::size_t begin, std::size_t end,
                     float scale) {
  const std::size_t first = begin / kTileRows * kTileRows, last = round_up(end, kTileRows);
  for (std::size_t c = 0; c < first; c += kTileRows) store(scores + c, splat(0.0f));
  for (std::size_t c = last; c < columns; c += kTileRows) store(scores + c, splat(0.0f));
  for (std::size_t c = first; c < begin; ++c) scores[c] = -__builtin_inff();
  for (std::size_t c = end; c < last; ++c) scores[c] = -__builtin_inff();
  f32x16 maximum = splat(-__builtin_inff());
  for (std::size_t c = first; c < last; c += kTileRows) maximum = larger(maximum, load(scores + c));
  const f32x16 top = splat(largest(maximum)), factor = splat(scale);
  f32x16 total = splat(0.0f);
  for (std::size_t c = first; c < last; c += kTileRows) {
    const f32x16 e = exponential(multiply(subtract(load(scores + c), top), factor));
    store(scores + c, e);
    total = add(total, e);
  }
  return sum(total);
}

struct Panel {
  float* queries;      // (queries, head size)
  float* outputs;      // (queries, head size rounded up)
  const void** tiles;  // keys of the sequence
  float* scores;       // (queries, columns)
};

// Adds the values of the positions from .. to - 1 to the outputs of several queries, each times the
// query's weight. Columns of the weights are positions from `begin`.
template <class F>
static void add_values(const HeadCache<F>& cache, std::size_t query, std::size_t queries,
                       std::size_t from, std::size_t to, std::size_t begin, std::size_t columns,
                       std::size_t padded, const Panel& panel) {
  auto* const tiles = reinterpret_cast<const typename F::element**>(panel.tiles);
  while (from < to) {
    const std::size_t next = smaller(to, (from / cache.block_size + 1) * cache.block_size);
    const auto* const lanes = cache.value_lanes(from);
    for (std::size_t c = 0; c < padded; c += kTileRows)
      tiles[c / kTileRows] = lanes + c * cache.block_size;
    add_panels<F>(queries, tiles, padded / kTileRows, next - from,
                  panel.scores + query * columns + (from - begin), columns,
                  panel.outputs + query * padded, padded);
    from = next;
  }
}

// The queries first .. last - 1 of one KV head's group in one block of rows; a query is a row and
// one of the heads that share the KV head.
template <class F>
static void attend_panel(const Node& node, const Step& step, const HeadCache<F>& cache,
                         const QueryBlock& rows, std::size_t kv_head, std::size_t first,
                         std::size_t last, const Panel& panel) {
  const Attention& op = node.as<Attention>();
  const Value& q = step.values[node.inputs[0]];
  const Value& out = step.values[node.output];
  const std::size_t head_size = op.head_size, padded = round_up(head_size, kTileRows);
  const std::size_t shared = q.width / step.values[node.inputs[1]].width;
  const std::size_t count = last - first;
  auto row_of = [&](std::size_t query) { return rows.first + query / shared; };
  auto column_of = [&](std::size_t query) {
    return (kv_head * shared + query % shared) * head_size;
  };
  auto position_of = [&](std::size_t query) {
    return static_cast<std::size_t>(step.positions[row_of(query)]);
  };
  auto end_of = [&](std::size_t query) {
    return op.causal ? position_of(query) + 1 : rows.positions;
  };
  auto begin_of = [&](std::size_t query) {
    const std::size_t end = end_of(query);
    return op.window != 0 && end > op.window ? end - op.window : std::size_t{0};
  };
  // Columns of the scores are positions from `begin`, whole tiles.
  const std::size_t begin = begin_of(first) / kTileRows * kTileRows;
  const std::size_t end = end_of(last - 1);
  const std::size_t columns = round_up(end - begin, kTileRows);

  for (std::size_t i = 0; i < count; ++i)
    __builtin_memcpy(panel.queries + i * head_size, q.row(row_of(first + i)) + column_of(first + i),
                     head_size * sizeof(float));
  auto* const tiles = reinterpret_cast<const typename F::element**>(panel.tiles);
  for (std::size_t c = 0; c < columns; c += kTileRows)
    tiles[c / kTileRows] = cache.key_tile(begin + c, head_size);
  for (std::size_t i = 0; i < count * columns; i += kTileRows)
    store(panel.scores + i, splat(0.0f));
  add_panels<F>(count, tiles, columns / kTileRows, head_size, panel.queries, head_size,
                       panel.scores, columns);

  float scale = op.scale;
  if (op.soft_cap != 0) {
    for (std::size_t i = 0; i < count * columns; i += kTileRows) {
      const f32x16 score = multiply(load(panel.scores + i), splat(op.scale));
      store(panel.scores + i, soft_capped(score, op.soft_cap));
    }
    scale = 1;
  }
  float totals[kPanels[0]];
  for (std::size_t i = 0; i < count; ++i)
    totals[i] = softmax(panel.scores + i * columns, columns, begin_of(first + i) - begin,
                        end_of(first + i) - begin, scale);

  for (std::size_t i = 0; i < count * padded; i += kTileRows)
    store(panel.outputs + i, splat(0.0f));
  // Positions that all queries see are added for all together, the others for each query alone: a
  // weight of zero would not remove a value that is not finite.
  const std::size_t shared_end = end_of(first);
  const std::size_t shared_begin = smaller(begin_of(last - 1), shared_end);
  auto add = [&](std::size_t query, std::size_t queries, std::size_t from, std::size_t to) {
    add_values(cache, query, queries, from, to, begin, columns, padded, panel);
  };
  for (std::size_t i = 0; i < count; ++i) add(i, 1, begin_of(first + i), shared_begin);
  add(0, count, shared_begin, shared_end);
  for (std::size_t i = 0; i < count; ++i)
    add(i, 1, begin_of(first + i) > shared_end ? begin_of(first + i) : shared_end,
        end_of(first + i));

  for (std::size_t i = 0; i < count; ++i) {
    float* const to = out.row(row_of(first + i)) + column_of(first + i);
    const f32x16 factor = splat(1.0f / totals[i]);
    for_columns(head_size, [&](std::size_t c, std::size_t n) {
      store_some(to + c, multiply(load(panel.outputs + i * padded + c), factor), n);
    });
  }
}

template <class F>
static void attend(const Node& node, const Step& step) {
  const Attention& op = node.as<Attention>();
  const Value& q = step.values[node.inputs[0]];
  const Value& k = step.values[node.inputs[1]];
  const Value& v = step.values[node.inputs[2]];
  const std::size_t head_size = op.head_size, kv_heads = k.width / head_size;
  const std::size_t shared = q.width / k.width;
  const std::size_t items = step.query_block_count * kv_heads;

  auto write_rows = [&](std::size_t item, int) {
    const QueryBlock& rows = step.query_blocks[item / kv_heads];
    const std::size_t kv_head = item % kv_heads;
    const HeadCache<F> cache(op, step, rows.sequence, kv_head);
    for (std::size_t row = rows.first; row < rows.last;) {
      const auto position = static_cast<std::size_t>(step.positions[row]);
      const std::size_t count = smaller(rows.last - row, kTileRows - position % kTileRows);
      write_kv(cache, head_size, position, count, k.row(row) + kv_head * head_size, k.stride,
               v.row(row) + kv_head * head_size, v.stride);
      row += count;
    }
  };
  for_each(step, items, step.rows * k.width, write_rows);

  auto visible = [&](const QueryBlock& rows) {
    return op.causal ? static_cast<std::size_t>(step.positions[rows.last - 1]) + 1
                       : rows.positions;
  };
  std::size_t work = 0;
  for (std::size_t i = 0; i < step.query_block_count; ++i) {
    const QueryBlock& rows = step.query_blocks[i];
    const std::size_t positions = visible(rows);
    work += (rows.last - rows.first) * positions * q.width * 2;
  }
  auto attend_rows = [&](std::size_t item, int worker) {
    // The last rows of a prompt read the most positions, so they go first.
    const QueryBlock& rows = step.query_blocks[step.query_block_count - 1 - item / kv_heads];
    const std::size_t kv_head = item % kv_heads;
    const HeadCache<F> cache(op, step, rows.sequence, kv_head);
    std::byte* const memory = step.scratch + worker * step.scratch_bytes;
    const PanelLayout layout = PanelLayout::of(kPanels[0], head_size, visible(rows));
    const Panel panel = {reinterpret_cast<float*>(memory),
                         reinterpret_cast<float*>(memory + layout.outputs),
                         reinterpret_cast<const void**>(memory + layout.tiles),
                         reinterpret_cast<float*>(memory + layout.scores)};
    const std::size_t queries = (rows.last - rows.first) * shared;
    for (std::size_t first = 0; first < queries; first += kPanels[0])
      attend_panel(node, step, cache, rows, kv_head, first, smaller(queries, first + kPanels[0]),
                   panel);
  };
  for_each(step, items, work, attend_rows);
}
#endif
