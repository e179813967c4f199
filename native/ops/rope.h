// Rotates column i of each head together with column i + count by the row's angles.
//
// A fragment of operations.inc.
struct Rope {
  static constexpr char kind[] = "rope";
  std::size_t head_size, rotation;  // the number of the step's table of angles

#if TALU_PREPARES
  static Rope prepare(Preparation& op) {
    op.reads(1, 0);
    op.same_width(0);
    op.all_rows();
    const std::size_t size = op.divides_width("head_size");
    const std::vector<float>& frequencies = op.numbers("frequencies");
    op.require(2 * frequencies.size() <= size,
               std::to_string(frequencies.size()) + " frequencies turn " +
                   std::to_string(2 * frequencies.size()) + " columns, a head has " +
                   std::to_string(size));
    return {size, op.rotation(frequencies)};
  }
#else
  void run(const Node& node, const Step& step) const {
    const Value& x = step.values[node.inputs[0]];
    const Value& out = step.values[node.output];
    const Rotation& angles = step.rotations[rotation];
    const std::size_t count = angles.count;
    for_rows(step, x.rows, x.width, [&](std::size_t row) {
      const float* const cosines = angles.cosines + row * count;
      const float* const sines = angles.sines + row * count;
      for (std::size_t head = 0; head < x.width; head += head_size) {
        const float* const from = x.row(row) + head;
        float* const to = out.row(row) + head;
        for_columns(count, [&](std::size_t c, std::size_t n) {
          const f32x16 a = load_some(from + c, n), b = load_some(from + count + c, n);
          const f32x16 cosine = load_some(cosines + c, n), sine = load_some(sines + c, n);
          store_some(to + c, subtract(multiply(a, cosine), multiply(b, sine)), n);
          store_some(to + count + c, fma(b, cosine, multiply(a, sine)), n);
        });
        for (std::size_t c = 2 * count; c < head_size; ++c) to[c] = from[c];
      }
    });
  }
#endif
};
