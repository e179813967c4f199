// Rows of a table for the step's tokens, read out of its tiles.
static void embed(const Node& node, const Step& step) {
  const Value& out = step.values[node.output];
  const Tensor& table = node.weight;
  for_rows(step, step.rows, out.width, [&](std::size_t row) {
    table.format->read_row(table.data, static_cast<std::size_t>(step.tokens[row]), table.columns,
                           out.row(row));
  });
}
