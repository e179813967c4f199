// Turns the bytes of the fuzzer into sizes, numbers and buffers, and compares results.
#pragma once
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <new>
#include <vector>

#include "kernels.h"

// Ends the run, which keeps the input.
#define CHECK(condition)                                                         \
  do {                                                                           \
    if (!(condition)) {                                                          \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                              \
    }                                                                            \
  } while (false)

namespace talu {

// Numbers in memory of exactly their size, so that the sanitizer sees every access beyond it. It
// begins at a multiple of 64, as the core expects of packed weights.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::size_t count)
      : count_(count), data_(static_cast<T*>(::operator new(count * sizeof(T), kAlignment))) {
    std::memset(static_cast<void*>(data_), 0xa5, count * sizeof(T));
  }
  Buffer(Buffer&& other) noexcept : count_(other.count_), data_(other.data_) {
    other.data_ = nullptr;
  }
  Buffer& operator=(Buffer&&) = delete;
  ~Buffer() { ::operator delete(data_, kAlignment); }

  T* data() const { return data_; }
  T* begin() const { return data_; }
  T* end() const { return data_ + count_; }
  std::size_t size() const { return count_; }
  T& operator[](std::size_t i) const { return data_[i]; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  std::size_t count_;
  T* data_;
};

// What the fuzzer gives, and random numbers after that, so that also a short input has everything.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size)
      : data_(data), end_(data + size) {
    state_ = draw<std::uint32_t>();
    calm_ = flip();
  }

  // From the least to the most, both included.
  template <class T>
  T number(T least, T most) {
    const auto range = static_cast<std::uint64_t>(most) - static_cast<std::uint64_t>(least);
    const std::uint64_t drawn = range < 256       ? draw<std::uint8_t>()
                                : range < 1 << 16 ? draw<std::uint16_t>()
                                                  : draw<std::uint64_t>();
    const std::uint64_t place = range == UINT64_MAX ? drawn : drawn % (range + 1);
    return static_cast<T>(static_cast<std::uint64_t>(least) + place);
  }
  bool flip() { return number(0, 1) == 1; }
  // In half of the inputs: never.
  bool rarely() { return !calm_ && number(0, 31) == 31; }
  template <class T>
  T one_of(std::initializer_list<T> list) {
    return *(list.begin() + number<std::size_t>(0, list.size() - 1));
  }

  // Any bit pattern, or one of those that break arithmetic.
  double hostile() {
    using Limits = std::numeric_limits<double>;
    const double special = one_of({0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e-38, 3e38, -3e38, 1e300,
                                   65504.0, 65520.0, 2147483648.0, Limits::infinity(),
                                   -Limits::infinity(), Limits::quiet_NaN(), Limits::denorm_min()});
    if (flip()) return special;
    return flip() ? std::bit_cast<double>(draw<std::uint64_t>())
                  : std::bit_cast<float>(draw<std::uint32_t>());
  }

  // Ordinary numbers, and then a few hostile ones. True if there are none of those.
  bool fill(Buffer<float>& floats) {
    std::uint32_t state = draw<std::uint32_t>();
    for (float& x : floats) x = static_cast<float>(static_cast<std::int32_t>(random(state))) * 0x1p-31f;
    const int count = flip() || floats.size() == 0 ? 0 : number(0, 8);
    for (int i = 0; i < count; ++i)
      floats[number<std::size_t>(0, floats.size() - 1)] = static_cast<float>(hostile());
    return count == 0;
  }
  // Random bytes, or all the same.
  void fill(Buffer<std::byte>& all) {
    std::uint32_t state = draw<std::uint32_t>();
    const bool random_bytes = flip();
    for (std::byte& x : all) x = static_cast<std::byte>(random_bytes ? random(state) : state);
    if (all.size() == 0) return;
    for (int i = number(0, 8); i > 0; --i)
      all[number<std::size_t>(0, all.size() - 1)] = static_cast<std::byte>(number(0, 255));
  }

 private:
  static std::uint32_t random(std::uint32_t& state) {
    state = state * 1664525u + 1013904223u;
    return (state ^ state >> 15) * 0x2c1b3c6du;
  }
  template <class T>
  T draw() {
    T drawn = 0;
    for (std::size_t i = 0; i < sizeof drawn; ++i) {
      const std::uint8_t byte = data_ == end_ ? random(state_) >> 24 : *data_++;
      drawn = static_cast<T>(drawn | static_cast<T>(byte) << 8 * i);
    }
    return drawn;
  }

  const std::uint8_t *data_, *end_;
  std::uint32_t state_ = 0;
  bool calm_ = false;
};

// The same bits, except that all that are not numbers are alike.
inline bool same(float a, float b) {
  return (a != a && b != b) || std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}
template <class Floats>
bool same(const Floats& a, const Floats& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!same(a[i], b[i])) return false;
  return true;
}

// The targets that are compared: all but those that need AVX-512.
inline const std::vector<const Kernels*>& targets() {
  static const std::vector<const Kernels*> all = [] {
    std::vector<const Kernels*> found = {&generic_kernels};
#if defined(__x86_64__)
    if (avx2_kernels.supported()) found.push_back(&avx2_kernels);
#endif
    return found;
  }();
  return all;
}

}  // namespace talu
