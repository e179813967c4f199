// activation(x).
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
static void activate_rows(const Node& node, const Step& step) {
  const Value& x = step.values[node.inputs[0]];
  const Value& out = step.values[node.output];
  constexpr std::size_t kWork = 8;  // of one exponential and one division, in multiplications
  for_rows(step, x.rows, x.width * kWork, [&](std::size_t row) {
    for_columns(x.width, [&](std::size_t c, std::size_t n) {
      store_some(out.row(row) + c, activate(node.activation, load_some(x.row(row) + c, n)), n);
    });
  });
}
