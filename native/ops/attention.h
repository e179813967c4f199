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
