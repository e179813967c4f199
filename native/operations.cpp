#include "operations.h"

#include <cstring>
#include <stdexcept>
#include <type_traits>

#include "kernels.h"

#define TALU_PREPARES 1

namespace talu {
namespace {

#include "ops/sizes.h"
// The headers of all operations, without the code that runs them.
#include "operations.inc"

template <class T>
void prepare(Preparation& op, Node& node) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof node.parameters);
  const T parameters = T::prepare(op);
  op.all_parameters_are_read();
  std::memcpy(node.parameters, &parameters, sizeof parameters);
}

template <class T>
std::size_t scratch(const Node& node, const StepSize& size) {
  if constexpr (requires(const T& op) { op.scratch(size); })
    return node.as<T>().scratch(size);
  else
    return 0;
}

template <class T>
std::size_t shared_scratch(const Node& node, const StepSize& size) {
  if constexpr (requires(const T& op) { op.shared_scratch(size); })
    return node.as<T>().shared_scratch(size);
  else
    return 0;
}

#define TALU_OPERATION(T) {T::kind, prepare<T>, scratch<T>, shared_scratch<T>},
constexpr Operation kOperations[] = {TALU_OPERATIONS};

}  // namespace

Activation activation_of(const Node& node) { return node.as<Activate>().activation; }

const Operation& operation_named(const std::string& kind) {
  for (const Operation& operation : kOperations)
    if (kind == operation.kind) return operation;
  throw std::invalid_argument("the operation '" + kind + "' is unknown");
}

}  // namespace talu
