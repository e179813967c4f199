// activation(gate) · up.
//
// A fragment of operations.inc.
struct Gated {
  static constexpr char kind[] = "gated";
  Activation activation;

#if TALU_PREPARES
  static Gated prepare(Preparation& op) {
    op.reads(2, 0);
    op.same_width(0);
    op.same_width(1);
    return {op.activation("activation")};
  }
#else
  void run(const Node& node, const Step& step) const {
    const Value& gate = step.values[node.inputs[0]];
    const Value& up = step.values[node.inputs[1]];
    const Value& out = step.values[node.output];
    constexpr std::size_t kWork = 8;  // of one exponential and one division, in multiplications
    for_rows(step, gate.rows, gate.width * kWork, [&](std::size_t row) {
      for_columns(gate.width, [&](std::size_t c, std::size_t n) {
        const f32x16 g = activate(activation, load_some(gate.row(row) + c, n));
        store_some(out.row(row) + c, multiply(g, load_some(up.row(row) + c, n)), n);
      });
    });
  }
#endif
};
