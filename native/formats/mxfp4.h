// Blocks of 32 weights with one scale, a power of two; a code of 4 bits is a number with a sign, two
// bits of exponent and one of mantissa (OCP Microscaling Formats, MXFP4). The values are doubled.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
constexpr std::uint8_t kMxfp4Values[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

struct mxfp4 {
  static constexpr char name[] = "mxfp4";
  static constexpr int bits = 4, offset = 12, minimum = 0;
  static constexpr std::size_t block = 32, part = 32, bytes = 17;
  static constexpr bool integers = false;
  using Scale = FloatScale;
  static constexpr auto& table = kMxfp4Values;

  static void read(const std::uint8_t* from, CodeBlock<mxfp4>& out) {
    // 2^(e - 128): half of the scale, for values that are doubled; subnormal for e of 0 and 1.
    out.scale = as_float(from[0] < 2 ? 0x00200000u << from[0] : (from[0] - 1u) << 23);
    read_nibbles(from + 1, out.codes);
  }
};
