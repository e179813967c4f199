#include "kv_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>
#include <stdexcept>
#include <string>

#include "dispatch.h"

namespace talu {
namespace {

constexpr std::size_t kLargest = std::size_t{1} << 46;
constexpr std::size_t kMostBytesOfNumber = 16;  // a key and a value, with their share of a scale

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

// Bytes of a layer in a block. Refuses sizes whose product exceeds the address space, before it could
// overflow 64 bits.
std::size_t layer_bytes(const KvDtype& format, const CacheLayer& layer, std::size_t block_size) {
  if (layer.head_size > kLargest / block_size / kMostBytesOfNumber) throw std::bad_alloc();
  const std::size_t head = format.head_bytes(block_size, layer.head_size);
  if (head > kLargest || layer.kv_heads > kLargest / std::max(head, std::size_t{1}))
    throw std::bad_alloc();
  return round_up(layer.kv_heads * head, 64);
}

}  // namespace

KvCache::KvCache(const std::vector<CacheLayer>& layers, const KvDtype& format, std::size_t blocks,
                 std::size_t block_size)
    : format_(format), blocks_(blocks), block_size_(block_size) {
  if (block_size == 0 || block_size % kTileRows != 0 || block_size > 1 << 20)
    throw std::invalid_argument("block_size must be a multiple of 16, not " +
                                std::to_string(block_size));
  for (const CacheLayer& layer : layers) {
    layer_offsets_.push_back(block_bytes_);
    block_bytes_ += layer_bytes(format, layer, block_size);
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
  // A step reads pieces of a few KiB that are block_bytes apart: with pages of 4 KiB, the processor
  // would look up the address of nearly each.
  madvise(data_, blocks * block_bytes_, MADV_HUGEPAGE);
}

KvCache::~KvCache() {
  if (data_ != nullptr) munmap(data_, blocks_ * block_bytes_);
}

Cache KvCache::view() const {
  return {&format_, static_cast<std::byte*>(data_), block_size_, block_bytes_,
          layer_offsets_.data()};
}

const KvDtype& kv_dtype_named(const Kernels& kernels, std::string_view name) {
  for (const KvDtype& format : kernels.kv_dtypes)
    if (name == format.name) return format;
  throw std::invalid_argument("kv_dtype '" + std::string(name) +
                              "' is unknown; known: " + names_of(kernels.kv_dtypes));
}

}  // namespace talu
