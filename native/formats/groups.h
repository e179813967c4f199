// Groups of 32, 64 or 128 columns whose codes share a scale and one of
//   a minimum:      weight = scale · code + minimum      "affine", as in MLX
//   a zero point:   weight = scale · (code - zero)       "zeros", as in GPTQ and AWQ
// Scales and minimums are in f16 or bf16; zero points are bytes. In the source, a group has its
// scale, its minimum or zero point, and its codes, the first of them in the lowest bits.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.

struct BrainScale {
  static constexpr char name[] = "bf16";
  static f32x16 load(const std::byte* p) {
    return load_bf16(reinterpret_cast<const std::uint16_t*>(p));
  }
  static float widen(std::uint16_t x) { return widen_bf16(x); }
};
struct NamedHalfScale : HalfScale {
  static constexpr char name[] = "f16";
};

// What follows the sixteen scales of a group: sixteen minimums, or sixteen zero points. `add` adds
// the products of a part of a group: `sum` is that of codes · x, and `all` that of x, both exact in a
// float, and so is the sum of (code - zero) · x.
template <class SCALE>
struct Minimum {
  static constexpr char name[] = "affine";
  using type = std::uint16_t;
  static f32x16 load(const std::byte* p) { return SCALE::load(p); }
  static f32x16 add(f32x16 sum, f32x16 minimum, f32x16 scale, float step, float all, f32x16 y) {
    return fma(minimum, splat(step * all), fma(sum, multiply(scale, splat(step)), y));
  }
  static float zero(type) { return 0.0f; }
  static float minimum(type x) { return SCALE::widen(x); }
};
template <class SCALE>
struct ZeroPoint {
  static constexpr char name[] = "zeros";
  using type = std::uint8_t;
  static f32x16 load(const std::byte* p) { return load_u8(p); }
  static f32x16 add(f32x16 sum, f32x16 zero, f32x16 scale, float step, float all, f32x16 y) {
    return fma(fma(zero, splat(-all), sum), multiply(scale, splat(step)), y);
  }
  static float zero(type x) { return static_cast<float>(x); }
  static float minimum(type) { return 0.0f; }
};

// The codes of a part of a group. All groups with this number of bits share these functions.
template <int BITS>
struct PartOfGroup {
  static constexpr int bits = BITS;
  static constexpr std::size_t block = 32, part = 32, bytes = block * BITS / 8;
  using Codes = Planes<PartOfGroup>;

  [[gnu::noinline]] static void pack(const std::uint8_t* from, std::size_t lane, std::byte* out) {
    std::uint8_t row[block];
    for (std::size_t c = 0; c < block; ++c) {
      const std::size_t bit = c * BITS, shift = bit % 8;
      unsigned two = from[bit / 8];
      if (shift + BITS > 8) two |= static_cast<unsigned>(from[bit / 8 + 1]) << 8;
      row[c] = static_cast<std::uint8_t>(two >> shift & ((1u << BITS) - 1));
    }
    Codes::write(row, lane, out);
  }

  [[gnu::noinline]] static void unpack(const std::byte* from, std::byte* to) {
    Codes::unpack(from, to);
  }

  [[gnu::noinline]] static void dequantize(const std::byte* from, std::size_t lane, float scale,
                                           float zero, float minimum, float* out) {
    for (std::size_t c = 0; c < block; ++c)
      out[c] = scale * (static_cast<float>(Codes::read(from, c, lane)) - zero) + minimum;
  }

  // sums += weights · x, for `parts` neighbouring parts with the same scale and offset. A part has
  // BYTES bytes, and READ gives the codes of four columns.
  template <class OFFSET, std::size_t TOKENS, std::size_t BYTES,
            codes (*READ)(const std::byte*, std::size_t)>
  [[gnu::noinline]] static void add(const std::byte* from, std::size_t parts, const f32x16& scale,
                                    const f32x16& offset, const BlockActivations& x, bool first,
                                    float* sums, std::size_t sums_stride) {
#pragma GCC unroll 1
    for (std::size_t p = 0; p < parts; ++p) {
      i32x16 sum[TOKENS];
      Codes::template add_part<TOKENS, READ>(from + p * BYTES, 0, x.integers + p * part, x.stride,
                                             sum);
#pragma GCC unroll 12
      for (std::size_t t = 0; t < TOKENS; ++t) {
        float* const to = sums + t * sums_stride;
        const float step = x.scale(t, p);
        const std::int32_t all = x.sum(t, 2 * p) + x.sum(t, 2 * p + 1);
        const f32x16 y = first && p == 0 ? splat(0.0f) : load(to);
        const f32x16 products = to_floats(subtract(sum[t], -Codes::bias * all));
        store(to, OFFSET::add(products, offset, scale, step, static_cast<float>(all), y));
      }
    }
  }
};

template <int BITS, std::size_t COLUMNS, class SCALE, template <class> class OFFSET>
struct Group {
  using Offset = OFFSET<SCALE>;
  using Multiplied = OFFSET<NamedHalfScale>;  // whatever the type of the scales is
  using Part = PartOfGroup<BITS>;
  using Row = I8Row;
  static constexpr char activation[] = "i8";
  static constexpr std::size_t block = COLUMNS, source_columns = block;
  static constexpr std::size_t parts = block / Part::block;
  static constexpr auto& panels = kCodePanels;
  static constexpr bool unpacks = true;

  // Such as "affine4_64_bf16".
  struct Name {
    char text[24] = {};
    constexpr Name() {
      char* to = text;
      auto append = [&](const char* from) {
        while (*from != 0) *to++ = *from++;
      };
      const char digits[] = {static_cast<char>('0' + BITS), 0};
      append(Offset::name);
      append(digits);
      append(COLUMNS == 32 ? "_32_" : COLUMNS == 64 ? "_64_" : "_128_");
      append(SCALE::name);
    }
  };
  static constexpr Name kName = {};
  static constexpr auto& name = kName.text;

  static constexpr std::size_t kOffsets = kTileRows * sizeof(std::uint16_t);
  static constexpr std::size_t kCodes = kOffsets + kTileRows * sizeof(typename Offset::type);
  static constexpr std::size_t kSource =  // bytes of a group of the source before its codes
      sizeof(std::uint16_t) + sizeof(typename Offset::type);

  static constexpr std::size_t block_bytes(std::size_t) {
    return kCodes + parts * Part::Codes::bytes;
  }
  static constexpr std::size_t source_bytes(std::size_t columns) {
    return columns / block * (kSource + parts * Part::bytes);
  }

  static void pack_block(const std::byte* source, std::size_t stride, std::size_t rows,
                         std::size_t, std::byte* out) {
    for (std::size_t lane = 0; lane < rows; ++lane, source += stride) {
      constexpr std::size_t size = sizeof(typename Offset::type);
      __builtin_memcpy(out + lane * 2, source, 2);
      __builtin_memcpy(out + kOffsets + lane * size, source + 2, size);
      for (std::size_t p = 0; p < parts; ++p)
        Part::pack(reinterpret_cast<const std::uint8_t*>(source + kSource + p * Part::bytes), lane,
                   out + kCodes + p * Part::Codes::bytes);
    }
  }

  static void dequantize_block(const std::byte* from, std::size_t lane, std::size_t, float* out) {
    std::uint16_t stored;
    typename Offset::type offset;
    __builtin_memcpy(&stored, from + lane * sizeof stored, sizeof stored);
    __builtin_memcpy(&offset, from + kOffsets + lane * sizeof offset, sizeof offset);
    const float scale = SCALE::widen(stored);
    for (std::size_t p = 0; p < parts; ++p)
      Part::dequantize(from + kCodes + p * Part::Codes::bytes, lane, scale,
                       Offset::zero(offset), Offset::minimum(offset), out + p * Part::block);
  }

  // sums = tiles · x, for TOKENS rows of activations. The tiles advance together: the processor reads
  // several streams from memory faster than one.
  template <std::size_t TOKENS>
  static void multiply_few(const std::byte* tiles, std::size_t tile_bytes, std::size_t count,
                           std::size_t columns, BlockActivations x, float* sums,
                           std::size_t sums_stride) {
    using Codes = typename Part::Codes;
    for (std::size_t begin = 0; begin < columns; begin += block) {
      const std::byte* from = tiles;
      for (std::size_t r = 0; r < count; ++r, from += tile_bytes) {
        prefetch_after<Group>(from);
        const f32x16 scale = SCALE::load(from), offset = Offset::load(from + kOffsets);
        Part::template add<Multiplied, TOKENS, Codes::bytes, Codes::group_codes>(
            from + kCodes, parts, scale, offset, x, begin == 0, sums + r * kTileRows, sums_stride);
      }
      tiles += block_bytes(block);
      x.advance<Row>(block);
    }
  }

  // A group with its codes in bytes, and scales and offsets in floats.
  struct Unpacked {
    static constexpr std::size_t block = COLUMNS;
    static constexpr auto& panels = kCodePanels;
    using Row = I8Row;
    static constexpr std::size_t kGrid = 2 * kTileRows * sizeof(float);
    static constexpr std::size_t kPart = Part::Codes::unpacked_bytes;

    static constexpr std::size_t block_bytes(std::size_t) { return kGrid + parts * kPart; }
    static void unpack(const std::byte* from, std::byte* to) {
      store(reinterpret_cast<float*>(to), SCALE::load(from));
      store(reinterpret_cast<float*>(to) + kTileRows, Offset::load(from + kOffsets));
      for (std::size_t p = 0; p < parts; ++p)
        Part::unpack(from + kCodes + p * Part::Codes::bytes, to + kGrid + p * kPart);
    }
    template <std::size_t TOKENS>
    static void add_several(const std::byte* from, std::size_t count, BlockActivations x, bool first,
                            float* sums, std::size_t sums_stride) {
      for (; count > 0; --count, from += block_bytes(block), x.advance<Row>(block), first = false) {
        const auto* const floats = reinterpret_cast<const float*>(from);
        const f32x16 scale = load(floats), offset = load(floats + kTileRows);
        Part::template add<Multiplied, TOKENS, kPart, load_codes<8>>(
            from + kGrid, parts, scale, offset, x, first, sums, sums_stride);
      }
    }
  };
};
