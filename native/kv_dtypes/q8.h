// Keys and values in 8 bits: integers from -127 to 127 with a scale for each position of a head. Keys
// are rotated before, which spreads the few large columns that keys of many models have.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.
struct KvQ8 {
  static constexpr char name[] = "q8";
  static constexpr bool scaled = true, rotated = true;
  using element = std::int8_t;

  static f32x16 load(const element* p) { return load_i8(reinterpret_cast<const std::byte*>(p)); }

  // `work` has room for a row of a head.
  static void write(const HeadCache<KvQ8>& cache, std::size_t position, std::size_t count,
                    const KeysAndValues& from, float* work) {
    element* const keys =
        cache.key_tile(position / kTileRows * kTileRows) + position % kTileRows;
    element* const values = cache.value_lanes(position);
    for (std::size_t i = 0; i < count; ++i) {
      float& key_scale = cache.key_scales(position)[i];
      float& value_scale = cache.value_scales(position)[i];
      rotate_head(from.key(i), cache.head_size, work);
      const float key_factor = choose_scale(work, cache.head_size, key_scale);
      const float value_factor = choose_scale(from.value(i), cache.head_size, value_scale);
      value_scale += 0.0f * key_scale;  // NaN, if the key's is
      for_columns(cache.head_size, [&](std::size_t c, std::size_t n) {
        element rounded[kTileRows];
        store_i8(rounded, multiply(load_some(work + c, n), splat(key_factor)));
        for (std::size_t column = 0; column < n; ++column)
          keys[(c + column) * kTileRows + i] = rounded[column];
        store_i8(values + i * kTileRows + c * cache.block_size,
                 multiply(load_some(from.value(i) + c, n), splat(value_factor)));
      });
    }
  }
  // Returns what a row has to be multiplied by. The scale is NaN if a number is not finite. Numbers
  // that are all below the smallest size become 0.
  static float choose_scale(const float* x, std::size_t columns, float& scale) {
    constexpr float kMost = 127.0f, kSmallest = 0x1p-100f;
    const f32x16 sizes = largest_sizes(x, columns);
    const float size = largest(sizes);
    scale = size / kMost + sum(multiply(sizes, splat(0.0f)));
    return size < kSmallest ? 0.0f : kMost / size;
  }
};
