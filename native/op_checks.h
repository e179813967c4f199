// Validates a recorded operation: its inputs, its weights and their shapes.
#pragma once
#include <string>
#include <vector>

#include "plan.h"

namespace talu {

// Throws std::invalid_argument, with a message that names the network, unless `condition` holds.
void require_fit(bool condition, const std::string& message);

// Parameters of an operation; std::invalid_argument if one is missing or out of range.
double number_of(const OpSpec& op, const char* name);
std::size_t integer_of(const OpSpec& op, const char* name);
std::int32_t padding_of(const OpSpec& op);
Activation activation_of(const OpSpec& op);

// Checks operation number `id`; `values` are those of the operations before it. Throws
// std::invalid_argument with the actual and expected value.
void check_op(const OpSpec& op, std::size_t id, const std::vector<PlannedValue>& values,
              const std::vector<CacheLayer>& layers);

}  // namespace talu
