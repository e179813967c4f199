#include "kv_cache.h"

#include <sys/mman.h>

#include <new>
#include <stdexcept>
#include <string>

#include "dispatch.h"

namespace talu {
namespace {

constexpr std::size_t kLargest = std::size_t{1} << 46;

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

// Refuses sizes whose product exceeds the address space, before it could overflow 64 bits.
void check_size(const CacheLayer& layer, std::size_t bytes_of_column) {
  if (layer.head_size > kLargest || layer.kv_heads > kLargest) throw std::bad_alloc();
  const std::size_t columns = layer.head_size + round_up(layer.head_size, kTileRows);
  if (columns > kLargest / bytes_of_column) throw std::bad_alloc();
  if (columns > 0 && layer.kv_heads > kLargest / (columns * bytes_of_column)) throw std::bad_alloc();
}

}  // namespace

KvCache::KvCache(const std::vector<CacheLayer>& layers, const KvFormat& format, std::size_t blocks,
                 std::size_t block_size)
    : format_(format), blocks_(blocks), block_size_(block_size) {
  if (block_size == 0 || block_size % kTileRows != 0 || block_size > 1 << 20)
    throw std::invalid_argument("block_size must be a multiple of 16, not " +
                                std::to_string(block_size));
  for (const CacheLayer& layer : layers) {
    check_size(layer, block_size * format.element_bytes);
    layer_offsets_.push_back(block_bytes_);
    kv_heads_.push_back(layer.kv_heads);
    const std::size_t columns = layer.head_size + round_up(layer.head_size, kTileRows);
    block_bytes_ += round_up(layer.kv_heads * columns * block_size * format.element_bytes, 64);
    if (block_bytes_ > kLargest) throw std::bad_alloc();
  }
  if (blocks == 0 || block_bytes_ == 0) return;
  if (blocks > kLargest / block_bytes_) throw std::bad_alloc();
  data_ = mmap(nullptr, blocks * block_bytes_, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data_ == MAP_FAILED) {
    data_ = nullptr;
    throw std::bad_alloc();
  }
}

KvCache::~KvCache() {
  if (data_ != nullptr) munmap(data_, blocks_ * block_bytes_);
}

Cache KvCache::view() const {
  return {&format_,     static_cast<std::byte*>(data_), block_size_,
          block_bytes_, layer_offsets_.data(),          kv_heads_.data()};
}

const KvFormat& kv_format_named(const Kernels& kernels, std::string_view name) {
  for (const KvFormat& format : kernels.kv_formats)
    if (name == format.name) return format;
  throw std::invalid_argument("the cache format '" + std::string(name) +
                              "' is unknown; known: " + names_of(kernels.kv_formats));
}

}  // namespace talu
