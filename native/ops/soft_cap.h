// tanh(x / cap) · cap, which limits x to -cap .. cap.
//
// A fragment of operations.inc.
struct SoftCap {
  static constexpr char kind[] = "soft_cap";
  float cap;

#if TALU_PREPARES
  static SoftCap prepare(Preparation& op) {
    op.reads(1, 0);
    op.same_width(0);
    const double cap = op.number("cap");
    op.require(cap > 0, "cap is " + std::to_string(cap) + ", expected more than 0");
    return {static_cast<float>(cap)};
  }
#else
  void run(const Node& node, const Step& step) const {
    const Value& x = step.values[node.inputs[0]];
    const Value& out = step.values[node.output];
    constexpr std::size_t kWork = 8;  // of a tangent and a division, in multiplications
    for_rows(step, x.rows, x.width * kWork, [&](std::size_t row) {
      for_columns(x.width, [&](std::size_t c, std::size_t n) {
        store_some(out.row(row) + c, soft_capped(load_some(x.row(row) + c, n), cap), n);
      });
    });
  }
#endif
};
