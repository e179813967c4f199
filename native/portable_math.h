// Functions that C libraries compute differently from processor to processor, computed here from
// additions, multiplications and divisions alone, so that every machine gets the same bits.
#pragma once
#include <cstddef>

namespace talu {

// Cosines and sines of `count` angles, each rounded to the nearest float but for one in millions.
// Angles beyond 2^27 in size give no useful result; infinite ones, and what is not a number, give
// NaN. `cosines` may be `angles`.
void cosines_and_sines(const float* angles, std::size_t count, float* cosines, float* sines);

// The natural logarithm of a positive, finite, normal number, to 2 units in the last place.
double natural_logarithm(double x);

}  // namespace talu
