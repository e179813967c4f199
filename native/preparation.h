// Checks one recorded operation and reads its parameters, for the descriptions in ops/.
#pragma once
#include <set>
#include <string>
#include <vector>

#include "plan.h"

namespace talu {

// Throws std::invalid_argument, with a message that names the network, unless `condition` holds.
void require_fit(bool condition, const std::string& message);

// All members throw std::invalid_argument, with the actual and the expected value, if the operation
// is not as they say.
class Preparation {
 public:
  // `plan` has the values of the operations before number `id`, and learns what it needs of a step.
  Preparation(const OpSpec& op, std::size_t id, const std::vector<CacheLayer>& layers, Plan& plan);

  // How many values and weights it reads. Comes before all that asks for them.
  void reads(std::size_t inputs, std::size_t fewest_weights, std::size_t most_weights) const;
  void reads(std::size_t inputs, std::size_t weights) const { reads(inputs, weights, weights); }
  std::size_t weights() const { return op_.weights.size(); }
  std::size_t rows_of(std::size_t weight) const { return op_.weights[weight].rows; }
  std::size_t width() const { return op_.width; }
  std::size_t width_of(std::size_t input) const;
  void same_width(std::size_t input) const;
  void all_rows() const;  // not only the output rows
  void matrix(std::size_t weight, std::size_t rows, std::size_t columns) const;
  void vector(std::size_t weight, std::size_t length) const;
  void require(bool condition, const std::string& message) const;
  const PlannedValue& result() const { return result_; }

  // Its parameters by name. One that nobody reads is an error.
  double number(const char* name);
  std::size_t integer(const char* name);  // 0 to 999,999,999
  std::int32_t token(const char* name);   // or -1 for none
  const std::string& text(const char* name);
  const std::vector<float>& numbers(const char* name);
  Activation activation(const char* name);
  std::size_t divides_width(const char* name);
  void all_parameters_are_read() const;

  // What it needs of a step.
  void tokens_below(std::size_t count);
  void positions_below(std::size_t count);
  void whole_sequences();
  void reads_back(std::size_t window);  // positions; 0 for all
  void output_rows();                   // its result has only these
  std::size_t rotation(const std::vector<float>& frequencies);  // the number of a table of angles
  void cache_layer(std::size_t layer, std::size_t kv_heads, std::size_t head_size) const;

 private:
  const Parameter& parameter(const char* name);
  bool only_outputs(int value) const;

  const OpSpec& op_;
  const std::size_t id_;
  const std::vector<CacheLayer>& layers_;
  Plan& plan_;
  std::set<std::string> read_;
  PlannedValue result_;
};

// "(rows, columns)".
std::string shape_text(std::size_t rows, std::size_t columns);

}  // namespace talu
