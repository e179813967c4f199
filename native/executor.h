// Runs a planned network for a batch of rows.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "kv_cache.h"
#include "memory.h"
#include "operations.h"
#include "plan.h"

namespace talu {

// The input of one step; see protocols.Executor. It is validated before it is used.
struct Batch {
  std::vector<std::int32_t> tokens, positions, row_starts;
  std::vector<std::int32_t> block_tables;  // (sequences, table_width)
  std::size_t sequences, table_width;
  std::vector<std::int32_t> outputs;
};

class Executor {
 public:
  Executor(const std::vector<OpSpec>& ops, const std::vector<CacheLayer>& layers, int result,
           std::size_t blocks, std::size_t block_size, int threads, std::string_view kv_dtype,
           const Kernels& kernels);

  std::size_t result_width() const { return plan_.values[plan_.result].width; }
  int threads() const { return threads_; }
  const Kernels& kernels() const { return kernels_; }

  // Writes (outputs, result_width) floats. Throws std::invalid_argument for a batch that is not
  // consistent or names tokens, blocks or rows that do not exist; nothing is written then.
  // Concurrent calls run one at a time.
  void step(const Batch& batch, float* result);

  // Bytes of a block of the cache: keys and values of all layers.
  std::size_t block_bytes() const { return cache_.view().block_bytes; }
  // Copy the bytes of blocks, one after the other. Throw std::invalid_argument for a block that
  // does not exist. They wait for a running step.
  void read_blocks(const std::vector<std::int32_t>& blocks, std::byte* to);
  void write_blocks(const std::vector<std::int32_t>& blocks, const std::byte* from);

  // Measures the operations of all steps from now on.
  void start_timing();
  // The seconds that each node of the plan took in them, and the recorded operations that it
  // computes. Empty if nothing is measured.
  std::vector<std::pair<std::vector<int>, double>> times();

 private:
  void run_timed(const Step& step);
  void check(const Batch& batch) const;
  std::byte* block(std::int32_t number) const;
  void check_sequence(const Batch& batch, std::size_t sequence) const;
  void find_query_blocks(const Batch& batch);
  void place_values(const Batch& batch, float* result);
  void turn_angles(const Batch& batch);
  StepSize size_of(const Batch& batch) const;
  std::size_t largest(const StepSize& size, Operation::Scratch scratch) const;

  const Kernels& kernels_;
  const Plan plan_;
  const KvCache cache_;
  const int threads_;
  std::mutex turn_;
  std::vector<Memory> slots_;
  std::vector<Value> values_;
  std::vector<Memory> angles_;
  std::vector<Rotation> rotations_;
  std::vector<QueryBlock> query_blocks_;
  Memory scratch_, shared_scratch_, quantized_;
  std::vector<double> seconds_;  // of each node, if they are measured
};

}  // namespace talu
