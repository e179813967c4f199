// Blocks of 32 weights in 8 bits with one scale.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
struct q8_0 {
  static constexpr char name[] = "q8_0";
  static constexpr int bits = 8, offset = 128, minimum = 0;
  static constexpr std::size_t block = 32, part = 32, bytes = 34;
  static constexpr bool integers = false;
  using Scale = HalfScale;

  static void read(const std::uint8_t* from, CodeBlock<q8_0>& out) {
    out.scale = read_u16(from);
    for (std::size_t c = 0; c < block; ++c)
      out.codes[c] = static_cast<std::uint8_t>(from[2 + c] ^ 0x80);
  }
  static void write(const CodeBlock<q8_0>& in, std::uint8_t* to) {
    write_u16(in.scale, to);
    for (std::size_t c = 0; c < block; ++c)
      to[2 + c] = static_cast<std::uint8_t>(in.codes[c] ^ 0x80);
  }
};
