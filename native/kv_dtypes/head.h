// The keys and values of one KV head of one layer, in the blocks of one sequence, in any format.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.

// A format F of cached numbers has
//   name, element
//   scaled            whether the numbers of a position are multiplied by a float, their scale
//   rotated           whether keys and queries are rotated, which leaves their products as they are
//   load              sixteen numbers, without their scale
//   write             stores keys and values of some positions of one tile, from consecutive rows
// Where `write` is given a key or a value that the format cannot hold, the values of the position
// become NaN, and so does every row that attends to it: an infinite key alone could take the position
// out of the softmax, and leave a finite, wrong result.
// In a block, a head has
//   keys              (tiles of 16 positions, columns, 16)
//   values            (tiles of 16 columns, positions, 16)
//   their scales      (2, positions), if they have some
template <class F>
struct HeadCache {
  using element = typename F::element;
  std::byte* base;
  const std::int32_t* table;
  std::size_t block_size, block_bytes, head_size;

  HeadCache(const Cache& cache, const std::int32_t* blocks, std::size_t layer,
            std::size_t kv_head, std::size_t size)
      : base(cache.data + cache.layer_offsets[layer] + kv_head * bytes(cache.block_size, size)),
        table(blocks),
        block_size(cache.block_size),
        block_bytes(cache.block_bytes),
        head_size(size) {}

  // Of one head in a block.
  static std::size_t bytes(std::size_t positions, std::size_t head_size) {
    const std::size_t columns = head_size + round_up(head_size, kTileRows);
    return positions * (columns * sizeof(element) + (F::scaled ? 2 * sizeof(float) : 0));
  }
  std::byte* block(std::size_t position) const {
    return base + static_cast<std::size_t>(table[position / block_size]) * block_bytes;
  }
  // Tile of the 16 positions from `position`, a multiple of 16.
  element* key_tile(std::size_t position) const {
    return reinterpret_cast<element*>(block(position)) + position % block_size * head_size;
  }
  // Values of `position`: 16 columns, and the next 16 block_size * 16 elements further.
  element* value_lanes(std::size_t position) const {
    return reinterpret_cast<element*>(block(position)) + block_size * head_size +
           position % block_size * kTileRows;
  }
  float* key_scales(std::size_t position) const {
    const std::size_t columns = head_size + round_up(head_size, kTileRows);
    return reinterpret_cast<float*>(block(position) + block_size * columns * sizeof(element)) +
           position % block_size;
  }
  float* value_scales(std::size_t position) const { return key_scales(position) + block_size; }
};

// The largest sizes in sixteen parts of a row; infinity and NaN take precedence.
static f32x16 largest_sizes(const float* x, std::size_t columns) {
  f32x16 sizes = splat(0.0f);
  for_columns(columns, [&](std::size_t c, std::size_t n) {
    sizes = larger_size(sizes, load_some(x + c, n));
  });
  return sizes;
}

// Where `write` finds the rows of one head.
struct KeysAndValues {
  const float *keys, *values;
  std::size_t key_stride, value_stride;

  const float* key(std::size_t row) const { return keys + row * key_stride; }
  const float* value(std::size_t row) const { return values + row * value_stride; }
};

// The head rotated in blocks of 64 columns, and of 16 where fewer are left. The last columns, fewer
// than 16, stay as they are.
static void rotate_head(const float* x, std::size_t columns, float* out) {
  std::size_t c = 0;
  for (; c + kRotated <= columns; c += kRotated) rotate_block(x + c, out + c);
  for (; c + kTileRows <= columns; c += kTileRows)
    store(out + c, multiply(butterfly<1>(butterfly<2>(butterfly<4>(butterfly<8>(load(x + c))))),
                            splat(0.25f)));
  if (c < columns) store_first(out + c, load_first(x + c, columns - c), columns - c);
}
