#include "portable_math.h"

#include <bit>
#include <cstdint>

namespace talu {
namespace {

// pi/2 as a sum. The first three parts have 26 bits each, so their products with a number of quarter
// turns below 2^27 are exact: Cody and Waite's reduction.
constexpr double kQuarterTurn[] = {0x1.921fb5p+0, 0x1.110b46p-26, 0x1.1a6262p-54,
                                   0x1.3145c06e0e689p-78};
constexpr double kQuarterTurnsPerRadian = 0x1.45f306dc9c883p-1;
constexpr double kRound = 0x1.8p+52;  // adding it leaves the nearest integer in the low bits

// Taylor series for |r| <= pi/4, to 3e-15.
inline double sine_near_zero(double r) {
  const double square = r * r;
  double sum = 1.0 / 6227020800;
  sum = sum * square - 1.0 / 39916800;
  sum = sum * square + 1.0 / 362880;
  sum = sum * square - 1.0 / 5040;
  sum = sum * square + 1.0 / 120;
  sum = sum * square - 1.0 / 6;
  return sum * square * r + r;
}
inline double cosine_near_zero(double r) {
  const double square = r * r;
  double sum = -1.0 / 87178291200;
  sum = sum * square + 1.0 / 479001600;
  sum = sum * square - 1.0 / 3628800;
  sum = sum * square + 1.0 / 40320;
  sum = sum * square - 1.0 / 720;
  sum = sum * square + 1.0 / 24;
  sum = sum * square - 0.5;
  return sum * square + 1.0;
}

// ln 2 as a sum; the first part has 32 bits, so its product with an exponent is exact.
constexpr double kLogarithmOfTwo[] = {0x1.62e42feep-1, 0x1.a39ef35793c76p-33};

}  // namespace

void cosines_and_sines(const float* angles, std::size_t count, float* cosines, float* sines) {
  for (std::size_t i = 0; i < count; ++i) {
    const double angle = angles[i];
    const double shifted = angle * kQuarterTurnsPerRadian + kRound, turns = shifted - kRound;
    const double r = ((angle - turns * kQuarterTurn[0]) - turns * kQuarterTurn[1]) -
                     turns * kQuarterTurn[2] - turns * kQuarterTurn[3];
    const auto quadrant = std::bit_cast<std::uint64_t>(shifted);
    const double sine = sine_near_zero(r), cosine = cosine_near_zero(r);
    const double x = (quadrant & 1) != 0 ? sine : cosine, y = (quadrant & 1) != 0 ? cosine : sine;
    cosines[i] = static_cast<float>(((quadrant + 1) & 2) != 0 ? -x : x);
    sines[i] = static_cast<float>((quadrant & 2) != 0 ? -y : y);
  }
}

double natural_logarithm(double x) {
  // x = 2^exponent · m, m from sqrt(1/2) to sqrt(2).
  constexpr std::uint64_t kRootOfHalf = 0x3fe6a09e667f3bcd, kMantissa = 0x000fffffffffffff;
  const auto above = std::bit_cast<std::uint64_t>(x) - kRootOfHalf;
  const auto exponent = static_cast<double>(static_cast<std::int64_t>(above) >> 52);
  const double m = std::bit_cast<double>((above & kMantissa) + kRootOfHalf);
  // ln m = 2 artanh s, s = (m - 1) / (m + 1): |s| <= 0.172, and the series ends at 1e-17.
  const double s = (m - 1.0) / (m + 1.0), square = s * s;
  double sum = 1.0 / 21;
  for (int odd = 19; odd >= 3; odd -= 2) sum = sum * square + 1.0 / odd;
  const double logarithm = 2.0 * s + 2.0 * s * square * sum;
  return exponent * kLogarithmOfTwo[0] + (exponent * kLogarithmOfTwo[1] + logarithm);
}

}  // namespace talu
