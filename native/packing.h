// Packs matrices into tiles and unpacks them.
#pragma once
#include "kernels.h"

namespace talu {

// Must change whenever the layout of packed matrices does.
constexpr int kPackingVersion = 2;

// Throws std::invalid_argument if the size overflows.
std::size_t packed_bytes(const Format& format, std::size_t rows, std::size_t columns);

void pack(const Format& format, const void* source, std::size_t rows, std::size_t columns,
          void* packed, int threads);

void unpack(const Format& format, const void* packed, std::size_t rows, std::size_t columns,
            float* out);

}  // namespace talu
