// activation(x).
//
// A fragment of operations.inc.
struct Activate {
  static constexpr char kind[] = "activate";
  Activation activation;

#if TALU_PREPARES
  static Activate prepare(Preparation& op) {
    op.reads(1, 0);
    op.same_width(0);
    return {op.activation("activation")};
  }
#else
  void run(const Node& node, const Step& step) const {
    const Value& x = step.values[node.inputs[0]];
    const Value& out = step.values[node.output];
    constexpr std::size_t kWork = 8;  // of one exponential and one division, in multiplications
    for_rows(step, x.rows, x.width * kWork, [&](std::size_t row) {
      for_columns(x.width, [&](std::size_t c, std::size_t n) {
        store_some(out.row(row) + c, activate(activation, load_some(x.row(row) + c, n)), n);
      });
    });
  }
#endif
};
