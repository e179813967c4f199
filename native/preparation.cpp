#include "preparation.h"

#include <algorithm>
#include <stdexcept>

namespace talu {
namespace {

constexpr std::size_t kLargestWidth = (std::size_t{1} << 24) - 1;

}  // namespace

std::string shape_text(std::size_t rows, std::size_t columns) {
  std::string text = "(";
  return text.append(std::to_string(rows)).append(", ").append(std::to_string(columns)) + ")";
}

void require_fit(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument("the network is inconsistent: " + message);
}

Preparation::Preparation(const OpSpec& op, std::size_t id, const std::vector<CacheLayer>& layers,
                         Plan& plan)
    : op_(op), id_(id), layers_(layers), plan_(plan) {
  require(op.width > 0 && op.width <= kLargestWidth, "its width is " + std::to_string(op.width) +
                                                         ", expected 1 to " +
                                                         std::to_string(kLargestWidth));
  for (const int input : op.inputs) {
    require(input >= 0 && static_cast<std::size_t>(input) < id,
            "it reads value " + std::to_string(input) + ", which does not exist yet");
    require(only_outputs(input) == only_outputs(op.inputs[0]),
            "it reads all rows of one value and only the output rows of another");
  }
  result_.width = op.width;
  result_.only_outputs = !op.inputs.empty() && only_outputs(op.inputs[0]);
}

void Preparation::require(bool condition, const std::string& message) const {
  if (!condition)
    require_fit(false, op_.kind + " (operation " + std::to_string(id_) + "): " + message);
}

bool Preparation::only_outputs(int value) const {
  return plan_.values[static_cast<std::size_t>(value)].only_outputs;
}

void Preparation::reads(std::size_t inputs, std::size_t fewest_weights,
                        std::size_t most_weights) const {
  require(op_.inputs.size() == inputs, "it reads " + std::to_string(op_.inputs.size()) +
                                           " values, expected " + std::to_string(inputs));
  require(op_.weights.size() >= fewest_weights && op_.weights.size() <= most_weights,
          "it has " + std::to_string(op_.weights.size()) + " weights, expected " +
              std::to_string(fewest_weights) + " to " + std::to_string(most_weights));
}

std::size_t Preparation::width_of(std::size_t input) const {
  return plan_.values[static_cast<std::size_t>(op_.inputs[input])].width;
}

void Preparation::same_width(std::size_t input) const {
  require(width_of(input) == op_.width, "its input has " + std::to_string(width_of(input)) +
                                            " columns, its result " + std::to_string(op_.width));
}

void Preparation::all_rows() const {
  require(!only_outputs(op_.inputs[0]), "it needs all rows, and its input has the output rows");
}

void Preparation::matrix(std::size_t weight, std::size_t rows, std::size_t columns) const {
  const Tensor& found = op_.weights[weight];
  require(found.format != nullptr, "a weight is a vector, expected a matrix");
  require(found.rows == rows && found.columns == columns,
          "a weight has the shape " + shape_text(found.rows, found.columns) + ", expected " +
              shape_text(rows, columns));
}

void Preparation::vector(std::size_t weight, std::size_t length) const {
  const Tensor& found = op_.weights[weight];
  require(found.format == nullptr, "a weight is a matrix, expected a vector");
  require(found.rows == length, "a vector has " + std::to_string(found.rows) +
                                    " numbers, expected " + std::to_string(length));
}

const Parameter& Preparation::parameter(const char* name) {
  const auto found = op_.parameters.find(name);
  require_fit(found != op_.parameters.end(), op_.kind + " has no parameter '" + name + "'");
  read_.insert(name);
  return found->second;
}

double Preparation::number(const char* name) {
  const auto* const found = std::get_if<double>(&parameter(name));
  require(found != nullptr, std::string(name) + " is not a number");
  return *found;
}

std::size_t Preparation::integer(const char* name) {
  const double value = number(name);
  require_fit(value >= 0 && value < 1e9, op_.kind + ": " + name + " is " + std::to_string(value) +
                                             ", expected 0 to 999999999");
  return static_cast<std::size_t>(value);
}

std::int32_t Preparation::token(const char* name) {
  const double value = number(name);
  require_fit(value >= -1 && value < 1e9, op_.kind + ": " + name + " is " + std::to_string(value) +
                                              ", expected a token, or -1 for none");
  return static_cast<std::int32_t>(value);
}

const std::string& Preparation::text(const char* name) {
  const auto* const found = std::get_if<std::string>(&parameter(name));
  require(found != nullptr, std::string(name) + " is not a name");
  return *found;
}

const std::vector<float>& Preparation::numbers(const char* name) {
  const auto* const found = std::get_if<std::vector<float>>(&parameter(name));
  require(found != nullptr, std::string(name) + " is not a float32 vector");
  return *found;
}

Activation Preparation::activation(const char* name) {
  const std::string& found = text(name);
  if (found == "silu") return Activation::silu;
  if (found == "gelu") return Activation::gelu;
  if (found == "quick_gelu") return Activation::quick_gelu;
  if (found == "relu") return Activation::relu;
  require_fit(found == "gelu_tanh", op_.kind + ": " + name + " is '" + found +
                                        "', expected silu, gelu, gelu_tanh, quick_gelu or relu");
  return Activation::gelu_tanh;
}

std::size_t Preparation::divides_width(const char* name) {
  const std::size_t size = integer(name);
  require(size > 0 && op_.width % size == 0,
          "its width " + std::to_string(op_.width) + " is not a multiple of " + name + " " +
              std::to_string(size));
  return size;
}

void Preparation::all_parameters_are_read() const {
  for (const auto& [name, value] : op_.parameters)
    require(read_.contains(name), "the parameter '" + name + "' is unknown");
}

void Preparation::tokens_below(std::size_t count) {
  plan_.vocabulary = std::min(plan_.vocabulary, count);
}

void Preparation::positions_below(std::size_t count) {
  plan_.positions = std::min(plan_.positions, count);
}

void Preparation::whole_sequences() { plan_.causal = false; }

void Preparation::reads_back(std::size_t window) {
  const bool all = window == 0 || (plan_.attends && plan_.reach == 0);
  plan_.reach = all ? 0 : std::max(plan_.reach, window);
  plan_.attends = true;
}

void Preparation::output_rows() {
  require(!result_.only_outputs, "output_rows is already applied");
  result_.only_outputs = true;
}

std::size_t Preparation::rotation(const std::vector<float>& frequencies) {
  auto& known = plan_.rotations;
  const auto found = std::find(known.begin(), known.end(), frequencies);
  const auto number = static_cast<std::size_t>(found - known.begin());
  if (found == known.end()) known.push_back(frequencies);
  return number;
}

void Preparation::cache_layer(std::size_t layer, std::size_t kv_heads,
                              std::size_t head_size) const {
  require(layer < layers_.size(), "it uses layer " + std::to_string(layer) +
                                      " of the cache, which has " +
                                      std::to_string(layers_.size()));
  require(layers_[layer].head_size == head_size && layers_[layer].kv_heads == kv_heads,
          "layer " + std::to_string(layer) + " of the cache has heads and sizes " +
              shape_text(layers_[layer].kv_heads, layers_[layer].head_size) + ", expected " +
              shape_text(kv_heads, head_size));
}

}  // namespace talu
