// Products of activations with themselves, xᵀx, and their triangular factor: what formats/choose.h
// and formats/encode.h need to know about the activations of a linear layer. Sums have one order on
// all targets and for any number of threads.
//
// A fragment of operations.inc.

#if !TALU_PREPARES

// Rows are stored in panels of sixteen columns: [column / 16][row][16].
constexpr std::size_t kPanelRows = 128;

template <class Body>
static void in_parallel(int threads, std::size_t count, Body body) {
  run_parallel(
      threads, count,
      [](void* context, std::size_t item, int) { (*static_cast<Body*>(context))(item); }, &body);
}

// matrix ± panelsᵀ · panels, in the rows and columns from `first` on; its lower triangle and the
// rest of the blocks of sixteen on the diagonal.
template <bool ADDS>
static void update(float* matrix, std::size_t columns, std::size_t first, const float* panels,
                   std::size_t depth, int threads) {
  constexpr std::size_t kRows = kSumsAtOnce >= 8 ? 8 : 4;
  in_parallel(threads, (columns - first) / kTileRows, [&](std::size_t item) {
    const std::size_t i = columns / kTileRows - 1 - item;  // the longest first
    const float* const rows = panels + i * depth * kTileRows;
    for (std::size_t j = first / kTileRows; j <= i; ++j)
      for (std::size_t r = 0; r < kTileRows; r += kRows) {
        const float* const vectors = panels + j * depth * kTileRows;
        f32x16 sums[kRows];
#pragma GCC unroll 8
        for (f32x16& sum : sums) sum = splat(0.0f);
        for (std::size_t t = 0; t < depth; ++t) {
          const f32x16 v = load(vectors + t * kTileRows);
#pragma GCC unroll 8
          for (std::size_t q = 0; q < kRows; ++q)
            sums[q] = fma(v, splat(rows[t * kTileRows + r + q]), sums[q]);
        }
#pragma GCC unroll 8
        for (std::size_t q = 0; q < kRows; ++q) {
          float* const to = matrix + (i * kTileRows + r + q) * columns + j * kTileRows;
          store(to, ADDS ? add(load(to), sums[q]) : subtract(load(to), sums[q]));
        }
      }
  });
}

// gram += xᵀx of rows, rotated or not, the lower triangle. `panels` has room for kPanelRows rows.
static void add_gram(const float* x, std::size_t stride, std::size_t rows, std::size_t columns,
                     bool rotated, float* gram, float* panels, int threads) {
  for (std::size_t begin = 0; begin < rows; begin += kPanelRows) {
    const std::size_t depth = smaller(kPanelRows, rows - begin);
    in_parallel(threads, columns / kRotated, [&](std::size_t item) {
      for (std::size_t t = 0; t < depth; ++t) {
        const float* block = x + (begin + t) * stride + item * kRotated;
        alignas(64) float turned[kRotated];
        if (rotated) {
          rotate_block(block, turned);
          block = turned;
        }
        for (std::size_t i = 0; i < kRotated / kTileRows; ++i)
          store(panels + ((item * kRotated / kTileRows + i) * depth + t) * kTileRows,
                load(block + i * kTileRows));
      }
    });
    update<true>(gram, columns, 0, panels, depth, threads);
  }
}

// The Cholesky factor of 64 rows and columns of a matrix, in place; false if there is none. Without
// rounding, no pivot would be below `least`.
static bool factor_block(float* matrix, std::size_t stride, double least) {
  for (std::size_t k = 0; k < kRotated; ++k) {
    float* const pivot = matrix + k * stride;
    for (std::size_t i = k; i < kRotated; ++i) {
      float* const row = matrix + i * stride;
      double sum = static_cast<double>(row[k]);
      for (std::size_t m = 0; m < k; ++m)
        sum -= static_cast<double>(row[m]) * static_cast<double>(pivot[m]);
      if (i == k) {
        if (!(sum > -1e38 && sum < 1e38)) return false;
        if (sum < least) sum = least;
        if (sum <= 0.0) return false;
      }
      row[k] = static_cast<float>(i == k ? __builtin_sqrt(sum)
                                         : sum / static_cast<double>(pivot[k]));
    }
  }
  return true;
}

// Replaces xᵀx by its factor F below the diagonal and D on it, with a hundredth of the mean of the
// diagonal added to it before. That is also the smallest eigenvalue that the sum can have, so it is
// the least pivot. False if the matrix is not finite or zero. `work` has room for 64 rows.
static bool factorize(float* matrix, std::size_t columns, float* work, int threads) {
  double trace = 0.0;
  for (std::size_t k = 0; k < columns; ++k) trace += static_cast<double>(matrix[k * columns + k]);
  const auto damping = static_cast<float>(trace / static_cast<double>(columns) * 0.01);
  for (std::size_t k = 0; k < columns; ++k) matrix[k * columns + k] += damping;
  for (std::size_t begin = 0; begin < columns; begin += kRotated) {
    float* const pivots = matrix + begin * columns + begin;
    if (!factor_block(pivots, columns, static_cast<double>(damping))) return false;
    const std::size_t end = begin + kRotated;
    // The rows below, sixteen at a time as lanes.
    in_parallel(threads, (columns - end) / kTileRows, [&](std::size_t item) {
      const std::size_t first = end + item * kTileRows;
      float* const panel = work + first * kRotated;
      for (std::size_t lane = 0; lane < kTileRows; ++lane)
        for (std::size_t k = 0; k < kRotated; ++k)
          panel[k * kTileRows + lane] = matrix[(first + lane) * columns + begin + k];
      for (std::size_t k = 0; k < kRotated; ++k) {
        f32x16 sum = load(panel + k * kTileRows);
        for (std::size_t m = 0; m < k; ++m)
          sum = fma(load(panel + m * kTileRows), splat(-pivots[k * columns + m]), sum);
        store(panel + k * kTileRows, divide(sum, splat(pivots[k * columns + k])));
      }
      for (std::size_t lane = 0; lane < kTileRows; ++lane)
        for (std::size_t k = 0; k < kRotated; ++k)
          matrix[(first + lane) * columns + begin + k] = panel[k * kTileRows + lane];
    });
    update<false>(matrix, columns, end, work, kRotated, threads);
  }
  for (std::size_t k = 0; k < columns; ++k) work[k] = matrix[k * columns + k];
  in_parallel(threads, columns / kTileRows, [&](std::size_t item) {
    for (std::size_t j = item * kTileRows; j < (item + 1) * kTileRows; ++j) {
      float* const row = matrix + j * columns;
      for (std::size_t k = 0; k < j; ++k) row[k] = row[k] / work[k];
      row[j] = work[j] * work[j];
    }
  });
  return true;
}
#endif

// Adds xᵀx of rows, rotated for formats of rotated weights, to a square of numbers, which is its
// weight: it exists to be read after the step. Its result is x.
struct Gram {
  static constexpr char kind[] = "gram";
  std::size_t columns;
  bool rotated;

#if TALU_PREPARES
  static Gram prepare(Preparation& op) {
    op.reads(1, 1);
    op.same_width(0);
    op.require(op.width() % 64 == 0, "its width is not a multiple of 64");
    op.vector(0, op.width() * op.width());
    const std::size_t rotated = op.integer("rotated");
    op.require(rotated <= 1, "rotated is neither 0 nor 1");
    return {op.width(), rotated == 1};
  }
  std::size_t scratch(const StepSize&) const { return 128 * columns * sizeof(float); }
#else
  void run(const Node& node, const Step& step) const {
    const Value& x = step.values[node.inputs[0]];
    const Value& out = step.values[node.output];
    // The only weight that an operation changes; its owner reads it after the step.
    auto* const gram = const_cast<float*>(node.weights[0].floats());
    add_gram(x.data, x.stride, x.rows, columns, rotated, gram, reinterpret_cast<float*>(step.scratch),
             step.threads);
    for (std::size_t row = 0; row < x.rows; ++row)
      __builtin_memcpy(out.row(row), x.row(row), columns * sizeof(float));
  }
#endif
};
