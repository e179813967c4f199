// Blocks of 256 weights in 5 bits; each 32 have a scale and a minimum in 6 bits, integers that
// multiply those of the block.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
struct q5_k {
  static constexpr char name[] = "q5_k";
  static constexpr int bits = 5, offset = 0, minimum = -1;
  static constexpr std::size_t block = 256, part = 32, bytes = 176;
  static constexpr bool integers = true;
  static constexpr int largest_integer = 63;
  using Scale = HalfScale;

  static void read(const std::uint8_t* from, CodeBlock<q5_k>& out) {
    out.scale = read_u16(from);
    out.minimum = read_u16(from + 2);
    read_six_bits(from + 4, out.scales, out.minimums);
    for (std::size_t c = 0; c < block; ++c) {
      const int low = from[48 + c / 64 * 32 + c % 32] >> (c / 32 % 2 * 4) & 15;
      const int high = from[16 + c % 32] >> (c / 32) & 1;
      out.codes[c] = static_cast<std::uint8_t>(low | high << 4);
    }
  }
  static void write(const CodeBlock<q5_k>& in, std::uint8_t* to) {
    write_u16(in.scale, to);
    write_u16(in.minimum, to + 2);
    write_six_bits(in.scales, in.minimums, to + 4);
    for (std::size_t c = 0; c < block; ++c) {
      add_bits(in.codes[c] & 15, c / 32 % 2 * 4, to[48 + c / 64 * 32 + c % 32]);
      add_bits(in.codes[c] >> 4, c / 32, to[16 + c % 32]);
    }
  }
};
