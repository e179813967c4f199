// Gathers rows of a table from its tiles: by the step's tokens, by their positions, or one row for
// all.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
template <class Index>
static void look_up(const Node& node, const Step& step, Index index) {
  const Value& out = step.values[node.output];
  const Tensor& table = node.weight;
  for_rows(step, step.rows, out.width, [&](std::size_t row) {
    table.format->dequantize_row(table.data, index(row), table.columns, out.row(row));
  });
}
static void embed(const Node& node, const Step& step) {
  look_up(node, step, [&](std::size_t row) { return static_cast<std::size_t>(step.tokens[row]); });
}
// Tokens other than the padding are counted from the beginning of their sequence, which the step
// has; the padding itself gets the row before the first.
static void embed_position(const Node& node, const Step& step) {
  look_up(node, step, [&](std::size_t row) {
    const std::size_t position = static_cast<std::size_t>(step.positions[row]);
    if (node.padding < 0) return position + node.offset;
    if (step.tokens[row] == node.padding) return node.offset - 1;
    std::size_t counted = 0;
    for (std::size_t i = row - position; i < row; ++i) counted += step.tokens[i] != node.padding;
    return counted + node.offset;
  });
}
static void embed_row(const Node& node, const Step& step) {
  look_up(node, step, [&](std::size_t) { return node.offset; });
}
