// A buffer that is aligned to cache lines and only grows.
#pragma once
#include <cstddef>
#include <memory>
#include <new>

namespace talu {

class Memory {
 public:
  // At least `bytes`; the content is undefined if the buffer had to grow.
  std::byte* of(std::size_t bytes) {
    if (bytes > size_) {
      data_.reset();
      size_ = 0;
      data_.reset(static_cast<std::byte*>(::operator new(bytes, kAlignment)));
      size_ = bytes;
    }
    return data_.get();
  }
  float* floats(std::size_t count) { return reinterpret_cast<float*>(of(count * sizeof(float))); }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(std::byte* p) const { ::operator delete(p, kAlignment); }
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t size_ = 0;
};

}  // namespace talu
