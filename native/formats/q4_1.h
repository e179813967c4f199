// Blocks of 32 weights in 4 bits with a scale and a minimum.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
struct q4_1 {
  static constexpr char name[] = "q4_1";
  static constexpr int bits = 4, offset = 0, minimum = 1;
  static constexpr std::size_t block = 32, part = 32, bytes = 20;
  static constexpr bool integers = false;
  using Scale = HalfScale;

  static void read(const std::uint8_t* from, CodeBlock<q4_1>& out) {
    out.scale = read_u16(from);
    out.minimum = read_u16(from + 2);
    read_nibbles(from + 4, out.codes);
  }
  static void write(const CodeBlock<q4_1>& in, std::uint8_t* to) {
    write_u16(in.scale, to);
    write_u16(in.minimum, to + 2);
    write_nibbles(in.codes, to + 4);
  }
};
