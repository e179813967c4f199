// Emulates the matrix registers of AMX. Only for `make emulate`, which tests the target on processors
// without them.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace talu {

struct EmulatedMatrices {
  std::size_t rows[8] = {}, bytes[8] = {};
  unsigned char data[8][16][64] = {};

  template <class Number>
  Number at(int matrix, std::size_t row, std::size_t number) const {
    Number x;
    std::memcpy(&x, data[matrix][row] + number * sizeof x, sizeof x);
    return x;
  }
  template <class Number>
  void set(int matrix, std::size_t row, std::size_t number, Number x) {
    std::memcpy(data[matrix][row] + number * sizeof x, &x, sizeof x);
  }

  [[gnu::noinline]] void shape(const std::uint8_t* all_rows, const std::uint16_t* all_bytes) {
    *this = {};
    for (int matrix = 0; matrix < 8; ++matrix) {
      rows[matrix] = all_rows[matrix];
      bytes[matrix] = all_bytes[matrix];
    }
  }
  [[gnu::noinline]] void load(int matrix, const void* from, std::size_t stride) {
    std::memset(data[matrix], 0, sizeof data[matrix]);
    for (std::size_t row = 0; row < rows[matrix]; ++row)
      std::memcpy(data[matrix][row], static_cast<const unsigned char*>(from) + row * stride,
                  bytes[matrix]);
  }
  [[gnu::noinline]] void store(int matrix, void* to, std::size_t stride) const {
    for (std::size_t row = 0; row < rows[matrix]; ++row)
      std::memcpy(static_cast<unsigned char*>(to) + row * stride, data[matrix][row], bytes[matrix]);
  }

  [[gnu::noinline]] static EmulatedMatrices& of_thread() {
    static thread_local EmulatedMatrices matrices;
    return matrices;
  }
};

// sums[m][n] += sum of products(a[m][k], b[k][n]) over k, groups of four bytes of each.
template <class Weight>
[[gnu::noinline]] inline void add_emulated_bytes(int sums, int a, int b) {
  auto& all = EmulatedMatrices::of_thread();
  for (std::size_t m = 0; m < all.rows[sums]; ++m)
    for (std::size_t n = 0; n < all.bytes[sums] / 4; ++n) {
      std::int32_t sum = all.at<std::int32_t>(sums, m, n);
      for (std::size_t k = 0; k < all.bytes[a]; ++k)
        sum += all.at<std::int8_t>(a, m, k) * all.at<Weight>(b, k / 4, n * 4 + k % 4);
      all.set(sums, m, n, sum);
    }
}

inline float without_subnormal(float x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x;
}
// The products of even and of odd columns are summed in two chains of fused multiply-adds. Subnormal
// numbers are zero (Intel's manual, TDPBF16PS).
[[gnu::noinline]] inline void add_emulated_bf16(int sums, int a, int b) {
  auto& all = EmulatedMatrices::of_thread();
  auto widen = [](std::uint16_t bits) {
    const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
    float x;
    std::memcpy(&x, &wide, sizeof x);
    return without_subnormal(x);
  };
  for (std::size_t m = 0; m < all.rows[sums]; ++m)
    for (std::size_t n = 0; n < all.bytes[sums] / 4; ++n) {
      float chains[2] = {};
      for (std::size_t k = 0; k < all.bytes[a] / 2; ++k) {
        float& chain = chains[k % 2];
        chain = without_subnormal(std::fma(widen(all.at<std::uint16_t>(a, m, k)),
                                           widen(all.at<std::uint16_t>(b, k / 2, n * 2 + k % 2)),
                                           chain));
      }
      const float sum = without_subnormal(all.at<float>(sums, m, n));
      all.set(sums, m, n, without_subnormal(sum + without_subnormal(chains[0] + chains[1])));
    }
}

}  // namespace talu
