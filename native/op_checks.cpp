#include "op_checks.h"

#include <stdexcept>

namespace talu {
namespace {

constexpr std::size_t kLargestWidth = (std::size_t{1} << 24) - 1;

std::string shape(std::size_t rows, std::size_t columns) {
  std::string text = "(";
  return text.append(std::to_string(rows)).append(", ").append(std::to_string(columns)) + ")";
}

class OpCheck {
 public:
  OpCheck(const OpSpec& op, std::size_t id, const std::vector<PlannedValue>& values,
          const std::vector<CacheLayer>& layers)
      : op_(op), id_(id), values_(values), layers_(layers) {}

  void run() const;

 private:
  struct Kind {
    const char* name;
    std::size_t inputs, fewest_weights, most_weights;
    void (OpCheck::*shapes)() const;
  };
  static const Kind kKinds[];

  void require(bool condition, const std::string& message) const {
    if (!condition)
      require_fit(false, op_.kind + " (operation " + std::to_string(id_) + "): " + message);
  }

  void inputs() const {
    for (const int input : op_.inputs) {
      require(input >= 0 && static_cast<std::size_t>(input) < id_,
              "it reads value " + std::to_string(input) + ", which does not exist yet");
      require(only_outputs(input) == only_outputs(op_.inputs[0]),
              "it reads all rows of one value and only the output rows of another");
    }
  }

  void of_kind(const Kind& kind) const {
    require(op_.inputs.size() == kind.inputs, "it reads " + std::to_string(op_.inputs.size()) +
                                                  " values, expected " +
                                                  std::to_string(kind.inputs));
    const std::size_t weights = op_.weights.size();
    require(weights >= kind.fewest_weights && weights <= kind.most_weights,
            "it has " + std::to_string(weights) + " weights, expected " +
                std::to_string(kind.fewest_weights) + " to " + std::to_string(kind.most_weights));
    (this->*kind.shapes)();
  }

  bool only_outputs(int value) const {
    return values_[static_cast<std::size_t>(value)].only_outputs;
  }
  std::size_t width_of(std::size_t input) const {
    return values_[static_cast<std::size_t>(op_.inputs[input])].width;
  }
  void same_width(std::size_t input) const {
    require(width_of(input) == op_.width, "its input has " + std::to_string(width_of(input)) +
                                              " columns, its result " + std::to_string(op_.width));
  }
  void all_rows() const {
    require(!only_outputs(op_.inputs[0]), "it needs all rows, and its input has the output rows");
  }
  void matrix(const Tensor& weight, std::size_t rows, std::size_t columns) const {
    require(weight.format != nullptr, "a weight is a vector, expected a matrix");
    require(weight.rows == rows && weight.columns == columns,
            "a weight has the shape " + shape(weight.rows, weight.columns) + ", expected " +
                shape(rows, columns));
  }
  void vector(const Tensor& weight, std::size_t length) const {
    require(weight.format == nullptr, "a weight is a matrix, expected a vector");
    require(weight.rows == length, "a vector has " + std::to_string(weight.rows) +
                                       " numbers, expected " + std::to_string(length));
  }
  std::size_t divides_width(const char* name) const {
    const std::size_t size = integer_of(op_, name);
    require(size > 0 && op_.width % size == 0,
            "its width " + std::to_string(op_.width) + " is not a multiple of " + name + " " +
                std::to_string(size));
    return size;
  }

  void embed() const { matrix(op_.weights[0], op_.weights[0].rows, op_.width); }
  void embed_row() const {
    embed();
    const std::size_t offset = integer_of(op_, "offset");
    require(offset < op_.weights[0].rows,
            "its first row is " + std::to_string(offset) + ", the table has " +
                std::to_string(op_.weights[0].rows));
  }
  void embed_position() const {
    embed_row();
    require(padding_of(op_) < 0 || integer_of(op_, "offset") > 0,
            "offset is 0, but padding takes the row before the first");
  }
  void linear() const {
    matrix(op_.weights[0], op_.width, width_of(0));
    if (op_.weights.size() == 2) vector(op_.weights[1], op_.width);
  }
  void rms_norm() const {
    same_width(0);
    vector(op_.weights[0], divides_width("size"));
  }
  void layer_norm() const {
    same_width(0);
    for (const Tensor& weight : op_.weights) vector(weight, op_.width);
  }
  void activate() const {
    for (std::size_t input = 0; input < op_.inputs.size(); ++input) same_width(input);
    activation_of(op_);
  }
  void add() const {
    same_width(0);
    same_width(1);
  }
  void output_rows() const {
    same_width(0);
    require(!only_outputs(op_.inputs[0]), "output_rows is already applied");
  }
  void rope() const {
    same_width(0);
    all_rows();
    const std::size_t size = divides_width("head_size"), count = op_.frequencies.size();
    require(2 * count <= size, std::to_string(count) + " frequencies turn " +
                                   std::to_string(2 * count) + " columns, a head has " +
                                   std::to_string(size));
  }
  void attention() const {
    same_width(0);
    all_rows();
    heads(divides_width("head_size"));
    const double scale = number_of(op_, "scale");
    require(scale > 0, "scale is " + std::to_string(scale) + ", expected more than 0");
    const std::size_t window = integer_of(op_, "window");
    require(integer_of(op_, "causal") == 1 || window == 0,
            "it is not causal and has a window of " + std::to_string(window) +
                "; a window needs causal attention");
  }
  void heads(std::size_t size) const {
    const std::size_t keys = width_of(1), values = width_of(2), layer = integer_of(op_, "layer");
    require(keys == values, "keys have " + std::to_string(keys) + " columns, values " +
                                std::to_string(values) + ", expected as many");
    require(keys % size == 0 && op_.width % keys == 0,
            "queries have " + std::to_string(op_.width) + " columns and keys " +
                std::to_string(keys) + ", expected multiples of the head size " +
                std::to_string(size) + ", queries a multiple of keys");
    require(layer < layers_.size(), "it uses layer " + std::to_string(layer) +
                                        " of the cache, which has " +
                                        std::to_string(layers_.size()));
    require(layers_[layer].head_size == size && layers_[layer].kv_heads == keys / size,
            "layer " + std::to_string(layer) + " of the cache has heads and sizes " +
                shape(layers_[layer].kv_heads, layers_[layer].head_size) + ", expected " +
                shape(keys / size, size));
  }

  const OpSpec& op_;
  const std::size_t id_;
  const std::vector<PlannedValue>& values_;
  const std::vector<CacheLayer>& layers_;
};

const OpCheck::Kind OpCheck::kKinds[] = {
    {"embed", 0, 1, 1, &OpCheck::embed},
    {"embed_position", 0, 1, 1, &OpCheck::embed_position},
    {"embed_row", 0, 1, 1, &OpCheck::embed_row},
    {"linear", 1, 1, 2, &OpCheck::linear},
    {"rms_norm", 1, 1, 1, &OpCheck::rms_norm},
    {"layer_norm", 1, 2, 2, &OpCheck::layer_norm},
    {"activate", 1, 0, 0, &OpCheck::activate},
    {"gated", 2, 0, 0, &OpCheck::activate},
    {"add", 2, 0, 0, &OpCheck::add},
    {"rope", 1, 0, 0, &OpCheck::rope},
    {"attention", 3, 0, 0, &OpCheck::attention},
    {"output_rows", 1, 0, 0, &OpCheck::output_rows},
};

void OpCheck::run() const {
  require(op_.width > 0 && op_.width <= kLargestWidth, "its width is " + std::to_string(op_.width) +
                                                           ", expected 1 to " +
                                                           std::to_string(kLargestWidth));
  inputs();
  for (const Kind& kind : kKinds)
    if (op_.kind == kind.name) return of_kind(kind);
  throw std::invalid_argument("the operation '" + op_.kind + "' is unknown");
}

}  // namespace

void require_fit(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument("the network is inconsistent: " + message);
}

double number_of(const OpSpec& op, const char* name) {
  const auto found = op.numbers.find(name);
  require_fit(found != op.numbers.end(), op.kind + " has no parameter '" + name + "'");
  return found->second;
}

std::size_t integer_of(const OpSpec& op, const char* name) {
  const double value = number_of(op, name);
  require_fit(value >= 0 && value < 1e9, op.kind + ": " + name + " is " + std::to_string(value) +
                                             ", expected 0 to 999999999");
  return static_cast<std::size_t>(value);
}

std::int32_t padding_of(const OpSpec& op) {
  const double value = number_of(op, "padding");
  require_fit(value >= -1 && value < 1e9, op.kind + ": padding is " + std::to_string(value) +
                                              ", expected a token, or -1 for none");
  return static_cast<std::int32_t>(value);
}

Activation activation_of(const OpSpec& op) {
  if (op.activation == "silu") return Activation::silu;
  if (op.activation == "gelu") return Activation::gelu;
  if (op.activation == "quick_gelu") return Activation::quick_gelu;
  if (op.activation == "relu") return Activation::relu;
  require_fit(op.activation == "gelu_tanh",
              op.kind + ": activation is '" + op.activation +
                  "', expected silu, gelu, gelu_tanh, quick_gelu or relu");
  return Activation::gelu_tanh;
}

void check_op(const OpSpec& op, std::size_t id, const std::vector<PlannedValue>& values,
              const std::vector<CacheLayer>& layers) {
  OpCheck(op, id, values, layers).run();
}

}  // namespace talu
