// Rotates column i of each head together with column i + count by the row's angles.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
static void rope(const Node& node, const Step& step) {
  const Value& x = step.values[node.inputs[0]];
  const Value& out = step.values[node.output];
  const Rotation& rotation = step.rotations[node.rotation];
  const std::size_t count = rotation.count;
  for_rows(step, x.rows, x.width, [&](std::size_t row) {
    const float* const cosines = rotation.cosines + row * count;
    const float* const sines = rotation.sines + row * count;
    for (std::size_t head = 0; head < x.width; head += node.head_size) {
      const float* const from = x.row(row) + head;
      float* const to = out.row(row) + head;
      for_columns(count, [&](std::size_t c, std::size_t n) {
        const f32x16 a = load_some(from + c, n), b = load_some(from + count + c, n);
        const f32x16 cosine = load_some(cosines + c, n), sine = load_some(sines + c, n);
        store_some(to + c, subtract(multiply(a, cosine), multiply(b, sine)), n);
        store_some(to + count + c, fma(b, cosine, multiply(a, sine)), n);
      });
      for (std::size_t c = 2 * count; c < node.head_size; ++c) to[c] = from[c];
    }
  });
}
