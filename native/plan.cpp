#include "plan.h"

#include <algorithm>
#include <stdexcept>

namespace talu {
namespace {

void check(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument("the network does not fit together: " + message);
}

class Planner {
 public:
  Planner(const std::vector<OpSpec>& ops, const std::vector<CacheLayer>& layers,
          const Kernels& kernels, const KvFormat& kv_format)
      : ops_(ops), layers_(layers), kernels_(kernels), kv_format_(kv_format) {}

  Plan make(int result) {
    plan_.vocabulary = plan_.positions = ~std::size_t{0};
    for (std::size_t id = 0; id < ops_.size(); ++id) add_value(id);
    check(result >= 0 && result < static_cast<int>(ops_.size()), "it has no result");
    check(plan_.values[result].wanted, "the result has all rows, not the wanted ones");
    plan_.result = result;
    count_uses();
    for (std::size_t id = 0; id < ops_.size(); ++id)
      if (!done_[id]) add_node(id);
    for (std::size_t i = 0, group = 0; i < plan_.nodes.size(); ++i)
      if (ops_[ids_[i]].kind == "linear") {
        plan_.nodes[i].linears = plan_.linears[group].data();
        plan_.nodes[i].linear_count = plan_.linears[group++].size();
      }
    place_values();
    return std::move(plan_);
  }

 private:
  // The value that an operation makes; everything about its shape is checked here.
  void add_value(std::size_t id) {
    const OpSpec& op = ops_[id];
    const std::string where = op.kind + " (operation " + std::to_string(id) + ")";
    PlannedValue value{op.width, op.kind == "wanted", kNone};
    check(op.width > 0 && op.width < (1 << 24), where + ": width " + std::to_string(op.width));
    for (const int input : op.inputs) {
      check(input >= 0 && static_cast<std::size_t>(input) < id, where + " reads a later value");
      const bool first = input == op.inputs.front();
      check(first || plan_.values[input].wanted == plan_.values[op.inputs[0]].wanted,
            where + ": all rows meet wanted ones");
      value.wanted = value.wanted || plan_.values[input].wanted;
    }
    plan_.values.push_back(value);
    auto is = [&](const char* kind, std::size_t inputs, std::size_t fewest, std::size_t most) {
      if (op.kind != kind) return false;
      check(op.inputs.size() == inputs, where + " reads " + std::to_string(op.inputs.size()) +
                                            " values, not " + std::to_string(inputs));
      check(op.weights.size() >= fewest && op.weights.size() <= most,
            where + ": number of weights");
      return true;
    };
    auto width_of = [&](std::size_t input) { return plan_.values[op.inputs[input]].width; };
    auto same_width = [&](std::size_t input) {
      check(width_of(input) == op.width, where + ": widths differ");
    };
    auto matrix = [&](const Tensor& w, std::size_t rows, std::size_t columns) {
      check(w.format != nullptr && w.rows == rows && w.columns == columns,
            where + ": a weight has another shape");
    };
    auto vector = [&](const Tensor& w, std::size_t length) {
      check(w.format == nullptr && w.rows == length, where + ": a vector has another length");
    };
    auto head_size = [&] {
      const std::size_t size = integer(op, "head_size");
      check(size > 0 && op.width % size == 0, where + ": width and head size");
      return size;
    };
    if (is("embed", 0, 1, 1)) {
      matrix(op.weights[0], op.weights[0].rows, op.width);
      plan_.vocabulary = std::min(plan_.vocabulary, op.weights[0].rows);
    } else if (is("embed_position", 0, 1, 1) || is("embed_row", 0, 1, 1)) {
      const std::size_t rows = op.weights[0].rows, offset = integer(op, "offset");
      matrix(op.weights[0], rows, op.width);
      check(offset < rows, where + ": the table ends before its first row");
      if (op.kind == "embed_position") {
        plan_.positions = std::min(plan_.positions, rows - offset);
        check(padding_of(op) < 0 || offset > 0, where + ": no row for padding");
      }
    } else if (is("linear", 1, 1, 2)) {
      matrix(op.weights[0], op.width, width_of(0));
      if (op.weights.size() == 2) vector(op.weights[1], op.width);
    } else if (is("rms_norm", 1, 1, 1)) {
      same_width(0);
      const std::size_t size = integer(op, "size");
      check(size > 0 && op.width % size == 0, where + ": width and group size");
      vector(op.weights[0], size);
    } else if (is("layer_norm", 1, 2, 2)) {
      same_width(0);
      vector(op.weights[0], op.width);
      vector(op.weights[1], op.width);
    } else if (is("activate", 1, 0, 0)) {
      same_width(0);
      activation_of(op);
    } else if (is("rope", 1, 0, 0)) {
      same_width(0);
      check(!value.wanted, where + " needs all rows");
      check(2 * op.frequencies.size() <= head_size(), where + ": too many frequencies");
    } else if (is("attention", 3, 0, 0)) {
      same_width(0);
      check(!value.wanted, where + " needs all rows");
      const std::size_t size = head_size(), layer = integer(op, "layer");
      check(width_of(1) == width_of(2) && width_of(1) % size == 0 && op.width % width_of(1) == 0,
            where + ": heads of queries, keys and values");
      check(layer < layers_.size() && layers_[layer].head_size == size &&
                layers_[layer].kv_heads == width_of(1) / size,
            where + ": the cache has no such layer");
      check(number(op, "scale") > 0, where + ": scale must be positive");
      check(integer(op, "causal") == 1 || integer(op, "window") == 0,
            where + ": a window looks back only");
    } else if (is("gated", 2, 0, 0)) {
      same_width(0);
      same_width(1);
      activation_of(op);
    } else if (is("add", 2, 0, 0)) {
      same_width(0);
      same_width(1);
    } else if (is("wanted", 1, 0, 0)) {
      same_width(0);
      check(!plan_.values[op.inputs[0]].wanted, where + ": the rows are already chosen");
    } else {
      throw std::invalid_argument("the operation '" + op.kind + "' is unknown");
    }
  }

  static double number(const OpSpec& op, const char* name) {
    const auto found = op.numbers.find(name);
    check(found != op.numbers.end(), op.kind + " needs " + name);
    return found->second;
  }
  static std::size_t integer(const OpSpec& op, const char* name) {
    const double value = number(op, name);
    check(value >= 0 && value < 1e9, op.kind + ": " + name);
    return static_cast<std::size_t>(value);
  }

  static std::int32_t padding_of(const OpSpec& op) {
    const double value = number(op, "padding");
    check(value >= -1 && value < 1e9, op.kind + ": padding");
    return static_cast<std::int32_t>(value);
  }

  static Activation activation_of(const OpSpec& op) {
    if (op.activation == "silu") return Activation::silu;
    if (op.activation == "gelu") return Activation::gelu;
    check(op.activation == "gelu_tanh", op.kind + ": activation '" + op.activation + "'");
    return Activation::gelu_tanh;
  }

  void count_uses() {
    done_.assign(ops_.size(), false);
    uses_.assign(ops_.size(), 0);
    for (const OpSpec& op : ops_)
      for (const int input : op.inputs) ++uses_[input];
    ++uses_[plan_.result];
  }

  void add_node(std::size_t id) {
    const OpSpec& op = ops_[id];
    Node node;
    for (const Op& kernel : kernels_.ops)
      if (op.kind == kernel.kind) node.run = kernel.run;
    std::copy(op.inputs.begin(), op.inputs.end(), node.inputs);
    node.output = static_cast<int>(id);
    if (!op.weights.empty()) node.weight = op.weights[0];
    if (op.kind == "linear") {
      add_linears(id);
    } else if (op.kind == "rms_norm") {
      node.eps = static_cast<float>(number(op, "eps"));
      node.group = integer(op, "size");
    } else if (op.kind == "layer_norm") {
      node.eps = static_cast<float>(number(op, "eps"));
      node.bias = op.weights[1];
    } else if (op.kind == "embed_position" || op.kind == "embed_row") {
      node.offset = integer(op, "offset");
      if (op.kind == "embed_position") node.padding = padding_of(op);
      if (node.padding >= 0) plan_.causal = false;  // it counts the tokens of whole sequences
    } else if (op.kind == "rope") {
      node.group = integer(op, "head_size");
      node.rotation = rotation_of(op.frequencies);
    } else if (op.kind == "attention") {
      node.run = kv_format_.attention;
      node.group = integer(op, "head_size");
      node.layer = integer(op, "layer");
      node.scale = static_cast<float>(number(op, "scale"));
      node.window = integer(op, "window");
      node.causal = integer(op, "causal") != 0;
      plan_.causal = plan_.causal && node.causal;
      see_attention(node);
    } else if (op.kind == "gated" || op.kind == "activate") {
      node.activation = activation_of(op);
    }
    done_[id] = true;
    ids_.push_back(id);
    plan_.nodes.push_back(node);
  }

  // All linears that read the same value run together, at the place of the first.
  void add_linears(std::size_t first) {
    const Tensor& leader = ops_[first].weights[0];
    std::vector<Linear> group;
    for (std::size_t id = first; id < ops_.size(); ++id) {
      const OpSpec& op = ops_[id];
      if (op.kind != "linear" || op.inputs[0] != ops_[first].inputs[0]) continue;
      if (op.weights[0].format != leader.format) continue;
      Linear linear;
      linear.weight = op.weights[0];
      linear.output = static_cast<int>(id);
      if (op.weights.size() == 2) linear.bias = op.weights[1].floats();
      add_residual(linear, first);
      add_activation(linear);
      done_[id] = true;
      group.push_back(linear);
    }
    plan_.converted_bytes =
        std::max(plan_.converted_bytes, leader.format->row_bytes(leader.columns));
    plan_.linears.push_back(std::move(group));
  }

  // A sum that alone reads a linear, and whose other part is there already, goes into it.
  void add_residual(Linear& linear, std::size_t first) {
    if (uses_[linear.output] != 1) return;
    for (std::size_t id = first; id < ops_.size(); ++id) {
      const OpSpec& op = ops_[id];
      if (op.kind != "add" || done_[id]) continue;
      for (const int side : {0, 1}) {
        const int other = op.inputs[1 - side];
        if (op.inputs[side] != linear.output || static_cast<std::size_t>(other) >= first) continue;
        linear.residual = other;
        linear.output = static_cast<int>(id);
        done_[id] = true;
        return;
      }
    }
  }

  // An activation that alone reads a linear goes into it.
  void add_activation(Linear& linear) {
    if (uses_[linear.output] != 1) return;
    for (std::size_t id = static_cast<std::size_t>(linear.output) + 1; id < ops_.size(); ++id) {
      const OpSpec& op = ops_[id];
      if (op.kind != "activate" || op.inputs[0] != linear.output) continue;
      linear.activates = true;
      linear.activation = activation_of(op);
      linear.output = static_cast<int>(id);
      done_[id] = true;
      return;
    }
  }

  std::size_t rotation_of(const std::vector<float>& frequencies) {
    const auto found = std::find(plan_.rotations.begin(), plan_.rotations.end(), frequencies);
    if (found == plan_.rotations.end()) plan_.rotations.push_back(frequencies);
    return static_cast<std::size_t>(
        std::find(plan_.rotations.begin(), plan_.rotations.end(), frequencies) -
        plan_.rotations.begin());
  }

  void see_attention(const Node& node) {
    const bool first = plan_.head_size == 0, all = !first && plan_.reach == 0;
    plan_.head_size = std::max(plan_.head_size, node.group);
    plan_.reach = node.window == 0 || all ? 0 : std::max(plan_.reach, node.window);
  }

  std::vector<int> outputs_of(const Node& node) const {
    if (node.linear_count == 0) return {node.output};
    std::vector<int> outputs;
    for (std::size_t i = 0; i < node.linear_count; ++i) outputs.push_back(node.linears[i].output);
    return outputs;
  }
  std::vector<int> inputs_of(const Node& node) const {
    std::vector<int> inputs;
    for (const int input : node.inputs)
      if (input != kNone) inputs.push_back(input);
    for (std::size_t i = 0; i < node.linear_count; ++i)
      if (node.linears[i].residual != kNone) inputs.push_back(node.linears[i].residual);
    return inputs;
  }

  // Values that never live at the same time share memory.
  void place_values() {
    std::vector<std::size_t> last_use(ops_.size(), 0);
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i)
      for (const int input : inputs_of(plan_.nodes[i])) last_use[input] = i;
    plan_.values[plan_.result].slot = kResultSlot;
    std::vector<int> free;
    for (std::size_t i = 0; i < plan_.nodes.size(); ++i) {
      const Node& node = plan_.nodes[i];
      for (const int output : outputs_of(node)) {
        int& slot = plan_.values[output].slot;
        if (slot != kResultSlot) slot = take(free, output);
      }
      std::vector<int> dying = inputs_of(node);
      for (const int output : outputs_of(node)) {
        last_use[output] = std::max(last_use[output], i);
        if (last_use[output] == i) dying.push_back(output);
      }
      std::sort(dying.begin(), dying.end());
      dying.erase(std::unique(dying.begin(), dying.end()), dying.end());
      for (const int value : dying)
        if (last_use[value] == i && plan_.values[value].slot >= 0)
          free.push_back(plan_.values[value].slot);
    }
  }

  // The free slot that fits best, or a new one.
  int take(std::vector<int>& free, int value) {
    const std::size_t wanted = stride_of(plan_.values[value].width);
    auto waste = [&](int slot) {
      const std::size_t has = plan_.slots[slot];
      return has >= wanted ? has - wanted : (wanted - has) * 4;
    };
    const auto best = std::min_element(free.begin(), free.end(),
                                       [&](int a, int b) { return waste(a) < waste(b); });
    if (best == free.end()) {
      plan_.slots.push_back(wanted);
      return static_cast<int>(plan_.slots.size()) - 1;
    }
    const int slot = *best;
    free.erase(best);
    plan_.slots[slot] = std::max(plan_.slots[slot], wanted);
    return slot;
  }

  const std::vector<OpSpec>& ops_;
  const std::vector<CacheLayer>& layers_;
  const Kernels& kernels_;
  const KvFormat& kv_format_;
  Plan plan_;
  std::vector<bool> done_;
  std::vector<int> uses_;
  std::vector<std::size_t> ids_;  // operation of each node
};

}  // namespace

std::size_t stride_of(std::size_t width) {
  return (width + kTileRows - 1) / kTileRows * kTileRows + kTileRows;
}

Plan make_plan(const std::vector<OpSpec>& ops, const std::vector<CacheLayer>& layers, int result,
               const Kernels& kernels, const KvFormat& kv_format) {
  return Planner(ops, layers, kernels, kv_format).make(result);
}

}  // namespace talu
