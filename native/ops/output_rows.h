// Selects the rows that the step returns.
//
// A fragment of operations.inc.
struct OutputRows {
  static constexpr char kind[] = "output_rows";

#if TALU_PREPARES
  static OutputRows prepare(Preparation& op) {
    op.reads(1, 0);
    op.same_width(0);
    op.output_rows();
    return {};
  }
#else
  void run(const Node& node, const Step& step) const {
    const Value& x = step.values[node.inputs[0]];
    const Value& out = step.values[node.output];
    for (std::size_t i = 0; i < step.output_count; ++i)
      __builtin_memcpy(out.row(i), x.row(static_cast<std::size_t>(step.outputs[i])),
                       x.width * sizeof(float));
  }
#endif
};
