#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>
#include <vector>

namespace talu {
namespace {

// Best first.
constexpr const Kernels* kTargets[] = {
#if defined(__x86_64__)
    &amx_kernels,
    &avx512bf16_kernels,
    &avx512_kernels,
    &avx2_kernels,
#endif
    &generic_kernels,
};

const Kernels& forced_or_best() {
  const char* forced = std::getenv("TALU_CPU");
  if (forced == nullptr || *forced == '\0') return *supported_targets().front();
  try {
    return target_named(forced);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(std::string("TALU_CPU: ") + error.what());
  }
}

}  // namespace

std::span<const Kernels* const> supported_targets() {
  static const std::vector<const Kernels*> supported = [] {
    std::vector<const Kernels*> found;
    for (const Kernels* target : kTargets)
      if (target->supported()) found.push_back(target);
    return found;
  }();
  return supported;
}

const Kernels& chosen_target() {
  static const Kernels& chosen = forced_or_best();
  return chosen;
}

const Kernels& target_named(std::string_view name) {
  if (name.empty()) return chosen_target();
  for (const Kernels* target : supported_targets())
    if (name == target->name) return *target;
  bool known = false;
  for (const Kernels* target : kTargets) known = known || name == target->name;
  throw std::invalid_argument("the CPU target '" + std::string(name) + "' is " +
                              (known ? "not supported by this processor" : "unknown") +
                              "; supported here: " + names_of(supported_targets()));
}

const Format& format_named(const Kernels& kernels, std::string_view name) {
  for (const Format& format : kernels.formats)
    if (name == format.name) return format;
  throw std::invalid_argument("the weight format '" + std::string(name) +
                              "' is unknown; known: " + names_of(kernels.formats));
}

}  // namespace talu
