// Blocks of 256 weights in 6 bits; each 16 have a scale in 8 bits, a signed integer that multiplies
// that of the block.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
struct q6_k {
  static constexpr char name[] = "q6_k";
  static constexpr int bits = 6, offset = 32, minimum = 0;
  static constexpr std::size_t block = 256, part = 16, bytes = 210;
  static constexpr bool integers = true;
  static constexpr int largest_integer = 127;
  using Scale = HalfScale;

  static void read(const std::uint8_t* from, CodeBlock<q6_k>& out) {
    out.scale = read_u16(from + 208);
    for (std::size_t p = 0; p < block / part; ++p)
      out.scales[p] = static_cast<std::int8_t>(from[192 + p]);
    for (std::size_t c = 0; c < block; ++c) {
      const std::size_t half = c / 128, quarter = c / 32 % 4;
      const int low = from[half * 64 + quarter % 2 * 32 + c % 32] >> (quarter / 2 * 4) & 15;
      const int high = from[128 + half * 32 + c % 32] >> (quarter * 2) & 3;
      out.codes[c] = static_cast<std::uint8_t>(low | high << 4);
    }
  }
  static void write(const CodeBlock<q6_k>& in, std::uint8_t* to) {
    write_u16(in.scale, to + 208);
    for (std::size_t p = 0; p < block / part; ++p)
      to[192 + p] = static_cast<std::uint8_t>(in.scales[p]);
    for (std::size_t c = 0; c < block; ++c) {
      const std::size_t half = c / 128, quarter = c / 32 % 4;
      add_bits(in.codes[c] & 15, quarter / 2 * 4, to[half * 64 + quarter % 2 * 32 + c % 32]);
      add_bits(in.codes[c] >> 4, quarter * 2, to[128 + half * 32 + c % 32]);
    }
  }
};
