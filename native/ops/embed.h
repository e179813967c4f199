// Gathers rows of a table from its tiles: by the step's tokens, by their positions, or one row for
// all.
//
// A fragment of operations.inc.

#if !TALU_PREPARES
template <class Index>
static void look_up(const Node& node, const Step& step, Index index) {
  const Value& out = step.values[node.output];
  const Tensor& table = node.weights[0];
  for_rows(step, step.rows, out.width, [&](std::size_t row) {
    table.format->dequantize_row(table.data, index(row), table.columns, out.row(row));
  });
}
#endif

struct Embed {
  static constexpr char kind[] = "embed";

#if TALU_PREPARES
  static Embed prepare(Preparation& op) {
    op.reads(0, 1);
    op.matrix(0, op.rows_of(0), op.width());
    op.tokens_below(op.rows_of(0));
    return {};
  }
#else
  void run(const Node& node, const Step& step) const {
    look_up(node, step,
            [&](std::size_t row) { return static_cast<std::size_t>(step.tokens[row]); });
  }
#endif
};

struct EmbedRow {
  static constexpr char kind[] = "embed_row";
  std::size_t offset;

#if TALU_PREPARES
  static EmbedRow prepare(Preparation& op) {
    op.reads(0, 1);
    op.matrix(0, op.rows_of(0), op.width());
    const std::size_t offset = op.integer("offset");
    op.require(offset < op.rows_of(0), "its first row is " + std::to_string(offset) +
                                           ", the table has " + std::to_string(op.rows_of(0)));
    return {offset};
  }
#else
  void run(const Node& node, const Step& step) const {
    look_up(node, step, [&](std::size_t) { return offset; });
  }
#endif
};

// Tokens other than the padding are counted from the beginning of their sequence, which the step
// has; the padding itself gets the row before the first.
struct EmbedPosition {
  static constexpr char kind[] = "embed_position";
  std::size_t offset;    // the first row of the table
  std::int32_t padding;  // the token that takes no position, -1 for none

#if TALU_PREPARES
  static EmbedPosition prepare(Preparation& op) {
    const std::size_t offset = EmbedRow::prepare(op).offset;
    const std::int32_t padding = op.token("padding");
    op.require(padding < 0 || offset > 0,
               "offset is 0, but padding takes the row before the first");
    op.positions_below(op.rows_of(0) - offset);
    if (padding >= 0) op.whole_sequences();  // to count their positions
    return {offset, padding};
  }
#else
  void run(const Node& node, const Step& step) const {
    look_up(node, step, [&](std::size_t row) {
      const std::size_t position = static_cast<std::size_t>(step.positions[row]);
      if (padding < 0) return position + offset;
      if (step.tokens[row] == padding) return offset - 1;
      std::size_t counted = 0;
      for (std::size_t i = row - position; i < row; ++i) counted += step.tokens[i] != padding;
      return counted + offset;
    });
  }
#endif
};
