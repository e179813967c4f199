// x + y.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
static void add_rows(const Node& node, const Step& step) {
  const Value& x = step.values[node.inputs[0]];
  const Value& y = step.values[node.inputs[1]];
  const Value& out = step.values[node.output];
  for_rows(step, x.rows, x.width, [&](std::size_t row) {
    for_columns(x.width, [&](std::size_t c, std::size_t n) {
      store_some(out.row(row) + c, add(load_some(x.row(row) + c, n), load_some(y.row(row) + c, n)),
                 n);
    });
  });
}
