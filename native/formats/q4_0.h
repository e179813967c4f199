// Blocks of 32 weights in 4 bits with one scale.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
struct q4_0 {
  static constexpr char name[] = "q4_0";
  static constexpr int bits = 4, offset = 8, minimum = 0;
  static constexpr std::size_t block = 32, part = 32, bytes = 18;
  static constexpr bool integers = false;
  using Scale = HalfScale;

  static void read(const std::uint8_t* from, CodeBlock<q4_0>& out) {
    out.scale = read_u16(from);
    read_nibbles(from + 2, out.codes);
  }
  static void write(const CodeBlock<q4_0>& in, std::uint8_t* to) {
    write_u16(in.scale, to);
    write_nibbles(in.codes, to + 2);
  }
};
