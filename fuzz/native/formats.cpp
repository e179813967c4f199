// Packs, unpacks and multiplies matrices of every format, from hostile numbers and blocks.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "input.h"
#include "packing.h"
#include "scalar.h"

using namespace talu;

namespace {

struct Matrix {
  const Format* format;
  std::size_t rows, columns;
};

std::size_t tiles_of(std::size_t rows) { return (rows + kTileRows - 1) / kTileRows; }

void pack_into(const Matrix& m, const Buffer<std::byte>& source, const Buffer<std::byte>& out) {
  if (m.format->choose != nullptr)
    choose(*m.format, reinterpret_cast<const float*>(source.data()), m.rows, m.columns, nullptr,
           out.data(), 1);
  else
    pack(*m.format, source.data(), m.rows, m.columns, out.data(), 1);
}

Buffer<float> unpacked(const Matrix& m, const Buffer<std::byte>& from) {
  Buffer<float> out(m.rows * m.columns);
  unpack(*m.format, from.data(), m.rows, m.columns, out.data());
  return out;
}

// Sums of rows of activations, `tokens` of them from the first on: (tokens, rows of the matrix).
Buffer<float> product(const Matrix& m, const Buffer<std::byte>& weights, const float* x,
                      std::size_t tokens) {
  const Format& f = *m.format;
  const bool as_it_is = f.read_as_it_is != 0 && m.columns % f.read_as_it_is == 0;
  const std::size_t stride = as_it_is ? m.columns * sizeof(float) : f.row_bytes(m.columns);
  Buffer<std::byte> rows(tokens * stride);
  for (std::size_t t = 0; t < tokens; ++t)
    if (as_it_is)
      std::memcpy(rows.data() + t * stride, x + t * m.columns, stride);
    else
      f.quantize_activations(x + t * m.columns, m.columns, rows.data() + t * stride);
  Buffer<float> out(tokens * m.rows);
  for (std::size_t first = 0; first < tiles_of(m.rows); first += kTilesAtOnce) {
    constexpr std::size_t kWidth = kTilesAtOnce * kTileRows;
    Buffer<float> sums(tokens * kWidth);
    f.multiply(weights.data() + first * f.tile_bytes(m.columns),
               std::min(kTilesAtOnce, tiles_of(m.rows) - first), m.columns, rows.data(), stride,
               tokens, sums.data());
    for (std::size_t t = 0; t < tokens; ++t)
      for (std::size_t r = first * kTileRows; r < std::min(m.rows, first * kTileRows + kWidth); ++r)
        out[t * m.rows + r] = sums[t * kWidth + r - first * kTileRows];
  }
  return out;
}

// What is packed without loss comes back, and the weights of ordinary numbers nearly do.
void check_weights(const Matrix& m, const Buffer<std::byte>& source, bool ordinary,
                   const Buffer<float>& weights) {
  const auto* const floats = reinterpret_cast<const float*>(source.data());
  const auto* const halves = reinterpret_cast<const std::uint16_t*>(source.data());
  const std::string name = m.format->name;
  // Of the largest number of a row; a rotation makes a number at most eight times as large.
  const float error = name == "i16" ? 1.0f / 2000 : name == "r8" ? 8.0f / 250 : 8.0f / 15;
  for (std::size_t row = 0; row < m.rows; ++row) {
    float largest = 0, squares = 0;
    for (std::size_t i = row * m.columns; i < (row + 1) * m.columns; ++i) {
      if (name == "f32") CHECK(same(weights[i], floats[i]));
      if (name == "f16") CHECK(same(weights[i], widen_f16(halves[i])));
      if (name == "bf16") CHECK(same(weights[i], widen_bf16(halves[i])));
      if (!ordinary) continue;
      largest = std::max(largest, std::fabs(floats[i]));
      squares += (weights[i] - floats[i]) * (weights[i] - floats[i]);
    }
    if (ordinary)
      CHECK(std::sqrt(squares) <= error * largest * std::sqrt(static_cast<float>(m.columns)));
  }
}

// A product is that of the weights and the activations, which are rounded to 8 bits at worst.
void check_product(const Matrix& m, const Buffer<float>& weights, const Buffer<float>& x,
                   const Buffer<float>& found) {
  const bool rotated = std::string(m.format->activation) == "rotated";
  for (std::size_t t = 0; t < x.size() / m.columns; ++t)
    for (std::size_t row = 0; row < m.rows; ++row) {
      double expected = 0, squares = 0, largest = 0;
      for (std::size_t c = 0; c < m.columns; ++c) {
        const double weight = weights[row * m.columns + c], number = x[t * m.columns + c];
        expected += weight * number;
        squares += weight * weight;
        largest = std::max(largest, std::fabs(number));
      }
      if (!(squares < 1e30)) continue;
      const double step = largest * (rotated ? 8 : 1) / 250;
      const double difference = found[t * m.rows + row] - expected;
      CHECK(std::fabs(difference) <=
            step * std::sqrt(squares * static_cast<double>(m.columns)) + 1e-4 * largest);
    }
}

void check_activations(const Matrix& m, const Matrix& reference, const Buffer<std::byte>& weights,
                       const Buffer<float>& numbers, Input& input) {
  const std::size_t tokens = input.number<std::size_t>(1, 9);
  Buffer<float> x(tokens * m.columns);
  const bool ordinary = input.fill(x);
  const Buffer<float> found = product(m, weights, x.data(), tokens);
  CHECK(same(found, product(reference, weights, x.data(), tokens)));
  const std::size_t token = input.number<std::size_t>(0, tokens - 1);
  const Buffer<float> alone = product(m, weights, x.data() + token * m.columns, 1);
  for (std::size_t row = 0; row < m.rows; ++row)
    CHECK(same(alone[row], found[token * m.rows + row]));
  if (ordinary) check_product(m, numbers, x, found);
}

// Rows as a file has them, of numbers or of blocks. True if they are ordinary numbers.
bool fill_source(const Format& format, Buffer<std::byte>& source, Input& input) {
  if (format.source_bytes != sizeof(float)) {
    input.fill(source);
    return false;
  }
  Buffer<float> floats(source.size() / sizeof(float));
  const bool ordinary = input.fill(floats);
  std::memcpy(source.data(), floats.data(), source.size());
  return ordinary;
}

void run(Input& input) {
  const auto& formats = targets().front()->formats;
  const std::size_t number = input.number<std::size_t>(0, formats.count - 1);
  const Format& format = formats.items[number];
  const std::size_t unit = std::max(format.source_columns, format.multiple);
  const std::size_t rows = input.number<std::size_t>(0, 80);
  const std::size_t columns = input.rarely() || unit == 1
                                  ? input.number<std::size_t>(0, 300)
                                  : unit * input.number<std::size_t>(0, std::max<std::size_t>(2, 300 / unit));
  const Matrix m = {&format, rows, columns};
  const Matrix other = {&targets().back()->formats.items[number], rows, columns};

  Buffer<std::byte> weights(packed_bytes(format, rows, columns));
  if (input.rarely()) {  // such bytes can be in a damaged cache; they need not mean the same everywhere
    input.fill(weights);
    unpacked(m, weights);
    unpacked(other, weights);
    return;
  }
  Buffer<std::byte> source(rows * (columns / format.source_columns) * format.source_bytes);
  const bool ordinary = fill_source(format, source, input);
  pack_into(m, source, weights);
  Buffer<std::byte> again(weights.size());
  pack_into(other, source, again);
  CHECK(std::memcmp(weights.data(), again.data(), weights.size()) == 0);
  const Buffer<float> numbers = unpacked(m, weights);
  CHECK(same(numbers, unpacked(other, weights)));
  check_weights(m, source, ordinary, numbers);
  if (rows > 0 && columns > 0) check_activations(m, other, weights, numbers, input);
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
