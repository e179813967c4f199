// x / sqrt(mean(x²) + eps) · (weight + offset), over groups of columns.
//
// A fragment of operations.inc.
struct RmsNorm {
  static constexpr char kind[] = "rms_norm";
  float eps, offset;
  std::size_t group;  // columns that are normalised together

#if TALU_PREPARES
  static RmsNorm prepare(Preparation& op) {
    op.reads(1, 1);
    op.same_width(0);
    const std::size_t group = op.divides_width("size");
    op.vector(0, group);
    return {static_cast<float>(op.number("eps")), static_cast<float>(op.number("offset")), group};
  }
#else
  void run(const Node& node, const Step& step) const {
    const Value& x = step.values[node.inputs[0]];
    const Value& out = step.values[node.output];
    const float* const weight = node.weights[0].floats();
    for_rows(step, x.rows, x.width, [&](std::size_t row) {
      for (std::size_t begin = 0; begin < x.width; begin += group) {
        const float* const from = x.row(row) + begin;
        float* const to = out.row(row) + begin;
        f32x16 squares = splat(0.0f);
        for_columns(group, [&](std::size_t c, std::size_t n) {
          const f32x16 value = load_some(from + c, n);
          squares = fma(value, value, squares);
        });
        const float mean = sum(squares) / static_cast<float>(group);
        const f32x16 scale = splat(1.0f / __builtin_sqrtf(mean + eps));
        for_columns(group, [&](std::size_t c, std::size_t n) {
          const f32x16 gain = add(load_some(weight + c, n), splat(offset));
          store_some(to + c, multiply(multiply(load_some(from + c, n), scale), gain), n);
        });
      }
    });
  }
#endif
};
