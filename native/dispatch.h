// Selects the CPU target whose kernels run.
#pragma once
#include <span>
#include <string>
#include <string_view>

#include "kernels.h"

namespace talu {

// The targets that this processor supports, best first.
std::span<const Kernels* const> supported_targets();

// The best supported target, or the one that TALU_CPU names; decided at the first call.
// Throws std::invalid_argument if TALU_CPU names an unknown or unsupported target.
const Kernels& chosen_target();

// The named target, or the selected one for an empty name.
const Kernels& target_named(std::string_view name);

const Format& format_named(const Kernels& kernels, std::string_view name);

// The names of a list as "a, b, c", for messages.
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
