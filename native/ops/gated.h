// activation(gate) · up.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
static void gated(const Node& node, const Step& step) {
  const Value& gate = step.values[node.inputs[0]];
  const Value& up = step.values[node.inputs[1]];
  const Value& out = step.values[node.output];
  constexpr std::size_t kWork = 8;  // of one exponential and one division, in multiplications
  for_rows(step, gate.rows, gate.width * kWork, [&](std::size_t row) {
    for_columns(gate.width, [&](std::size_t c, std::size_t n) {
      const f32x16 g = activate(node.activation, load_some(gate.row(row) + c, n));
      store_some(out.row(row) + c, multiply(g, load_some(up.row(row) + c, n)), n);
    });
  });
}
