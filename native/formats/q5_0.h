// Blocks of 32 weights in 5 bits with one scale.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
struct q5_0 {
  static constexpr char name[] = "q5_0";
  static constexpr int bits = 5, offset = 16, minimum = 0;
  static constexpr std::size_t block = 32, part = 32, bytes = 22;
  static constexpr bool integers = false;
  using Scale = HalfScale;

  static void read(const std::uint8_t* from, CodeBlock<q5_0>& out) {
    out.scale = read_u16(from);
    read_nibbles(from + 6, out.codes);
    add_fifth_bits(read_u32(from + 2), out.codes);
  }
  static void write(const CodeBlock<q5_0>& in, std::uint8_t* to) {
    write_u16(in.scale, to);
    write_fifth_bits(in.codes, to + 2);
    write_nibbles(in.codes, to + 6);
  }
};
