#include "ceilings.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "memory.h"
#include "threads.h"

namespace talu {
namespace {

constexpr std::size_t kPart = std::size_t{1} << 20;  // bytes that a thread reads at a time

// The best rate of repeated calls that do `amount` each.
template <class Body>
double best_rate(double amount, double seconds, Body body) {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  double best = 0.0, total = 0.0;
  while (total < seconds || best == 0.0) {
    const auto start = Clock::now();
    body();
    const auto end = Clock::now();
    best = std::max(best, amount / std::chrono::duration<double>(end - start).count());
    total = std::chrono::duration<double>(end - begin).count();
  }
  return best;
}

template <class Body>
void in_parallel(int threads, std::size_t count, Body body) {
  run_parallel(
      threads, count,
      [](void* context, std::size_t item, int worker) {
        (*static_cast<Body*>(context))(item, worker);
      },
      &body);
}

}  // namespace

double read_rate(const Kernels& kernels, std::size_t bytes, int threads, double seconds) {
  const std::size_t parts = std::max<std::size_t>(1, bytes / kPart);
  Memory memory;
  auto* const numbers = memory.floats(parts * kPart / sizeof(float));
  in_parallel(threads, parts, [&](std::size_t part, int) {
    std::fill_n(numbers + part * kPart / sizeof(float), kPart / sizeof(float), 1.0f);
  });
  std::vector<float> sums(static_cast<std::size_t>(threads) * 64);
  return best_rate(static_cast<double>(parts * kPart), seconds, [&] {
    in_parallel(threads, parts, [&](std::size_t part, int worker) {
      sums[static_cast<std::size_t>(worker) * 64] +=
          kernels.read_bytes(reinterpret_cast<const std::byte*>(numbers) + part * kPart, kPart);
    });
  });
}

std::map<std::string, double> multiply_rates(const Kernels& kernels, int threads, double seconds) {
  constexpr std::size_t kCalls = 4096, kItems = 8, kBytes = 16384;
  std::map<std::string, double> rates;
  for (const Ceiling& ceiling : kernels.ceilings) {
    const auto items = static_cast<std::size_t>(threads) * kItems;
    const double amount =
        static_cast<double>(items) * static_cast<double>(kCalls * ceiling.operations);
    rates[ceiling.numbers] = best_rate(amount, seconds, [&] {
      in_parallel(threads, items, [&](std::size_t, int) {
        alignas(64) std::byte data[kBytes] = {};
        alignas(64) std::byte out[64];
        for (std::size_t call = 0; call < kCalls; ++call) {
          ceiling.multiply(data, out);
          data[0] = out[0];  // the next call cannot begin with what is known
        }
      });
    });
  }
  return rates;
}

}  // namespace talu
