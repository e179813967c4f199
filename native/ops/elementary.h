// Elementary functions of numbers and vectors, and parallel loops.
//
// A fragment of kernels.inc, which includes it for each target, in an order that matters.

// e^x to 2 units in the last place, 0 below -87. Cody and Waite's reduction to |r| <= ln(2)/2.
TALU_INLINE f32x16 exponential(f32x16 x) {
  const f32x16 clamped = at_most(88.0f, at_least(-87.0f, x));
  const f32x16 n = nearest_integer(multiply(clamped, splat(1.44269504f)));
  f32x16 r = fma(n, splat(-0.693359375f), clamped);
  r = fma(n, splat(2.12194440e-4f), r);
  f32x16 p = splat(1.0f / 5040);
  p = fma(p, r, splat(1.0f / 720));
  p = fma(p, r, splat(1.0f / 120));
  p = fma(p, r, splat(1.0f / 24));
  p = fma(p, r, splat(1.0f / 6));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r, splat(1.0f));
  p = fma(p, r, splat(1.0f));
  return zero_below(x, -87.0f, multiply(p, power_of_two(n)));
}

// x / (1 + e^-z)
TALU_INLINE f32x16 times_sigmoid(f32x16 x, f32x16 z) {
  const f32x16 one = splat(1.0f);
  return divide(x, add(one, exponential(subtract(splat(0.0f), z))));
}

// x/2 (1 + erf(x / sqrt 2)) to 2.5e-7 x. The error function is odd: x times a ratio of polynomials of
// x², fitted to it on |x| <= 5.5, beyond which it is 1 in single precision.
TALU_INLINE f32x16 gelu(f32x16 x) {
  const f32x16 near = at_most(5.5f, at_least(-5.5f, x)), square = multiply(near, near);
  f32x16 p = splat(2.221441963e-8f), q = splat(1.19328737e-6f);
  p = fma(p, square, splat(6.503892334e-6f));
  q = fma(q, square, splat(7.805953261e-5f));
  p = fma(p, square, splat(1.814540123e-4f));
  q = fma(q, square, splat(1.954907405e-3f));
  p = fma(p, square, splat(4.753476225e-3f));
  q = fma(q, square, splat(2.932744755e-2f));
  p = fma(p, square, splat(3.502183179e-2f));
  q = fma(q, square, splat(2.544508635e-1f));
  p = fma(p, square, splat(3.989420638e-1f));
  q = fma(q, square, splat(1.0f));
  const f32x16 half = at_most(0.5f, at_least(-0.5f, divide(multiply(near, p), q)));
  return multiply(at_least(-3e38f, x), add(half, splat(0.5f)));  // 0, not infinity times 0
}

// tanh(x) to 3e-7 tanh(x): an odd ratio like gelu's, fitted on |x| <= 9.01, beyond which it is 1 in
// single precision.
TALU_INLINE f32x16 hyperbolic_tangent(f32x16 x) {
  const f32x16 near = at_most(9.01f, at_least(-9.01f, x)), square = multiply(near, near);
  f32x16 p = splat(1.339173415e-8f), q = splat(7.79172677e-7f);
  p = fma(p, square, splat(2.063583941e-5f));
  q = fma(q, square, splat(3.288296308e-4f));
  p = fma(p, square, splat(3.497217249e-3f));
  q = fma(q, square, splat(2.588318544e-2f));
  p = fma(p, square, splat(1.338239926e-1f));
  q = fma(q, square, splat(4.671571542e-1f));
  p = fma(p, square, splat(1.0f));
  q = fma(q, square, splat(1.0f));
  return at_most(1.0f, at_least(-1.0f, divide(multiply(near, p), q)));
}

// tanh(x / cap) · cap
TALU_INLINE f32x16 soft_capped(f32x16 x, float cap) {
  return multiply(hyperbolic_tangent(divide(x, splat(cap))), splat(cap));
}

TALU_INLINE f32x16 activate(Activation kind, f32x16 x) {
  if (kind == Activation::silu) return times_sigmoid(x, x);
  if (kind == Activation::gelu) return gelu(x);
  if (kind == Activation::quick_gelu) return times_sigmoid(x, multiply(x, splat(1.702f)));
  if (kind == Activation::relu) return at_least(0.0f, x);
  // x/2 (1 + tanh u) is x times the sigmoid of 2u; u = sqrt(2/pi) (x + 0.044715 x^3).
  const f32x16 cubic = fma(multiply(multiply(x, x), splat(0.044715f)), x, x);
  return times_sigmoid(x, multiply(cubic, splat(1.5957691216f)));
}

// Runs body(item, worker) for every item, on several threads when `work`, in multiplications or the
// like, is large enough.
template <class Body>
static void for_each(const Step& step, std::size_t count, std::size_t work, Body& body) {
  constexpr std::size_t kWorthWaking = 1 << 15;
  run_parallel(
      work < kWorthWaking ? 1 : step.threads, count,
      [](void* context, std::size_t item, int worker) {
        (*static_cast<Body*>(context))(item, worker);
      },
      &body);
}

// body(row) for all rows, in items of a few rows.
template <class Body>
static void for_rows(const Step& step, std::size_t rows, std::size_t width, Body body) {
  constexpr std::size_t kRows = 8;
  auto some_rows = [&](std::size_t item, int) {
    const std::size_t last = smaller(rows, (item + 1) * kRows);
    for (std::size_t row = item * kRows; row < last; ++row) body(row);
  };
  for_each(step, (rows + kRows - 1) / kRows, rows * width, some_rows);
}

// body(column, n) for the columns 0 .. width - 1 of a row, 16 at a time; n < 16 at the end only.
template <class Body>
TALU_INLINE void for_columns(std::size_t width, Body body) {
  std::size_t column = 0;
  for (; column + 16 <= width; column += 16) body(column, std::size_t{16});
  if (column < width) body(column, width - column);
}
TALU_INLINE f32x16 load_some(const float* p, std::size_t n) {
  return n == 16 ? load(p) : load_first(p, n);
}
TALU_INLINE void store_some(float* p, f32x16 x, std::size_t n) {
  n == 16 ? store(p, x) : store_first(p, x, n);
}

// Runs a kind of operation.
template <class T>
static void run_operation(const Node& node, const Step& step) {
  node.as<T>().run(node, step);
}
