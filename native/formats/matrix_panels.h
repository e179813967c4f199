// Rows of activations in matrix registers.
//
// A fragment of kernels.inc for targets with matrix registers.

// Rows of activations that are multiplied together: 32 in two registers, or at most 16 in one. What is
// left after whole panels is the end of a panel that has rows of the one before, too.
struct MatrixPanel {
  std::size_t first, done, last;  // done: the first row that no other panel has
  bool second;

  // Where the sums of this panel begin, if each panel has rows of its own.
  std::size_t sums_at() const { return done > first ? kTokensInCache : first; }
};
constexpr std::size_t kRowsOfSums = kTokensInCache + kMatrixPanel;

template <class Function>
TALU_INLINE void for_panels(std::size_t tokens, Function function) {
  if (tokens < kMatrixPanel) return function(MatrixPanel{0, 0, tokens, tokens > kMatrixRows});
  const std::size_t left = tokens % kMatrixPanel, whole = tokens - left;
  for (std::size_t t = 0; t < whole; t += kMatrixPanel)
    function(MatrixPanel{t, t, t + kMatrixPanel, true});
  const bool second = left > kMatrixRows;
  if (left > 0)
    function(MatrixPanel{tokens - (second ? kMatrixPanel : kMatrixRows), whole, tokens, second});
}

// The registers for all panels of `tokens` rows.
constexpr std::size_t first_rows(std::size_t tokens) { return smaller(tokens, kMatrixRows); }
constexpr std::size_t second_rows(std::size_t tokens) {
  return tokens <= kMatrixRows ? 0 : smaller(tokens - kMatrixRows, kMatrixRows);
}

// a where the mask has ones, otherwise b.
TALU_INLINE __m512i choose(__m512i mask, __m512i a, __m512i b) {
  return _mm512_ternarylogic_epi32(mask, a, b, 0xca);
}

TALU_INLINE void clear_sums() {
  clear_matrix<0>();
  clear_matrix<1>();
  clear_matrix<2>();
  clear_matrix<3>();
}

// sums 0, 1 and, if SECOND, 2, 3 += activations · two registers of weights each, for `steps` registers of
// columns, which follow after each other.
template <class Product, bool SECOND>
TALU_INLINE void add_matrices(const std::byte* x, std::size_t stride, const std::byte* first,
                              const std::byte* second, std::size_t steps) {
  for (std::size_t i = 0; i < steps; ++i) {
    load_matrix<4>(x + i * kMatrixBytes, stride);
    load_matrix<6>(first + i * kMatrixRows * kMatrixBytes, kMatrixBytes);
    Product::template add<0, 4, 6>();
    load_matrix<7>(second + i * kMatrixRows * kMatrixBytes, kMatrixBytes);
    Product::template add<1, 4, 7>();
    if constexpr (SECOND) {
      load_matrix<5>(x + kMatrixRows * stride + i * kMatrixBytes, stride);
      Product::template add<2, 5, 6>();
      Product::template add<3, 5, 7>();
    }
  }
}

// The same, with sums that begin with zeros, or are those at `sums`, (rows, row_bytes): of the first
// weights, and `second_sums` bytes further of the second.
template <class Product>
static void add_to_sums(const MatrixPanel& panel, bool begins, const std::byte* x, std::size_t stride,
                        const std::byte* first, const std::byte* second, std::size_t steps, void* sums,
                        std::size_t row_bytes, std::size_t second_sums) {
  auto* const to = static_cast<std::byte*>(sums);
  std::byte* const below = to + kMatrixRows * row_bytes;
  if (begins) {
    clear_sums();
  } else {
    load_matrix<0>(to, row_bytes);
    load_matrix<1>(to + second_sums, row_bytes);
    if (panel.second) load_matrix<2>(below, row_bytes);
    if (panel.second) load_matrix<3>(below + second_sums, row_bytes);
  }
  if (panel.second)
    add_matrices<Product, true>(x, stride, first, second, steps);
  else
    add_matrices<Product, false>(x, stride, first, second, steps);
  store_matrix<0>(to, row_bytes);
  store_matrix<1>(to + second_sums, row_bytes);
  if (panel.second) store_matrix<2>(below, row_bytes);
  if (panel.second) store_matrix<3>(below + second_sums, row_bytes);
}
