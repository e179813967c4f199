// Blocks of 256 weights in 3 bits; each 16 have a scale in 6 bits, a signed integer that multiplies
// that of the block.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
struct q3_k {
  static constexpr char name[] = "q3_k";
  static constexpr int bits = 3, offset = 4, minimum = 0;
  static constexpr std::size_t block = 256, part = 16, bytes = 110;
  static constexpr bool integers = true;
  static constexpr int largest_integer = 31;
  using Scale = HalfScale;

  static void read(const std::uint8_t* from, CodeBlock<q3_k>& out) {
    out.scale = read_u16(from + 108);
    const std::uint8_t* const packed = from + 96;
    for (std::size_t p = 0; p < 16; ++p) {
      const int low = p < 8 ? packed[p] & 15 : packed[p - 8] >> 4;
      const int high = packed[8 + p % 4] >> (p / 4 * 2) & 3;
      out.scales[p] = static_cast<std::int8_t>((low | high << 4) - 32);
    }
    read_pairs_of_bits(from + 32, out.codes);
    for (std::size_t c = 0; c < block; ++c)
      out.codes[c] = static_cast<std::uint8_t>(out.codes[c] | (from[c % 32] >> (c / 32) & 1) << 2);
  }
  static void write(const CodeBlock<q3_k>& in, std::uint8_t* to) {
    write_u16(in.scale, to + 108);
    for (std::size_t p = 0; p < 16; ++p) {
      const auto scale = static_cast<unsigned>(in.scales[p] + 32);
      add_bits(scale & 15, p / 8 * 4, to[96 + p % 8]);
      add_bits(scale >> 4, p / 4 * 2, to[104 + p % 4]);
    }
    write_pairs_of_bits(in.codes, to + 32);
    for (std::size_t c = 0; c < block; ++c) add_bits(in.codes[c] >> 2, c / 32, to[c % 32]);
  }
};
