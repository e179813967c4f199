// The matrix registers of AMX, eight of at most 16 rows of 64 bytes: 0 to 3 hold sums, 4 and 5
// activations, 6 and 7 weights. A product is sums (activations, weights) += activations (rows, columns)
// · weights (columns, rows).
//
// A row of a register of weights has four neighbouring columns of bytes, or two of bf16, of sixteen rows
// of weights, as our tiles do.

// Rows of activations in a register, and in two.
constexpr std::size_t kMatrixRows = 16, kMatrixPanel = 2 * kMatrixRows;
constexpr std::size_t kMatrixBytes = 64;  // of a row

#if TALU_EMULATE_AVX512
template <int REGISTER>
TALU_INLINE void clear_matrix() {
  __builtin_memset(EmulatedMatrices::of_thread().data[REGISTER], 0, kMatrixRows * kMatrixBytes);
}
template <int REGISTER>
TALU_INLINE void load_matrix(const void* from, std::size_t stride) {
  EmulatedMatrices::of_thread().load(REGISTER, from, stride);
}
template <int REGISTER>
TALU_INLINE void store_matrix(void* to, std::size_t stride) {
  EmulatedMatrices::of_thread().store(REGISTER, to, stride);
}
#define TALU_MATRIX_PRODUCT(instruction, emulation) emulation(SUMS, ACTIVATIONS, WEIGHTS)
#define TALU_SHAPE_MATRICES(shapes) EmulatedMatrices::of_thread().shape(shapes.rows, shapes.bytes)
#define TALU_FREE_MATRICES() EmulatedMatrices::of_thread() = {}
#else
// The compiler does not know these registers, and must not move what they read or write.
template <int REGISTER>
TALU_INLINE void clear_matrix() {
  asm volatile("tilezero %%tmm%c0" ::"i"(REGISTER));
}
template <int REGISTER>
TALU_INLINE void load_matrix(const void* from, std::size_t stride) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(REGISTER), "r"(from), "r"(stride) : "memory");
}
template <int REGISTER>
TALU_INLINE void store_matrix(void* to, std::size_t stride) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(REGISTER), "r"(to), "r"(stride) : "memory");
}
#define TALU_MATRIX_PRODUCT(instruction, emulation) \
  asm volatile(instruction " %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(ACTIVATIONS), "i"(WEIGHTS))
#define TALU_SHAPE_MATRICES(shapes) asm volatile("ldtilecfg %0" ::"m"(shapes))
#define TALU_FREE_MATRICES() asm volatile("tilerelease")
#endif

struct SignedProduct {  // of signed bytes
  template <int SUMS, int ACTIVATIONS, int WEIGHTS>
  TALU_INLINE void add() {
    TALU_MATRIX_PRODUCT("tdpbssd", add_emulated_bytes<std::int8_t>);
  }
};
struct CodeProduct {  // of signed bytes and unsigned ones
  template <int SUMS, int ACTIVATIONS, int WEIGHTS>
  TALU_INLINE void add() {
    TALU_MATRIX_PRODUCT("tdpbsud", add_emulated_bytes<std::uint8_t>);
  }
};
struct Bf16Product {
  template <int SUMS, int ACTIVATIONS, int WEIGHTS>
  TALU_INLINE void add() {
    TALU_MATRIX_PRODUCT("tdpbf16ps", add_emulated_bf16);
  }
};

// Shapes the registers, and frees them at its end, so that the system has nothing to save. Sums 0 and 1
// and activations 4 have `rows` rows, sums 2 and 3 and activations 5 `more_rows`; a row of activations has
// `bytes` bytes.
class MatrixRegisters {
 public:
  MatrixRegisters(std::size_t rows, std::size_t more_rows, std::size_t bytes) {
    Shapes shapes = {};
    const std::size_t activations[] = {rows, rows, more_rows, more_rows, rows, more_rows};
    for (std::size_t i = 0; i < 6; ++i) {
      shapes.rows[i] = static_cast<std::uint8_t>(activations[i] == 0 ? 1 : activations[i]);
      shapes.bytes[i] = static_cast<std::uint16_t>(i < 4 ? kMatrixBytes : bytes);
    }
    for (std::size_t i = 6; i < 8; ++i) {
      shapes.rows[i] = static_cast<std::uint8_t>(bytes / 4);
      shapes.bytes[i] = kMatrixBytes;
    }
    TALU_SHAPE_MATRICES(shapes);
  }
  ~MatrixRegisters() { TALU_FREE_MATRICES(); }
  MatrixRegisters(const MatrixRegisters&) = delete;

 private:
  struct alignas(64) Shapes {
    std::uint8_t palette = 1, start = 0, reserved[14];
    std::uint16_t bytes[16];
    std::uint8_t rows[16];
  };
};
