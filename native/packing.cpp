#include "packing.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "threads.h"

namespace talu {
namespace {

std::size_t tiles_of(std::size_t rows) { return (rows + kTileRows - 1) / kTileRows; }

}  // namespace

std::size_t packed_bytes(const Format& format, std::size_t rows, std::size_t columns) {
  constexpr std::size_t kLargest = std::size_t{1} << 47;
  if (rows > kLargest || columns > kLargest ||
      static_cast<double>(tiles_of(rows)) * static_cast<double>(format.tile_bytes(columns)) >
          static_cast<double>(kLargest))
    throw std::invalid_argument("a matrix of shape (" + std::to_string(rows) + ", " +
                                std::to_string(columns) + ") does not fit in memory");
  return tiles_of(rows) * format.tile_bytes(columns);
}

void pack(const Format& format, const void* source, std::size_t rows, std::size_t columns,
          void* packed, int threads) {
  if (rows == 0 || columns == 0) return;  // shapes like (2^40, 0) have no bytes
  constexpr std::size_t kTilesInItem = 16;
  auto pack_some = [&](std::size_t item, int) {
    format.pack(source, rows, columns, item * kTilesInItem,
                std::min(tiles_of(rows), (item + 1) * kTilesInItem), packed);
  };
  run_parallel(
      threads, (tiles_of(rows) + kTilesInItem - 1) / kTilesInItem,
      [](void* context, std::size_t item, int worker) {
        (*static_cast<decltype(pack_some)*>(context))(item, worker);
      },
      &pack_some);
}

void unpack(const Format& format, const void* packed, std::size_t rows, std::size_t columns,
            float* out) {
  if (rows == 0 || columns == 0) return;
  for (std::size_t row = 0; row < rows; ++row)
    format.dequantize_row(packed, row, columns, out + row * columns);
}

}  // namespace talu
