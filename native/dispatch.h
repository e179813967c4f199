// Which target's kernels run.
#pragma once
#include <span>
#include <string>
#include <string_view>

#include "kernels.h"

namespace talu {

// Those that this processor supports, best first.
std::span<const Kernels* const> supported_targets();

// The best one, or the one that TALU_CPU names; decided at the first call.
// Throws std::invalid_argument when that one is unknown or unsupported.
const Kernels& chosen_target();

// The named one, or the chosen one for an empty name.
const Kernels& target_named(std::string_view name);

const Format& format_named(const Kernels& kernels, std::string_view name);

// "a, b, c" out of the names of a list, for messages.
template <class Items>
std::string names_of(const Items& items) {
  std::string names;
  for (const auto& item : items) {
    if (!names.empty()) names += ", ";
    if constexpr (requires { item->name; })
      names += item->name;
    else
      names += item.name;
  }
  return names;
}

}  // namespace talu
