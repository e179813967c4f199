// Blocks of 256 weights in 2 bits; each 16 have a scale and a minimum in 4 bits, integers that
// multiply those of the block.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
struct q2_k {
  static constexpr char name[] = "q2_k";
  static constexpr int bits = 2, offset = 0, minimum = -1;
  static constexpr std::size_t block = 256, part = 16, bytes = 84;
  static constexpr bool integers = true;
  static constexpr int largest_integer = 15;
  using Scale = HalfScale;

  static void read(const std::uint8_t* from, CodeBlock<q2_k>& out) {
    out.scale = read_u16(from + 80);
    out.minimum = read_u16(from + 82);
    for (std::size_t p = 0; p < 16; ++p) {
      out.scales[p] = static_cast<std::int8_t>(from[p] & 15);
      out.minimums[p] = from[p] >> 4;
    }
    read_pairs_of_bits(from + 16, out.codes);
  }
  static void write(const CodeBlock<q2_k>& in, std::uint8_t* to) {
    write_u16(in.scale, to + 80);
    write_u16(in.minimum, to + 82);
    for (std::size_t p = 0; p < 16; ++p)
      to[p] = static_cast<std::uint8_t>(in.scales[p] | in.minimums[p] << 4);
    write_pairs_of_bits(in.codes, to + 16);
  }
};
