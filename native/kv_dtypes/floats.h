// Keys and values in a format of floats.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
template <class F>
struct KvFloats : F {
  static constexpr bool scaled = false, rotated = false;
  using element = typename F::element;

  static f32x16 load(const element* p) { return F::load_lanes(p); }

  static void write(const HeadCache<KvFloats>& cache, std::size_t position, std::size_t count,
                    const KeysAndValues& from, float*) {
    element* const keys =
        cache.key_tile(position / kTileRows * kTileRows) + position % kTileRows;
    element* const values = cache.value_lanes(position);
    element rounded[kTileRows][kTileRows];
    for_columns(cache.head_size, [&](std::size_t c, std::size_t n) {
      for (std::size_t i = 0; i < count; ++i) {
        F::store_lanes(rounded[i], load_some(from.key(i) + c, n));
        F::store_lanes(values + i * kTileRows + c * cache.block_size,
                       load_some(from.value(i) + c, n));
      }
      for (std::size_t column = 0; column < n; ++column)
        for (std::size_t i = 0; i < count; ++i)
          keys[(c + column) * kTileRows + i] = rounded[i][column];
    });
    if constexpr (requires { F::kOverflow; })
      for (std::size_t i = 0; i < count; ++i)
        if (overflows(from.key(i), cache.head_size) || overflows(from.value(i), cache.head_size))
          values[i * kTileRows] = F::kNotANumber;
  }
  // Whether a row has a number that is rounded to infinity. NaN stays NaN.
  static bool overflows(const float* x, std::size_t columns) {
    return !(largest(largest_sizes(x, columns)) < F::kOverflow);
  }
};
