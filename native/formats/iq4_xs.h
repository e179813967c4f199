// Blocks of 256 weights; each 32 have a scale in 6 bits, a signed integer that multiplies that of the
// block; a code of 4 bits is the index of one of 16 values.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
struct iq4_xs {
  static constexpr char name[] = "iq4_xs";
  static constexpr int bits = 4, offset = 128, minimum = 0;
  static constexpr std::size_t block = 256, part = 32, bytes = 136;
  static constexpr bool integers = true;
  using Scale = HalfScale;
  static constexpr auto& table = kIq4Values;

  static void read(const std::uint8_t* from, CodeBlock<iq4_xs>& out) {
    out.scale = read_u16(from);
    const int high = read_u16(from + 2);
    for (std::size_t p = 0; p < block / part; ++p) {
      const int low = from[4 + p / 2] >> (p % 2 * 4) & 15;
      out.scales[p] = static_cast<std::int8_t>((low | (high >> (2 * p) & 3) << 4) - 32);
      read_nibbles(from + 8 + p * 16, out.codes + p * part);
    }
  }
};
