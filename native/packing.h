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

// The same for a format whose codes are chosen: with a factor of its columns, or null.
void choose(const Format& format, const float* source, std::size_t rows, std::size_t columns,
            const float* factor, void* packed, int threads);

// Encodes the rows of a matrix in the blocks of a file, one row after the other.
void encode(const Format& format, const float* source, std::size_t rows, std::size_t columns,
            const float* factor, void* encoded, int threads);

// Replaces sums of the operation "gram" by their factor. False if there is none.
bool factorize(const Kernels& kernels, float* matrix, std::size_t columns, int threads);

void unpack(const Format& format, const void* packed, std::size_t rows, std::size_t columns,
            float* out);

}  // namespace talu
