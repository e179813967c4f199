// x / sqrt(mean(x²) + eps) · weight, over groups of columns.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
static void rms_norm(const Node& node, const Step& step) {
  const Value& x = step.values[node.inputs[0]];
  const Value& out = step.values[node.output];
  const float* const weight = node.weight.floats();
  for_rows(step, x.rows, x.width, [&](std::size_t row) {
    for (std::size_t begin = 0; begin < x.width; begin += node.group) {
      const float* const from = x.row(row) + begin;
      float* const to = out.row(row) + begin;
      f32x16 squares = splat(0.0f);
      for_columns(node.group, [&](std::size_t c, std::size_t n) {
        const f32x16 value = load_some(from + c, n);
        squares = fma(value, value, squares);
      });
      const float mean = sum(squares) / static_cast<float>(node.group);
      const f32x16 scale = splat(1.0f / __builtin_sqrtf(mean + node.eps));
      for_columns(node.group, [&](std::size_t c, std::size_t n) {
        store_some(to + c,
                   multiply(multiply(load_some(from + c, n), scale), load_some(weight + c, n)), n);
      });
    }
  });
}
