// Describes the kinds of operations: what each one checks and keeps, and how much scratch it needs.
#pragma once
#include <cstddef>
#include <string>

#include "preparation.h"

namespace talu {

struct Operation {
  const char* kind;
  // Checks an operation and stores its parameters in its node. Throws std::invalid_argument.
  void (*prepare)(Preparation& op, Node& node);
  // Bytes of scratch memory of a worker, and of all together, for a step of that size.
  using Bytes = std::size_t (*)(const Node& node, const StepSize& size);
  Bytes scratch, shared_scratch;
  using Scratch = Bytes Operation::*;
};

// What a prepared "activate" computes, for a product that does it at once.
Activation activation_of(const Node& node);

// Throws std::invalid_argument for an unknown kind.
const Operation& operation_named(const std::string& kind);

}  // namespace talu
