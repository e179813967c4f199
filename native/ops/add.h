// x + y.
//
// A fragment of operations.inc.
struct Add {
  static constexpr char kind[] = "add";

#if TALU_PREPARES
  static Add prepare(Preparation& op) {
    op.reads(2, 0);
    op.same_width(0);
    op.same_width(1);
    return {};
  }
#else
  void run(const Node& node, const Step& step) const {
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
#endif
};
