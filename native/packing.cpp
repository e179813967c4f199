#include "packing.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "threads.h"

namespace talu {
namespace {

std::size_t tiles_of(std::size_t rows) { return (rows + kTileRows - 1) / kTileRows; }

// Chooses the codes of all tiles, some at a time.
void choose_with(decltype(Format::choose) function, const float* source, std::size_t rows,
                 std::size_t columns, const float* factor, void* out, int threads) {
  if (rows == 0 || columns == 0) return;
  std::vector<std::vector<float>> work(static_cast<std::size_t>(threads));
  for (std::vector<float>& floats : work)
    floats.resize(columns * kWorkOfChoosing + kMoreWorkOfChoosing);
  auto choose_some = [&](std::size_t item, int worker) {
    function(source, rows, columns, factor, item * kTilesChosen,
             std::min(tiles_of(rows), (item + 1) * kTilesChosen), out,
             work[static_cast<std::size_t>(worker)].data());
  };
  run_parallel(
      threads, (tiles_of(rows) + kTilesChosen - 1) / kTilesChosen,
      [](void* context, std::size_t item, int worker) {
        (*static_cast<decltype(choose_some)*>(context))(item, worker);
      },
      &choose_some);
}

void check_columns(const Format& format, std::size_t columns, const char* how) {
  if (columns % format.multiple != 0)
    throw std::invalid_argument("a matrix with " + std::to_string(columns) + " columns cannot be " +
                                how + " as " + format.name + ", which needs a multiple of " +
                                std::to_string(format.multiple));
}

}  // namespace

std::size_t packed_bytes(const Format& format, std::size_t rows, std::size_t columns) {
  constexpr std::size_t kLargest = std::size_t{1} << 47;
  check_columns(format, columns, "stored");
  if (rows > kLargest || columns > kLargest ||
      static_cast<double>(tiles_of(rows)) * static_cast<double>(format.tile_bytes(columns)) >
          static_cast<double>(kLargest))
    throw std::invalid_argument("a matrix of shape (" + std::to_string(rows) + ", " +
                                std::to_string(columns) + ") does not fit in memory");
  return tiles_of(rows) * format.tile_bytes(columns);
}

std::size_t encoded_bytes(const Format& format, std::size_t rows, std::size_t columns) {
  if (format.encode == nullptr)
    throw std::invalid_argument(std::string("matrices cannot be encoded as ") + format.name);
  check_columns(format, columns, "encoded");
  return rows * (columns / format.source_columns) * format.source_bytes;
}

void choose(const Format& format, const float* source, std::size_t rows, std::size_t columns,
            const float* factor, void* packed, int threads) {
  if (format.choose == nullptr)
    throw std::invalid_argument(std::string("the codes of ") + format.name +
                                " are not chosen; it is packed");
  choose_with(format.choose, source, rows, columns, factor, packed, threads);
}

void encode(const Format& format, const float* source, std::size_t rows, std::size_t columns,
            const float* factor, void* encoded, int threads) {
  const std::size_t bytes = encoded_bytes(format, rows, columns);
  if (bytes == 0) return;
  std::memset(encoded, 0, bytes);
  choose_with(format.encode, source, rows, columns, factor, encoded, threads);
}

bool factorize(const Kernels& kernels, float* matrix, std::size_t columns, int threads) {
  if (columns % 64 != 0)
    throw std::invalid_argument("a matrix of " + std::to_string(columns) +
                                " columns has no whole number of blocks of 64");
  std::vector<float> work(columns * 64);
  return kernels.factorize(matrix, columns, work.data(), threads);
}

void pack(const Format& format, const void* source, std::size_t rows, std::size_t columns,
          void* packed, int threads) {
  if (format.pack == nullptr)
    throw std::invalid_argument(std::string("the codes of ") + format.name +
                                " are chosen; it is not packed");
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
