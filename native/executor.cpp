#include "executor.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>

#include "operations.h"
#include "portable_math.h"

namespace talu {
namespace {

// Rows of a prompt that attend together: enough to reuse the keys and values that they read, few
// enough to keep all threads busy.
constexpr std::size_t kQueryRows = 24;

void require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument(message);
}

}  // namespace

Executor::Executor(const std::vector<OpSpec>& ops, const std::vector<CacheLayer>& layers,
                   int result, std::size_t blocks, std::size_t block_size, int threads,
                   std::string_view kv_dtype, const Kernels& kernels)
    : kernels_(kernels),
      plan_(make_plan(ops, layers, result, kernels)),
      cache_(layers, kv_dtype_named(kernels, kv_dtype), blocks, block_size),
      threads_(threads),
      slots_(plan_.slots.size()),
      values_(plan_.values.size()),
      angles_(plan_.rotations.size()),
      rotations_(plan_.rotations.size()) {}

void Executor::step(const Batch& batch, float* result) {
  const std::lock_guard turn(turn_);
  check(batch);
  find_query_blocks(batch);
  place_values(batch, result);
  turn_angles(batch);
  Step step{};
  step.rows = batch.tokens.size();
  step.output_count = batch.outputs.size();
  step.tokens = batch.tokens.data();
  step.positions = batch.positions.data();
  step.block_tables = batch.block_tables.data();
  step.table_width = batch.table_width;
  step.outputs = batch.outputs.data();
  step.query_blocks = query_blocks_.data();
  step.query_block_count = query_blocks_.size();
  step.values = values_.data();
  step.cache = cache_.view();
  step.rotations = rotations_.data();
  step.threads = threads_;
  const StepSize size = size_of(batch);
  step.scratch_bytes = largest(size, &Operation::scratch);
  step.scratch = scratch_.of(step.scratch_bytes * static_cast<std::size_t>(threads_));
  step.shared_scratch = shared_scratch_.of(largest(size, &Operation::shared_scratch));
  step.quantized = quantized_.of(step.rows * plan_.quantized_bytes);
  if (!seconds_.empty()) return run_timed(step);
  for (const Node& node : plan_.nodes) node.run(node, step);
}

void Executor::run_timed(const Step& step) {
  auto before = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < plan_.nodes.size(); ++i) {
    plan_.nodes[i].run(plan_.nodes[i], step);
    const auto after = std::chrono::steady_clock::now();
    seconds_[i] += std::chrono::duration<double>(after - before).count();
    before = after;
  }
}

void Executor::read_blocks(const std::vector<std::int32_t>& blocks, std::byte* to) {
  const std::lock_guard turn(turn_);
  for (const std::int32_t number : blocks) {
    std::memcpy(to, block(number), block_bytes());
    to += block_bytes();
  }
}

void Executor::write_blocks(const std::vector<std::int32_t>& blocks, const std::byte* from) {
  const std::lock_guard turn(turn_);
  for (const std::int32_t number : blocks) {
    std::memcpy(block(number), from, block_bytes());
    from += block_bytes();
  }
}

std::byte* Executor::block(std::int32_t number) const {
  require(number >= 0 && static_cast<std::size_t>(number) < cache_.blocks(),
          "there is no cache block " + std::to_string(number));
  return cache_.view().data + static_cast<std::size_t>(number) * block_bytes();
}

void Executor::start_timing() {
  const std::lock_guard turn(turn_);
  seconds_.assign(plan_.nodes.size(), 0.0);
}

std::vector<std::pair<std::vector<int>, double>> Executor::times() {
  const std::lock_guard turn(turn_);
  std::vector<std::pair<std::vector<int>, double>> times;
  for (std::size_t i = 0; i < seconds_.size(); ++i)
    times.emplace_back(plan_.recorded[i], seconds_[i]);
  return times;
}

void Executor::check(const Batch& batch) const {
  const std::size_t rows = batch.tokens.size();
  require(batch.positions.size() == rows, "step: tokens and positions differ in length");
  require(!batch.row_starts.empty() && batch.row_starts.size() - 1 == batch.sequences,
          "step: row_starts must have one number more than block_tables has rows");
  require(batch.sequences == 0 ||
              (batch.block_tables.size() % batch.sequences == 0 &&
               batch.block_tables.size() / batch.sequences == batch.table_width),
          "step: block_tables must have table_width numbers for each sequence");
  require(batch.row_starts.front() == 0 &&
              static_cast<std::size_t>(batch.row_starts.back()) == rows,
          "step: row_starts must begin with 0 and end with the number of rows");
  for (const std::int32_t token : batch.tokens)
    require(token >= 0 && static_cast<std::size_t>(token) < plan_.vocabulary,
            "step: token " + std::to_string(token) + " is not in the vocabulary");
  for (std::size_t sequence = 0; sequence < batch.sequences; ++sequence)
    check_sequence(batch, sequence);
  std::int64_t last = -1;
  for (const std::int32_t output : batch.outputs) {
    require(output > last && static_cast<std::size_t>(output) < rows,
            "step: outputs must be ascending numbers of rows");
    last = output;
  }
}

void Executor::check_sequence(const Batch& batch, std::size_t sequence) const {
  const std::string where = "step: sequence " + std::to_string(sequence);
  const std::int32_t first = batch.row_starts[sequence], last = batch.row_starts[sequence + 1];
  // If the starts ascend, the last one, which has been checked, bounds them all.
  require(first <= last && static_cast<std::size_t>(last) <= batch.tokens.size(),
          where + ": row_starts must be ascending");
  if (first == last) return;
  const std::span positions(batch.positions.data() + first, static_cast<std::size_t>(last - first));
  for (std::size_t i = 0; i < positions.size(); ++i)
    require(positions[i] >= 0 && static_cast<std::size_t>(positions[i]) == positions[0] + i,
            where + ": positions must be consecutive numbers from 0 or above");
  const auto begin = static_cast<std::size_t>(positions.front());
  require(plan_.causal || begin == 0, where + ": every row attends to all others, so the step must "
                                              "have the sequence from position 0 on");
  require(static_cast<std::size_t>(positions.back()) < plan_.positions,
          where + ": the model has no position " + std::to_string(positions.back()));
  const std::size_t from = plan_.reach == 0 || begin < plan_.reach ? 0 : begin + 1 - plan_.reach;
  const std::size_t last_block = positions.back() / cache_.block_size();
  require(last_block < batch.table_width, where + ": its block table is too short");
  for (std::size_t i = from / cache_.block_size(); i <= last_block; ++i) {
    const std::int32_t block = batch.block_tables[sequence * batch.table_width + i];
    require(block >= 0 && static_cast<std::size_t>(block) < cache_.blocks(),
            where + ": there is no cache block " + std::to_string(block));
  }
}

void Executor::find_query_blocks(const Batch& batch) {
  query_blocks_.clear();
  for (std::size_t sequence = 0; sequence < batch.sequences; ++sequence) {
    const auto last = static_cast<std::size_t>(batch.row_starts[sequence + 1]);
    for (auto first = static_cast<std::size_t>(batch.row_starts[sequence]); first < last;
         first += kQueryRows) {
      const auto positions = static_cast<std::size_t>(batch.positions[last - 1]) + 1;
      query_blocks_.push_back({sequence, first, std::min(last, first + kQueryRows), positions});
    }
  }
}

void Executor::place_values(const Batch& batch, float* result) {
  const std::size_t rows = batch.tokens.size();
  for (std::size_t slot = 0; slot < slots_.size(); ++slot)
    slots_[slot].floats(rows * plan_.slots[slot]);
  for (std::size_t id = 0; id < values_.size(); ++id) {
    const PlannedValue& planned = plan_.values[id];
    Value& value = values_[id];
    value.width = planned.width;
    value.rows = planned.only_outputs ? batch.outputs.size() : rows;
    value.stride = stride_of(planned.width);
    if (planned.slot >= 0)
      value.data = slots_[planned.slot].floats(rows * plan_.slots[planned.slot]);
    if (planned.slot != kResultSlot) continue;
    value.data = result;
    value.stride = planned.width;
  }
}

void Executor::turn_angles(const Batch& batch) {
  const std::size_t rows = batch.tokens.size();
  for (std::size_t i = 0; i < rotations_.size(); ++i) {
    const std::vector<float>& frequencies = plan_.rotations[i];
    const std::size_t count = frequencies.size();
    float* const cosines = angles_[i].floats(2 * rows * count);
    float* const sines = cosines + rows * count;
    for (std::size_t row = 0; row < rows; ++row) {
      float* const angles = cosines + row * count;  // replaced one by one
      for (std::size_t c = 0; c < count; ++c)
        angles[c] = static_cast<float>(batch.positions[row]) * frequencies[c];
      cosines_and_sines(angles, count, angles, sines + row * count);
    }
    rotations_[i] = {count, cosines, sines};
  }
}

StepSize Executor::size_of(const Batch& batch) const {
  StepSize size{batch.tokens.size(), 0, 0};
  for (const QueryBlock& rows : query_blocks_) {
    size.positions = std::max(size.positions, rows.positions);
    size.block_rows = std::max(size.block_rows, rows.last - rows.first);
  }
  return size;
}

// The scratch memory that any operation needs, in whole cache lines.
std::size_t Executor::largest(const StepSize& size, Operation::Scratch scratch) const {
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < plan_.nodes.size(); ++i)
    bytes = std::max(bytes, (plan_.operations[i]->*scratch)(plan_.nodes[i], size));
  return (bytes + 127) / 128 * 128;
}

}  // namespace talu
