// x · factor.
//
// A fragment of operations.inc.
struct Scale {
  static constexpr char kind[] = "scale";
  float factor;

#if TALU_PREPARES
  static Scale prepare(Preparation& op) {
    op.reads(1, 0);
    op.same_width(0);
    return {static_cast<float>(op.number("factor"))};
  }
#else
  void run(const Node& node, const Step& step) const {
    const Value& x = step.values[node.inputs[0]];
    const Value& out = step.values[node.output];
    for_rows(step, x.rows, x.width, [&](std::size_t row) {
      for_columns(x.width, [&](std::size_t c, std::size_t n) {
        store_some(out.row(row) + c, multiply(load_some(x.row(row) + c, n), splat(factor)), n);
      });
    });
  }
#endif
};
