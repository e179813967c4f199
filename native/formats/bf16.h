// bf16, the upper half of a float. Columns are stored in pairs, which a processor with bf16
// products takes as one operand, and which others widen with one shift and one mask.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
struct bf16 {
  static constexpr char name[] = "bf16";
  static constexpr std::size_t group = 2;
  static constexpr auto& panels = kPanels;
  static constexpr std::size_t sums_at_once = kSumsAtOnce;
  static constexpr std::size_t columns_at_once = 512;
  using element = std::uint16_t;

  static float widen(element x) { return widen_bf16(x); }
  static f32x16 load_lanes(const element* p) { return load_bf16(p); }
  static void store_lanes(element* p, f32x16 x) { store_bf16(p, x); }

#if TALU_BF16_PRODUCTS
  // Two products in each lane at once; the activations are also rounded to bf16.
  static constexpr std::size_t parts = 1;
  using activation = std::uint16_t;

  static bf16x32 load_part(const element* p, std::size_t) { return load_pairs(p); }
  static f32x16 multiply_add(bf16x32 w, const activation* x, f32x16 sum) {
    return add_products(w, splat_pair(x), sum);
  }
#else
  static constexpr std::size_t parts = 2;
  using activation = float;

  static f32x16 load_part(const element* p, std::size_t part) {
    return part == 0 ? load_first_of_pairs(p) : load_second_of_pairs(p);
  }
  static f32x16 multiply_add(f32x16 w, const activation* x, f32x16 sum) {
    return fma(w, splat(*x), sum);
  }
#endif
};
