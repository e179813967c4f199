// Functions whose results in C libraries depend on the processor, computed from additions,
// multiplications and divisions only, so that every machine gets the same bits.
#pragma once
#include <cstddef>

namespace talu {

// Cosines and sines of `count` angles, rounded to the nearest float except for one in millions.
// The result is meaningless for angles beyond 2^27 in magnitude; infinity and NaN give
// NaN. `cosines` may be `angles`.
void cosines_and_sines(const float* angles, std::size_t count, float* cosines, float* sines);

// The natural logarithm of a positive, finite, normal number, to 2 units in the last place.
double natural_logarithm(double x);

}  // namespace talu
