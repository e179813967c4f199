// Arithmetic of sizes.
//
// A fragment, which kernels.inc includes for each target and operations.cpp for the preparation.

[[maybe_unused]] static constexpr std::size_t smaller(std::size_t a, std::size_t b) {
  return a < b ? a : b;
}
[[maybe_unused]] static constexpr std::size_t round_up(std::size_t n, std::size_t to) {
  return (n + to - 1) / to * to;
}
