// Runs attention: writes keys and values into the cache, divides queries and chunks among threads, and
// merges what was found.
//
// A fragment of kernels.inc.

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
      merge(op, queries, start() + c * kChunk, padded(), result(c), all);
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
