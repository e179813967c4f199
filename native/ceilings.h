// Measures how fast a target can read memory and multiply at most.
#pragma once
#include <map>
#include <string>

#include "kernels.h"

namespace talu {

// Bytes in a second that the threads read of `bytes` bytes of memory, and multiplications (each with
// an addition) in a second by the format of their numbers: the best of several tries in `seconds`.
double read_rate(const Kernels& kernels, std::size_t bytes, int threads, double seconds);
std::map<std::string, double> multiply_rates(const Kernels& kernels, int threads, double seconds);

}  // namespace talu
