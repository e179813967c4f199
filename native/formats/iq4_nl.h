// Blocks of 32 weights with one scale; a code of 4 bits is the index of one of 16 values.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
constexpr std::uint8_t kIq4Values[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};

struct iq4_nl {
  static constexpr char name[] = "iq4_nl";
  static constexpr int bits = 4, offset = 128, minimum = 0;
  static constexpr std::size_t block = 32, part = 32, bytes = 18;
  static constexpr bool integers = false;
  using Scale = HalfScale;
  static constexpr auto& table = kIq4Values;

  static void read(const std::uint8_t* from, CodeBlock<iq4_nl>& out) {
    out.scale = read_u16(from);
    read_nibbles(from + 2, out.codes);
  }
};
