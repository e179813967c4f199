// activation(x · weightᵀ + bias + residual), for all weights that share an input x.
//
// A fragment of operations.inc.

#if !TALU_PREPARES
// The activations in the form that the weights' format needs: x itself, or converted rows.
struct Activations {
  const std::byte* data;
  std::size_t stride;  // in bytes
};

static Activations activations_for(const Tensor& weight, const Value& x, const Step& step) {
  const Format& format = *weight.format;
  if (format.read_as_it_is != 0 && weight.columns % format.read_as_it_is == 0)
    return {reinterpret_cast<const std::byte*>(x.data), x.stride * sizeof(float)};
  const std::size_t stride = format.row_bytes(weight.columns);
  for_rows(step, x.rows, x.width, [&](std::size_t row) {
    format.quantize_activations(x.row(row), weight.columns, step.quantized + row * stride);
  });
  return {step.quantized, stride};
}

// Adds bias and residual to the sums of one group of tiles, applies the activation, if any, and
// stores them.
static void finish(const Linear& linear, const Step& step, std::size_t first_row, std::size_t token,
                   std::size_t tokens, const float* sums) {
  const Value& out = step.values[linear.output];
  const std::size_t width = smaller(kTilesAtOnce * kTileRows, out.width - first_row);
  for (std::size_t t = 0; t < tokens; ++t, sums += kTilesAtOnce * kTileRows) {
    float* const to = out.row(token + t) + first_row;
    const float* const residual = linear.residual == kNone
                                      ? nullptr
                                      : step.values[linear.residual].row(token + t) + first_row;
    for_columns(width, [&](std::size_t c, std::size_t n) {
      f32x16 y = load(sums + c);
      if (linear.bias != nullptr) y = add(y, load_some(linear.bias + first_row + c, n));
      if (residual != nullptr) y = add(y, load_some(residual + c, n));
      if (linear.activates) y = activate(linear.activation, y);
      store_some(to + c, y, n);
    });
  }
}

static std::size_t tile_count(const Tensor& weight) {
  return (weight.rows + kTileRows - 1) / kTileRows;
}
static std::size_t group_count(const Tensor& weight) {
  return (tile_count(weight) + kTilesAtOnce - 1) / kTilesAtOnce;
}
#endif

struct LinearGroup {
  static constexpr char kind[] = "linear";

#if TALU_PREPARES
  static LinearGroup prepare(Preparation& op) {
    op.reads(1, 1, 2);
    op.matrix(0, op.width(), op.width_of(0));
    if (op.weights() == 2) op.vector(1, op.width());
    return {};
  }
  // The sums of a group of tiles.
  std::size_t scratch(const StepSize& size) const {
    return smaller(size.rows, kMostTokensAtOnce) * kTilesAtOnce * kTileRows * sizeof(float);
  }
#else
  // Items are groups of tiles of consecutive weights, and as many tokens that a cache holds
  // their part of x: a group is read once from memory, then from the cache.
  void run(const Node& node, const Step& step) const {
    static_assert(kTokensInCache <= kMostTokensAtOnce);
    const Value& x = step.values[node.inputs[0]];
    const Activations activations = activations_for(node.linears[0].weight, x, step);
    std::size_t items = 0;
    for (std::size_t i = 0; i < node.linear_count; ++i) items += group_count(node.linears[i].weight);
    const std::size_t chunks = (x.rows + kTokensInCache - 1) / kTokensInCache;
    auto multiply_group = [&](std::size_t item, int worker) {
      const std::size_t t = item % chunks * kTokensInCache;
      item /= chunks;
      const Linear* linear = node.linears;
      for (; item >= group_count(linear->weight); ++linear) item -= group_count(linear->weight);
      const Tensor& weight = linear->weight;
      const Format& format = *weight.format;
      const std::size_t first = item * kTilesAtOnce;
      const std::size_t tiles = smaller(kTilesAtOnce, tile_count(weight) - first);
      const std::byte* const packed = weight.data + first * format.tile_bytes(weight.columns);
      float* const sums = reinterpret_cast<float*>(step.scratch + worker * step.scratch_bytes);
      const std::size_t tokens = smaller(kTokensInCache, x.rows - t);
      format.multiply(packed, tiles, weight.columns, activations.data + t * activations.stride,
                      activations.stride, tokens, sums);
      finish(*linear, step, first * kTileRows, t, tokens, sums);
    };
    for_each(step, items * chunks, items * kTilesAtOnce * kTileRows * x.width, multiply_group);
  }
#endif
};
