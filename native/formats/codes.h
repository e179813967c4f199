// Formats whose weights are codes of a few bits, in blocks with scales: those of GGUF files. A file's
// description of a format becomes a format of blocks:
//   weight = scale · (code - offset) + minimum · sign
// scale and minimum are those of a block, or of a block times small integers of its parts.
//
// A description is a structure with
//   name, bits, offset    of the codes
//   block, part           columns of a block, and columns with one scale: 16 or 32
//   Scale                 how a block's scale is stored: HalfScale, FloatScale
//   integers              whether each part has an integer that multiplies the scale
//   minimum               the sign of the minimum, or 0 for none; with `integers`, each part has one
//   table                 if the codes are indexes: the values + offset, unsigned
//   bytes                 of a block in the file
//   read(from, out)       reads a block of the file
// and, if talu makes such files (encode.h),
//   write(in, to)         writes a block of the file, whose bytes are zero
//   largest_integer       of those of the parts, which may be negative if there is no minimum
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.

// A block as the file describes it.
template <class D>
struct CodeBlock {
  std::uint8_t codes[D::block];
  typename D::Scale::type scale, minimum;
  std::int8_t scales[D::block / D::part];
  std::uint8_t minimums[D::block / D::part];
};

struct HalfScale {
  using type = std::uint16_t;
  static f32x16 load(const std::byte* p) {
    return load_f16(reinterpret_cast<const std::uint16_t*>(p));
  }
  static float widen(type x) { return widen_f16(x); }
};
struct FloatScale {
  using type = float;
  static f32x16 load(const std::byte* p) {
    return ::talu::load(reinterpret_cast<const float*>(p));
  }
  static float widen(type x) { return x; }
};

// Activations in 8 bits: a scale for 32 columns, a sum of integers for 16.
struct I8Row : IntegerRow<std::int8_t, 32, 16> {
  // A smaller scale becomes zero, so that the inverse stays finite.
  static constexpr float kSmallestScale = 1e-30f;

  static void quantize(const float* x, std::size_t columns, void* out) {
    auto* const scales = static_cast<float*>(out);
    auto* const sums =
        reinterpret_cast<std::int32_t*>(static_cast<std::byte*>(out) + sums_at(columns));
    auto* const integers =
        reinterpret_cast<Integer*>(static_cast<std::byte*>(out) + integers_at(columns));
    for (std::size_t begin = 0; begin < columns; begin += scaled) {
      const f32x16 first = load(x + begin), second = load(x + begin + kTileRows);
      const f32x16 sizes = larger_size(larger_size(splat(0.0f), first), second);
      const float step = largest(sizes) / 127.0f;
      const bool none = step < kSmallestScale;
      const f32x16 inverse = splat(none ? 0.0f : 1.0f / step);
      scales[begin / scaled] = (none ? 0.0f : step) + sum(multiply(sizes, splat(0.0f)));
      store_i8(integers + begin, multiply(first, inverse));
      store_i8(integers + begin + kTileRows, multiply(second, inverse));
      for (std::size_t half = 0; half < 2; ++half) {
        std::int32_t total = 0;
        for (std::size_t c = 0; c < summed; ++c) total += integers[begin + half * summed + c];
        sums[begin / summed + half] = total;
      }
    }
  }
};

// The codes of a block, as planes of 8, 4, 2 and 1 bits, those that `bits` is a sum of; the lowest
// bits are in the widest plane. A vector of a plane has 32 bytes, each with the bits of several
// codes: of rows 0 to 7 of four columns, then of rows 8 to 15, then of the next columns. Of the
// description D, this uses bits, block, part and table.
template <class D>
struct Planes {
  static constexpr std::size_t group = 4, block = D::block, part = D::part;
  static constexpr std::size_t kGroupBits = group * kTileRows;  // of one plane of one bit
  static constexpr std::size_t bytes = block / group * kGroupBits * D::bits / 8;

  static constexpr bool indexed = requires { D::table; };
  static constexpr int largest_code() {
    int largest = (1 << D::bits) - 1;
    if constexpr (indexed) {
      largest = 0;
      for (const std::uint8_t value : D::table) largest = value > largest ? value : largest;
    }
    return largest;
  }

  // Where the plane of `width` bits begins, and the bits of the planes before it.
  static constexpr std::size_t bits_before(int width) {
    std::size_t before = 0;
    for (int w = 8; w > width; w /= 2) before += D::bits & w;
    return before;
  }
  static constexpr std::size_t plane(int width) {
    return block / group * kGroupBits * bits_before(width) / 8;
  }

  // Byte and shift of a code within a plane.
  struct Place {
    std::size_t byte, shift;
  };
  static Place place(int width, std::size_t column, std::size_t lane) {
    const std::size_t half = column / group * 2 + lane / 8, in_vector = 8 / width;
    return {half / in_vector * 32 + lane % 8 * group + column % group,
            half % in_vector * static_cast<std::size_t>(width)};
  }

  // Writes the codes of one row; the bytes were zero.
  static void write(const std::uint8_t* row, std::size_t lane, std::byte* planes) {
    for (std::size_t c = 0; c < block; ++c)
      for (int width = 8; width > 0; width /= 2)
        if (D::bits & width) {
          const Place at = place(width, c, lane);
          const unsigned bits = row[c] >> bits_before(width) & ((1u << width) - 1);
          planes[plane(width) + at.byte] |= static_cast<std::byte>(bits << at.shift);
        }
  }
  static unsigned read(const std::byte* planes, std::size_t column, std::size_t lane) {
    unsigned code = 0;
    for (int width = 8; width > 0; width /= 2)
      if (D::bits & width) {
        const Place at = place(width, column, lane);
        const auto bits = static_cast<unsigned>(planes[plane(width) + at.byte]) >> at.shift;
        code |= (bits & ((1u << width) - 1)) << bits_before(width);
      }
    if constexpr (indexed) code = D::table[code];
    return code;
  }

  // The codes of four columns of all rows.
  template <int WIDTH>
  [[gnu::always_inline]] static codes plane_codes(const std::byte* planes, std::size_t number) {
    return load_codes<WIDTH>(planes + plane(WIDTH), number);
  }
  [[gnu::always_inline]] static codes group_codes(const std::byte* planes, std::size_t number) {
    codes all;
    if constexpr ((D::bits & 8) != 0) all = plane_codes<8>(planes, number);
    if constexpr ((D::bits & 4) != 0) all = plane_codes<4>(planes, number);
    if constexpr ((D::bits & 7) == 2 || (D::bits & 7) == 3) all = plane_codes<2>(planes, number);
    if constexpr (D::bits == 1) all = plane_codes<1>(planes, number);
    if constexpr ((D::bits & 6) == 6)
      all = combine<4>(all, plane_codes<2>(planes, number));
    if constexpr ((D::bits & 1) != 0 && D::bits > 1)
      all = combine<D::bits - 1>(all, plane_codes<1>(planes, number));
    if constexpr (indexed) all = look_up(all, D::table);
    return all;
  }

  // The codes of a block in bytes: sixteen rows of four columns, then the next columns.
  static constexpr std::size_t unpacked_bytes = block * kTileRows;
  static void unpack(const std::byte* planes, std::byte* to) {
    for (std::size_t g = 0; g < block / group; ++g, to += group * kTileRows)
      store_codes(to, group_codes(planes, g));
  }

  // Codes of which a pair of products exceeds 16 bits are multiplied as signed numbers: the sums are
  // those of (code - bias) · x.
  static constexpr bool wide = largest_code() > kLargestCode;
  static constexpr int bias = wide ? 128 : 0;

  // sum[token] = (codes - bias) of one part · x, exactly. READ gives the codes of a group.
  template <std::size_t TOKENS, codes (*READ)(const std::byte*, std::size_t) = group_codes>
  [[gnu::always_inline]] static void add_part(const std::byte* planes, std::size_t number,
                                              const std::byte* x, std::size_t stride,
                                              i32x16 (&sum)[TOKENS]) {
    constexpr std::size_t groups = part / group;
    if constexpr (wide) {
      for (std::size_t t = 0; t < TOKENS; ++t) sum[t] = splat_integer(0);
#pragma GCC unroll kUnrolledGroups
      for (std::size_t g = 0; g < groups; ++g) {
        const auto w = less_128(READ(planes, number * groups + g));
#pragma GCC unroll 12
        for (std::size_t t = 0; t < TOKENS; ++t)
          sum[t] = add_signed(w, x + t * stride + g * group, sum[t]);
      }
      return;
    }
    constexpr std::size_t at_once = smaller(groups, groups_before_overflow(largest_code()));
#pragma GCC unroll kUnrolledGroups
    for (std::size_t begin = 0; begin < groups; begin += at_once) {
      partial products[TOKENS];
#pragma GCC unroll 12
      for (std::size_t t = 0; t < TOKENS; ++t) products[t] = no_products();
#pragma GCC unroll kUnrolledGroups
      for (std::size_t g = begin; g < begin + at_once; ++g) {
        const codes w = READ(planes, number * groups + g);
#pragma GCC unroll 12
        for (std::size_t t = 0; t < TOKENS; ++t)
          products[t] = add_codes(w, x + t * stride + g * group, products[t]);
      }
#pragma GCC unroll 12
      for (std::size_t t = 0; t < TOKENS; ++t)
        sum[t] = begin == 0 ? widen(products[t]) : add(sum[t], widen(products[t]));
    }
  }
};

template <class D>
struct Coded {
  static constexpr auto& name = D::name;
  static constexpr char activation[] = "i8";
  static constexpr std::size_t block = D::block, part = D::part, parts = block / part;
  static constexpr std::size_t source_columns = block;
  static constexpr auto& panels = kCodePanels;
  using Row = I8Row;
  using Codes = Planes<D>;
  using Scale = typename D::Scale;
  // Codes of one plane and scales of one part are as fast as unpacked ones.
  static constexpr bool unpacks = parts > 1 || Codes::indexed || (D::bits & (D::bits - 1)) != 0;
  static_assert(part == 16 || part == 32);

  // A block in a tile: sixteen scales, sixteen minimums; for each part sixteen integers, then those
  // of the minimums; the planes.
  static constexpr std::size_t kScaleBytes = kTileRows * sizeof(typename Scale::type);
  static constexpr std::size_t kMinimums = kScaleBytes;
  static constexpr std::size_t kIntegers = kMinimums + (D::minimum != 0 ? kScaleBytes : 0);
  static constexpr std::size_t kMinimumIntegers =
      kIntegers + (D::integers ? parts * kTileRows : 0);
  static constexpr std::size_t kPlanes =
      kMinimumIntegers + (D::integers && D::minimum != 0 ? parts * kTileRows : 0);

  static constexpr std::size_t block_bytes(std::size_t) { return kPlanes + Codes::bytes; }
  static constexpr std::size_t source_bytes(std::size_t columns) {
    return columns / block * D::bytes;
  }

  static void pack_block(const std::byte* source, std::size_t stride, std::size_t rows,
                         std::size_t, std::byte* out) {
    CodeBlock<D> read;
    for (std::size_t lane = 0; lane < rows; ++lane, source += stride) {
      D::read(reinterpret_cast<const std::uint8_t*>(source), read);
      constexpr std::size_t size = sizeof read.scale;
      __builtin_memcpy(out + lane * size, &read.scale, size);
      if constexpr (D::minimum != 0)
        __builtin_memcpy(out + kMinimums + lane * size, &read.minimum, size);
      for (std::size_t p = 0; p < parts; ++p) {
        if constexpr (D::integers)
          out[kIntegers + p * kTileRows + lane] = static_cast<std::byte>(read.scales[p]);
        if constexpr (D::integers && D::minimum != 0)
          out[kMinimumIntegers + p * kTileRows + lane] = static_cast<std::byte>(read.minimums[p]);
      }
      Codes::write(read.codes, lane, out + kPlanes);
    }
  }

  static void dequantize_block(const std::byte* from, std::size_t lane, std::size_t, float* out) {
    typename Scale::type stored;
    __builtin_memcpy(&stored, from + lane * sizeof stored, sizeof stored);
    const float whole = Scale::widen(stored);
    float minimum = 0;
    if constexpr (D::minimum != 0) {
      __builtin_memcpy(&stored, from + kMinimums + lane * sizeof stored, sizeof stored);
      minimum = Scale::widen(stored);
    }
    for (std::size_t p = 0; p < parts; ++p) {
      float scale = whole, least = minimum;
      if constexpr (D::integers) {
        const auto* const integers = reinterpret_cast<const std::int8_t*>(from + kIntegers);
        scale = whole * static_cast<float>(integers[p * kTileRows + lane]);
        if constexpr (D::minimum != 0)
          least = minimum *
                  static_cast<float>(static_cast<unsigned>(from[kMinimumIntegers + p * kTileRows + lane]));
      }
      for (std::size_t c = p * part; c < (p + 1) * part; ++c) {
        const int code = static_cast<int>(Codes::read(from + kPlanes, c, lane)) - D::offset;
        const float weight = scale * static_cast<float>(code);
        if constexpr (D::minimum > 0)
          out[c] = weight + least;
        else if constexpr (D::minimum < 0)
          out[c] = weight - least;
        else
          out[c] = weight;
      }
    }
  }

  // Scale and minimum of a part.
  struct Grid {
    f32x16 scale, least;
  };
  static Grid grid(const std::byte* from, const Grid& whole, std::size_t p) {
    Grid of_part = whole;
    if constexpr (D::integers) {
      of_part.scale = multiply(whole.scale, load_i8(from + kIntegers + p * kTileRows));
      if constexpr (D::minimum != 0)
        of_part.least = multiply(whole.least, load_u8(from + kMinimumIntegers + p * kTileRows));
    }
    return of_part;
  }
  static Grid whole_grid(const std::byte* from) {
    Grid whole = {Scale::load(from), splat(0.0f)};
    if constexpr (D::minimum != 0) whole.least = Scale::load(from + kMinimums);
    return whole;
  }

  // sums += the weights of a part · x, of which `sum` are the products of codes and integers.
  template <std::size_t TOKENS>
  [[gnu::always_inline]] static void add_sums(const i32x16 (&sum)[TOKENS], const Grid& grid,
                                              std::size_t p, const BlockActivations& x, bool first,
                                              float* sums, std::size_t sums_stride) {
#pragma GCC unroll 12
    for (std::size_t t = 0; t < TOKENS; ++t) {
      float* const to = sums + t * sums_stride;
      const float step = x.scale(t, p * part / Row::scaled);
      std::int32_t all = x.sum(t, p * part / Row::summed);
      if constexpr (part == 2 * Row::summed) all += x.sum(t, p * part / Row::summed + 1);
      f32x16 y = first && p == 0 ? splat(0.0f) : ::talu::load(to);
      const i32x16 products = subtract(sum[t], (D::offset - Codes::bias) * all);
      y = fma(to_floats(products), multiply(grid.scale, splat(step)), y);
      if constexpr (D::minimum != 0)
        y = fma(grid.least, splat(D::minimum * step * static_cast<float>(all)), y);
      store(to, y);
    }
  }

  // sums = tiles · x, for TOKENS rows of activations. The tiles advance together, a part at a time:
  // the processor reads several streams from memory faster than one.
  template <std::size_t TOKENS>
  [[gnu::noinline]] static void multiply_few(const std::byte* tiles, std::size_t tile_bytes,
                                             std::size_t count, std::size_t columns,
                                             BlockActivations x, float* sums,
                                             std::size_t sums_stride) {
    constexpr std::size_t kPartBytes = block_bytes(block) / parts;
    constexpr std::size_t kDistance = parts == 1 ? 1024 : 2048;
    Grid whole[kTilesAtOnce];
    for (std::size_t begin = 0; begin < columns; begin += block) {
      for (std::size_t r = 0; r < count; ++r) whole[r] = whole_grid(tiles + r * tile_bytes);
#pragma GCC unroll 1
      for (std::size_t p = 0; p < parts; ++p) {
        const std::byte* from = tiles;
#pragma GCC unroll 1
        for (std::size_t r = 0; r < count; ++r, from += tile_bytes) {
          prefetch<kPartBytes>(from + p * kPartBytes + kDistance);
          i32x16 sum[TOKENS];
          Codes::template add_part<TOKENS>(from + kPlanes, p, x.integers + p * part, x.stride, sum);
          add_sums(sum, grid(from, whole[r], p), p, x, begin == 0, sums + r * kTileRows,
                   sums_stride);
        }
      }
      tiles += block_bytes(block);
      x.advance<Row>(block);
    }
  }

  // A block with its codes in bytes, and the scales and minimums of its parts in floats.
  struct Unpacked {
    static constexpr std::size_t block = Coded::block;
    static constexpr auto& panels = kCodePanels;
    using Row = I8Row;
    static constexpr std::size_t kGrid = (D::minimum != 0 ? 2 : 1) * kTileRows * sizeof(float);

    static constexpr std::size_t block_bytes(std::size_t) {
      return parts * kGrid + Codes::unpacked_bytes;
    }
    [[gnu::noinline]] static void unpack(const std::byte* from, std::byte* to) {
      const Grid whole = whole_grid(from);
      for (std::size_t p = 0; p < parts; ++p, to += kGrid) {
        const Grid of_part = grid(from, whole, p);
        auto* const floats = reinterpret_cast<float*>(to);
        ::talu::store(floats, of_part.scale);
        if constexpr (D::minimum != 0) ::talu::store(floats + kTileRows, of_part.least);
      }
      Codes::unpack(from + kPlanes, to);
    }
    template <std::size_t TOKENS>
    [[gnu::noinline]] static void add_several(const std::byte* from, std::size_t count,
                                              BlockActivations x, bool first, float* sums,
                                              std::size_t sums_stride) {
      for (; count > 0; --count, from += block_bytes(block), x.advance<Row>(block), first = false) {
#pragma GCC unroll 1
        for (std::size_t p = 0; p < parts; ++p) {
          i32x16 sum[TOKENS];
          Codes::template add_part<TOKENS, load_codes<8>>(
              from + parts * kGrid, p, x.integers + p * part, x.stride, sum);
          const auto* const floats = reinterpret_cast<const float*>(from + p * kGrid);
          Grid of_part = {::talu::load(floats), splat(0.0f)};
          if constexpr (D::minimum != 0) of_part.least = ::talu::load(floats + kTileRows);
          add_sums(sum, of_part, p, x, first, sums, sums_stride);
        }
      }
    }
  };
};

// Reads and writes numbers of a file, which are not aligned.
TALU_INLINE std::uint16_t read_u16(const std::uint8_t* p) {
  return static_cast<std::uint16_t>(p[0] | p[1] << 8);
}
TALU_INLINE std::uint32_t read_u32(const std::uint8_t* p) {
  return read_u16(p) | static_cast<std::uint32_t>(read_u16(p + 2)) << 16;
}

TALU_INLINE void write_u16(std::uint16_t x, std::uint8_t* p) {
  p[0] = static_cast<std::uint8_t>(x);
  p[1] = static_cast<std::uint8_t>(x >> 8);
}
// Adds bits to a byte in which they are zero.
TALU_INLINE void add_bits(unsigned bits, std::size_t shift, std::uint8_t& byte) {
  byte = static_cast<std::uint8_t>(byte | bits << shift);
}

// 16 bytes: the first 16 codes in the lower halves, the next 16 in the upper halves.
TALU_INLINE void read_nibbles(const std::uint8_t* from, std::uint8_t* codes) {
  for (std::size_t i = 0; i < 16; ++i) {
    codes[i] = from[i] & 15;
    codes[16 + i] = from[i] >> 4;
  }
}
TALU_INLINE void write_nibbles(const std::uint8_t* codes, std::uint8_t* to) {
  for (std::size_t i = 0; i < 16; ++i)
    to[i] = static_cast<std::uint8_t>((codes[i] & 15) | (codes[16 + i] & 15) << 4);
}
TALU_INLINE void add_fifth_bits(std::uint32_t bits, std::uint8_t* codes) {
  for (std::size_t i = 0; i < 32; ++i)
    codes[i] = static_cast<std::uint8_t>(codes[i] | (bits >> i & 1) << 4);
}
TALU_INLINE void write_fifth_bits(const std::uint8_t* codes, std::uint8_t* to) {
  for (std::size_t i = 0; i < 32; ++i) add_bits(codes[i] >> 4 & 1, i % 8, to[i / 8]);
}
// 64 bytes for 256 codes: in each half, 32 codes in the lowest bits of 32 bytes, then 32 in the next.
TALU_INLINE void read_pairs_of_bits(const std::uint8_t* from, std::uint8_t* codes) {
  for (std::size_t c = 0; c < 256; ++c)
    codes[c] = from[c / 128 * 32 + c % 32] >> (c / 32 % 4 * 2) & 3;
}
TALU_INLINE void write_pairs_of_bits(const std::uint8_t* codes, std::uint8_t* to) {
  for (std::size_t c = 0; c < 256; ++c)
    add_bits(codes[c] & 3, c / 32 % 4 * 2, to[c / 128 * 32 + c % 32]);
}
// 12 bytes: eight scales and eight minimums in 6 bits.
TALU_INLINE void read_six_bits(const std::uint8_t* from, std::int8_t* scales,
                               std::uint8_t* minimums) {
  for (std::size_t p = 0; p < 4; ++p) {
    scales[p] = static_cast<std::int8_t>(from[p] & 63);
    minimums[p] = from[p + 4] & 63;
    scales[p + 4] = static_cast<std::int8_t>((from[p + 8] & 15) | from[p] >> 6 << 4);
    minimums[p + 4] = static_cast<std::uint8_t>(from[p + 8] >> 4 | from[p + 4] >> 6 << 4);
  }
}
TALU_INLINE void write_six_bits(const std::int8_t* scales, const std::uint8_t* minimums,
                                std::uint8_t* to) {
  for (std::size_t p = 0; p < 4; ++p) {
    const auto scale = static_cast<unsigned>(scales[p + 4]);
    to[p] = static_cast<std::uint8_t>(static_cast<unsigned>(scales[p]) | (scale >> 4) << 6);
    to[p + 4] = static_cast<std::uint8_t>(minimums[p] | minimums[p + 4] >> 4 << 6);
    to[p + 8] = static_cast<std::uint8_t>((scale & 15) | (minimums[p + 4] & 15) << 4);
  }
}
