// Plain floats.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
struct f32 {
  static constexpr char name[] = "f32";
  static constexpr std::size_t group = 1;
  static constexpr std::size_t parts = 1;
  static constexpr auto& panels = kFloatPanels;
  static constexpr std::size_t sums_at_once = kFloatSumsAtOnce;
  static constexpr std::size_t columns_at_once = kFloatColumnsAtOnce;
  using element = float;
  using activation = float;

  static float widen(element x) { return x; }
  static f32x16 load_lanes(const element* p) { return load(p); }
  static void store_lanes(element* p, f32x16 x) { store(p, x); }

  static f32x16 load_part(const element* p, std::size_t) { return load(p); }
  static f32x16 multiply_add(f32x16 w, const activation* x, f32x16 sum) {
    return fma(w, splat(*x), sum);
  }
};
