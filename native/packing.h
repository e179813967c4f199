// Packs matrices into tiles and unpacks them.
#pragma once
#include "kernels.h"

namespace talu {

// Must change whenever the layout of packed matrices does.
constexpr int kPackingVersion = 2;

// Throws std::invalid_argument if the size overflows, or if the columns have no whole number of
// blocks.
std::size_t packed_bytes(const Format& format, std::size_t rows, std::size_t columns);

// Throws std::invalid_argument for a format whose codes are chosen.
void pack(const Format& format, const void* source, std::size_t rows, std::size_t columns,
          void* packed, int threads);

// The same for such a format, and for no other: with a factor of its columns, or null.
void choose(const Format& format, const float* source, std::size_t rows, std::size_t columns,
            const float* factor, void* packed, int threads);

// Encodes the rows of a matrix in the blocks of a file, one row after the other. Both throw
// std::invalid_argument for a format without an encoder, and for columns without whole blocks.
std::size_t encoded_bytes(const Format& format, std::size_t rows, std::size_t columns);

void encode(const Format& format, const float* source, std::size_t rows, std::size_t columns,
            const float* factor, void* encoded, int threads);

// Replaces sums of the operation "gram" by their factor. False if there is none. Throws
// std::invalid_argument for columns that are not a multiple of 64.
bool factorize(const Kernels& kernels, float* matrix, std::size_t columns, int threads);

void unpack(const Format& format, const void* packed, std::size_t rows, std::size_t columns,
            float* out);

}  // namespace talu
