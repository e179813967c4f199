// Factors sums of activations, and chooses codes with the factors, from hostile numbers.
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "input.h"
#include "packing.h"

using namespace talu;

namespace {

// Sums as the operation gram makes them, or any numbers. True if they are sums.
bool fill_sums(Buffer<float>& matrix, std::size_t columns, Input& input) {
  input.fill(matrix);
  if (input.rarely()) return false;
  Buffer<float> x(input.number<std::size_t>(1, 80) * columns);
  input.fill(x);
  const float factor = input.one_of({1.0f, 1e-12f, 1e18f, 0.0f});
  for (std::size_t i = 0; i < columns; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      float sum = 0;
      for (std::size_t row = 0; row < x.size(); row += columns)
        sum += x[row + i] * factor * x[row + j] * factor;
      matrix[i * columns + j] = sum;
    }
  return true;
}

// Packs a matrix, or encodes and packs it.
Buffer<std::byte> chosen(const Format& format, const Buffer<float>& source, std::size_t rows,
                         std::size_t columns, const float* factor) {
  Buffer<std::byte> out(packed_bytes(format, rows, columns));
  if (format.choose != nullptr) {
    choose(format, source.data(), rows, columns, factor, out.data(), 1);
    return out;
  }
  Buffer<std::byte> blocks(encoded_bytes(format, rows, columns));
  encode(format, source.data(), rows, columns, factor, blocks.data(), 1);
  pack(format, blocks.data(), rows, columns, out.data(), 1);
  return out;
}

// Without a factor if the sums have none; or with these numbers nevertheless.
const float* factor_of(const Buffer<float>& matrix, bool found, Input& input) {
  return found || input.rarely() ? matrix.data() : nullptr;
}

void run(Input& input) {
  const Kernels &kernels = *targets().front(), &other = *targets().back();
  const std::size_t columns = input.rarely() ? input.number<std::size_t>(0, 130)
                                             : input.one_of<std::size_t>({0, 64, 128, 256});
  Buffer<float> matrix(columns * columns), again(columns * columns);
  const bool sums = fill_sums(matrix, columns, input);
  std::copy(matrix.begin(), matrix.end(), again.begin());
  const bool found = factorize(kernels, matrix.data(), columns, 1);
  CHECK(found == factorize(other, again.data(), columns, 1));
  CHECK(!found || same(matrix, again));
  for (std::size_t i = 0; found && sums && i < columns; ++i) {
    CHECK(matrix[i * columns + i] > 0);
    for (std::size_t j = 0; j <= i; ++j) CHECK(std::isfinite(matrix[i * columns + j]));
  }

  const std::size_t number = input.number<std::size_t>(0, kernels.formats.count - 1);
  const Format& format = kernels.formats.items[number];
  const std::size_t rows = input.one_of<std::size_t>({0, 1, 16, 20, 40});
  Buffer<float> source(rows * columns), weights(rows * columns);
  const bool ordinary = input.fill(source);
  const float* const factor = factor_of(matrix, found, input);
  const Buffer<std::byte> packed = chosen(format, source, rows, columns, factor);
  const Buffer<std::byte> same_bytes =
      chosen(other.formats.items[number], source, rows, columns, factor);
  CHECK(std::memcmp(packed.data(), same_bytes.data(), packed.size()) == 0);
  unpack(format, packed.data(), rows, columns, weights.data());
  const bool sound = ordinary && ((found && sums) || factor == nullptr);
  for (const float weight : weights) CHECK(!sound || std::isfinite(weight));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  try {
    run(input);
  } catch (const std::invalid_argument&) {
  }
  return 0;
}
