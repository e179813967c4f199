// (x - mean(x)) / sqrt(variance(x) + eps) · weight + bias.
//
// A fragment of operations.inc.
struct LayerNorm {
  static constexpr char kind[] = "layer_norm";
  float eps;

#if TALU_PREPARES
  static LayerNorm prepare(Preparation& op) {
    op.reads(1, 2);
    op.same_width(0);
    op.vector(0, op.width());
    op.vector(1, op.width());
    return {static_cast<float>(op.number("eps"))};
  }
#else
  void run(const Node& node, const Step& step) const {
    const Value& x = step.values[node.inputs[0]];
    const Value& out = step.values[node.output];
    const float* const weight = node.weights[0].floats();
    const float* const bias = node.weights[1].floats();
    const float columns = static_cast<float>(x.width);
    for_rows(step, x.rows, x.width, [&](std::size_t row) {
      const float* const from = x.row(row);
      f32x16 total = splat(0.0f);
      for_columns(x.width,
                  [&](std::size_t c, std::size_t n) { total = add(total, load_some(from + c, n)); });
      // Sums squared deviations instead of squares, to avoid cancellation if the mean is large.
      const float mean = sum(total) / columns;
      float squares = 0.0f;
      f32x16 whole = splat(0.0f);
      for_columns(x.width, [&](std::size_t c, std::size_t n) {
        if (n == kTileRows) {
          const f32x16 deviation = subtract(load(from + c), splat(mean));
          whole = fma(deviation, deviation, whole);
        } else {  // the lanes beyond the row would count as -mean
          for (std::size_t i = c; i < c + n; ++i) squares += (from[i] - mean) * (from[i] - mean);
        }
      });
      const float variance = (sum(whole) + squares) / columns;
      const f32x16 scale = splat(1.0f / __builtin_sqrtf(variance + eps));
      for_columns(x.width, [&](std::size_t c, std::size_t n) {
        const f32x16 deviation = subtract(load_some(from + c, n), splat(mean));
        const f32x16 y = fma(multiply(deviation, scale), load_some(weight + c, n),
                             load_some(bias + c, n));
        store_some(out.row(row) + c, y, n);
      });
    });
  }
#endif
};
