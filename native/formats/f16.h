// IEEE half precision; widened to float before it is multiplied.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
struct f16 {
  static constexpr char name[] = "f16";
  static constexpr std::size_t group = 1;
  static constexpr std::size_t parts = 1;
  static constexpr auto& panels = kPanels;
  static constexpr std::size_t sums_at_once = kSumsAtOnce;
  static constexpr std::size_t columns_at_once = 512;
  using element = std::uint16_t;
  using activation = float;
  static constexpr float kOverflow = 65520.0f;  // from this size on a number is rounded to infinity
  static constexpr element kNotANumber = 0x7e00;

  static float widen(element x) { return widen_f16(x); }
  static f32x16 load_lanes(const element* p) { return load_f16(p); }
  static void store_lanes(element* p, f32x16 x) { store_f16(p, x); }

  static f32x16 load_part(const element* p, std::size_t) { return load_f16(p); }
  static f32x16 multiply_add(f32x16 w, const activation* x, f32x16 sum) {
    return fma(w, splat(*x), sum);
  }
};
