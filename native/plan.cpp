#include "plan.h"

#include <algorithm>
#include <string>

#include "operations.h"

namespace talu {
namespace {

class Planner {
 public:
  Planner(const std::vector<OpSpec>& ops, const std::vector<CacheLayer>& layers,
          const Kernels& kernels)
      : ops_(ops), layers_(layers), kernels_(kernels) {}

  Plan make(int result) {
    plan_.vocabulary = plan_.positions = ~std::size_t{0};
    for (std::size_t id = 0; id < ops_.size(); ++id) add_value(id);
    require_fit(result >= 0 && result < static_cast<int>(ops_.size()),
                "the result is value " + std::to_string(result) + " of " +
                    std::to_string(ops_.size()));
    require_fit(plan_.values[result].only_outputs,
                "the result has all rows, expected the output rows");
    plan_.result = result;
    count_uses();
    for (std::size_t id = 0; id < ops_.size(); ++id)
      if (!done_[id]) add_node(id);
    for (std::size_t i = 0, group = 0; i < plan_.nodes.size(); ++i)
      if (ops_[plan_.recorded[i][0]].kind == "linear") {
        plan_.nodes[i].linears = plan_.linears[group].data();
        plan_.nodes[i].linear_count = plan_.linears[group++].size();
      }
    place_values();
    return std::move(plan_);
  }

 private:
  void add_value(std::size_t id) {
    const OpSpec& op = ops_[id];
    Preparation preparation(op, id, layers_, plan_);
    Node node;
    operation_named(op.kind).prepare(preparation, node);
    std::copy(op.inputs.begin(), op.inputs.end(), node.inputs);
    std::copy(op.weights.begin(), op.weights.end(), node.weights);
    node.output = static_cast<int>(id);
    for (const Op& kernel : kernels_.ops)
      if (op.kind == kernel.kind) node.run = kernel.run;
    prepared_.push_back(node);
    plan_.values.push_back(preparation.result());
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
    const std::vector<bool> before = done_;
    if (op.kind == "linear") add_linears(id);
    done_[id] = true;
    plan_.recorded.emplace_back();
    for (std::size_t i = id; i < ops_.size(); ++i)
      if (done_[i] && !before[i]) plan_.recorded.back().push_back(static_cast<int>(i));
    plan_.nodes.push_back(prepared_[id]);
    plan_.operations.push_back(&operation_named(op.kind));
  }

  // All linears that read the same value run together in place of the first.
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
    plan_.quantized_bytes =
        std::max(plan_.quantized_bytes, leader.format->row_bytes(leader.columns));
    plan_.linears.push_back(std::move(group));
  }

  // Fuses an add into a linear if it is the only reader and its other input is computed before.
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

  // Fuses an activation into a linear if it is the only reader.
  void add_activation(Linear& linear) {
    if (uses_[linear.output] != 1) return;
    for (std::size_t id = static_cast<std::size_t>(linear.output) + 1; id < ops_.size(); ++id) {
      const OpSpec& op = ops_[id];
      if (op.kind != "activate" || op.inputs[0] != linear.output) continue;
      linear.activates = true;
      linear.activation = activation_of(prepared_[id]);
      linear.output = static_cast<int>(id);
      done_[id] = true;
      return;
    }
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

  // Values that are not live at the same time share a buffer.
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

  // The best-fitting free slot, or a new one.
  int take(std::vector<int>& free, int value) {
    const std::size_t needed = stride_of(plan_.values[value].width);
    auto waste = [&](int slot) {
      const std::size_t has = plan_.slots[slot];
      return has >= needed ? has - needed : (needed - has) * 4;
    };
    const auto best = std::min_element(free.begin(), free.end(),
                                       [&](int a, int b) { return waste(a) < waste(b); });
    if (best == free.end()) {
      plan_.slots.push_back(needed);
      return static_cast<int>(plan_.slots.size()) - 1;
    }
    const int slot = *best;
    free.erase(best);
    plan_.slots[slot] = std::max(plan_.slots[slot], needed);
    return slot;
  }

  const std::vector<OpSpec>& ops_;
  const std::vector<CacheLayer>& layers_;
  const Kernels& kernels_;
  Plan plan_;
  std::vector<Node> prepared_;  // of each operation
  std::vector<bool> done_;
  std::vector<int> uses_;
};

}  // namespace

std::size_t stride_of(std::size_t width) {
  return (width + kTileRows - 1) / kTileRows * kTileRows + kTileRows;
}

Plan make_plan(const std::vector<OpSpec>& ops, const std::vector<CacheLayer>& layers, int result,
               const Kernels& kernels) {
  return Planner(ops, layers, kernels).make(result);
}

}  // namespace talu
