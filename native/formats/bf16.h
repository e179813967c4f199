// The upper half of a float. Columns lie in pairs: what a processor with bf16 products takes at
// once, and what others widen with one shift and one mask.
struct bf16 {
  static constexpr char name[] = "bf16";
  static constexpr std::size_t group = 2;
  using element = std::uint16_t;

  static float widen(element x) { return widen_bf16(x); }
  static f32x16 load_lanes(const element* p) { return load_bf16(p); }
  static void store_lanes(element* p, f32x16 x) { store_bf16(p, x); }

#if TALU_BF16_PRODUCTS
  // Two products a lane and a cycle; the activations are rounded to bf16 as well.
  using activation = std::uint16_t;
  using columns = bf16x32;

  static columns load_columns(const element* p) { return load_pairs(p); }
  static f32x16 multiply_add(columns w, const activation* x, f32x16 sum) {
    return add_products(w, splat_pair(x), sum);
  }
#else
  using activation = float;
  struct columns {
    f32x16 first, second;
  };

  static columns load_columns(const element* p) {
    columns w;
    load_bf16_pairs(p, w.first, w.second);
    return w;
  }
  static f32x16 multiply_add(columns w, const activation* x, f32x16 sum) {
    return fma(w.second, splat(x[1]), fma(w.first, splat(x[0]), sum));
  }
#endif
};
