// Memory of the paged KV cache and the layout of its blocks, layers and heads.
#pragma once
#include <cstddef>
#include <string_view>
#include <vector>

#include "kernels.h"

namespace talu {

struct CacheLayer {
  std::size_t kv_heads, head_size;
};

class KvCache {
 public:
  // Reserves address space; a page is allocated when it is first written.
  // Throws std::invalid_argument for invalid sizes, std::bad_alloc if they are too large.
  KvCache(const std::vector<CacheLayer>& layers, const KvDtype& format, std::size_t blocks,
          std::size_t block_size);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  Cache view() const;
  std::size_t blocks() const { return blocks_; }
  std::size_t block_size() const { return block_size_; }
  std::size_t block_bytes() const { return block_bytes_; }

 private:
  const KvDtype& format_;
  std::size_t blocks_, block_size_, block_bytes_ = 0;
  std::vector<std::size_t> layer_offsets_;
  void* data_ = nullptr;
};

const KvDtype& kv_dtype_named(const Kernels& kernels, std::string_view name);

}  // namespace talu
