// A recorded network made ready to run: checked, fused where that saves passes over memory, and
// with a place for every value.
#pragma once
#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "kernels.h"
#include "kv_cache.h"

namespace talu {

// One operation as the graph recorded it.
struct OpSpec {
  std::string kind;
  std::vector<int> inputs;
  std::vector<Tensor> weights;
  std::size_t width = 0;
  std::map<std::string, double> numbers;
  std::string activation;
  std::vector<float> frequencies;
};

constexpr int kResultSlot = -2;  // the caller's memory

struct PlannedValue {
  std::size_t width = 0;
  bool only_outputs = false;  // has the rows that the step puts out, not all
  int slot = kNone;     // memory that it shares with values that live at other times
};

struct Plan {
  std::vector<Node> nodes;
  std::vector<std::vector<Linear>> linears;  // what the nodes point to
  std::vector<PlannedValue> values;
  std::vector<std::size_t> slots;             // floats of a row in each
  std::vector<std::vector<float>> rotations;  // frequencies
  int result = kNone;
  std::size_t quantized_bytes = 0;  // of a row of activations in its weight's own form
  std::size_t head_size = 0;        // the largest
  std::size_t reach = 0;            // positions that any layer looks back to, 0 for all
  std::size_t vocabulary = 0;       // rows of the smallest embedding
  std::size_t positions = 0;        // that every table of positions has
  bool causal = true;               // otherwise a step takes whole sequences
};

// Floats from one row of a value to the next. Never a multiple of a page, so that neighbouring
// rows do not fight for the same places of the cache.
std::size_t stride_of(std::size_t width);

// Throws std::invalid_argument when the operations do not fit together.
Plan make_plan(const std::vector<OpSpec>& ops, const std::vector<CacheLayer>& layers, int result,
               const Kernels& kernels, const KvFormat& kv_format);

}  // namespace talu
