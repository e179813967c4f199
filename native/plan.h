// Plans a recorded network for execution: validates and fuses operations and assigns buffers.
#pragma once
#include <cstddef>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "kernels.h"
#include "kv_cache.h"

namespace talu {

using Parameter = std::variant<double, std::string, std::vector<float>>;

// One operation as the graph recorded it.
struct OpSpec {
  std::string kind;
  std::vector<int> inputs;
  std::vector<Tensor> weights;
  std::size_t width = 0;
  std::map<std::string, Parameter> parameters;
};

constexpr int kResultSlot = -2;  // the caller's memory

struct Operation;

struct PlannedValue {
  std::size_t width = 0;
  bool only_outputs = false;  // has only the output rows of the step
  int slot = kNone;     // buffer, shared by values that are not live at the same time
};

struct Plan {
  std::vector<Node> nodes;
  std::vector<const Operation*> operations;  // of the nodes
  std::vector<std::vector<int>> recorded;    // the recorded operations that each node computes
  std::vector<std::vector<Linear>> linears;  // referenced by the nodes
  std::vector<PlannedValue> values;
  std::vector<std::size_t> slots;             // floats of a row in each
  std::vector<std::vector<float>> rotations;  // frequencies
  int result = kNone;
  std::size_t quantized_bytes = 0;  // of a row of quantized activations
  bool attends = false;
  std::size_t reach = 0;            // the largest window, 0 for all positions
  std::size_t vocabulary = 0;       // rows of the smallest embedding
  std::size_t positions = 0;        // rows of the smallest position table
  bool causal = true;               // otherwise a step must contain whole sequences
};

// Stride of a value's rows in floats. Never a multiple of a page, so that neighbouring rows do
// not map to the same cache sets.
std::size_t stride_of(std::size_t width);

// Throws std::invalid_argument if the operations are inconsistent.
Plan make_plan(const std::vector<OpSpec>& ops, const std::vector<CacheLayer>& layers, int result,
               const Kernels& kernels);

}  // namespace talu
