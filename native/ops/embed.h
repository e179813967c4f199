// Rows of a table, read out of its tiles: for the step's tokens, for their positions, or one row
// for all.
template <class Index>
static void look_up(const Node& node, const Step& step, Index index) {
  const Value& out = step.values[node.output];
  const Tensor& table = node.weight;
  for_rows(step, step.rows, out.width, [&](std::size_t row) {
    table.format->read_row(table.data, index(row), table.columns, out.row(row));
  });
}
static void embed(const Node& node, const Step& step) {
  look_up(node, step, [&](std::size_t row) { return static_cast<std::size_t>(step.tokens[row]); });
}
static void embed_position(const Node& node, const Step& step) {
  look_up(node, step, [&](std::size_t row) {
    return static_cast<std::size_t>(step.positions[row]) + node.offset;
  });
}
static void embed_row(const Node& node, const Step& step) {
  look_up(node, step, [&](std::size_t) { return node.offset; });
}
