// Plans small random networks, and runs steps of those that are accepted. Most operations fit what
// they read; now and then a number is hostile.
#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>

#include "executor.h"
#include "input.h"
#include "packing.h"

using namespace talu;

namespace {

class Network {
 public:
  explicit Network(Input& input) : input_(input) {
    for (int i = input.number(0, 2); i >= 0; --i)
      layers.push_back({input.number<std::size_t>(1, 3), input.one_of<std::size_t>({1, 4, 12, 16, 20})});
    vocabulary = input.number(1, 40);
    for (int i = input.number(1, 2); i > 0; --i) embed();
    for (int i = input.number(0, 10); i > 0; --i) add_any();
    const int all_rows = any();
    const int outputs = add({"output_rows", {all_rows}, {}, width(all_rows), {}});
    result = input.flip() ? outputs : linear(outputs, any_width());
    if (input.rarely()) result = input.number<int>(-1, static_cast<int>(ops.size()));
  }

  std::vector<OpSpec> ops;
  std::vector<CacheLayer> layers;
  std::int32_t vocabulary;
  int result;

  // The same network, for another target: its formats are in the same places of the lists.
  std::vector<OpSpec> for_target(const Kernels& kernels) const {
    std::vector<OpSpec> other = ops;
    for (OpSpec& op : other)
      for (Tensor& weight : op.weights)
        if (weight.format != nullptr)
          weight.format = kernels.formats.items + (weight.format - formats().items);
    return other;
  }

 private:
  static const List<Format>& formats() { return targets().front()->formats; }

  std::size_t any_width() {
    return input_.one_of<std::size_t>({1, 3, 16, 20, 32, 40, 64, 100, 128, 256});
  }
  // A value, or sometimes the number of none.
  int any() {
    const int count = static_cast<int>(ops.size());
    return input_.rarely() ? input_.one_of({-1, count}) : input_.number(0, std::max(count - 1, 0));
  }
  // Of a value; a small number also where it does not exist or is too wide.
  std::size_t width(int value) const {
    if (value < 0 || value >= static_cast<int>(ops.size())) return 1;
    return std::min<std::size_t>(ops[static_cast<std::size_t>(value)].width, 300);
  }

  // Records an operation; sometimes changes it before.
  int add(OpSpec op) {
    if (input_.rarely()) op.width = input_.flip() ? any_width() : input_.number<std::size_t>(0, SIZE_MAX);
    if (input_.rarely() && !op.inputs.empty()) op.inputs.back() = any();
    if (input_.rarely()) op.inputs.push_back(any());
    if (input_.rarely() && !op.weights.empty()) op.weights.pop_back();
    if (input_.rarely()) op.weights.push_back(vector(any_width()));
    for (auto& [name, value] : op.parameters)
      if (input_.rarely()) value = input_.hostile();
    if (input_.rarely()) op.parameters["surplus"] = 0.0;
    ops.push_back(std::move(op));
    return static_cast<int>(ops.size()) - 1;
  }

  Tensor vector(std::size_t length) {
    floats_.emplace_back(length);
    input_.fill(floats_.back());
    return {nullptr, length, 0, reinterpret_cast<const std::byte*>(floats_.back().data())};
  }
  Tensor matrix(std::size_t rows, std::size_t columns) {
    const Format* format = &formats().items[input_.number<std::size_t>(0, formats().count - 1)];
    if (columns % std::max(format->multiple, format->source_columns) != 0 && !input_.rarely())
      format = &formats().items[input_.number<std::size_t>(0, 3)];  // of any number of columns
    bytes_.emplace_back(packed_bytes(*format, rows, columns));
    Buffer<float> floats(rows * columns);
    Buffer<std::byte> source(rows * columns / format->source_columns * format->source_bytes);
    if (format->source_bytes == sizeof(float)) {
      input_.fill(floats);
      std::memcpy(source.data(), floats.data(), source.size());
    } else {
      input_.fill(source);
    }
    if (format->choose != nullptr)
      choose(*format, floats.data(), rows, columns, nullptr, bytes_.back().data(), 1);
    else
      pack(*format, source.data(), rows, columns, bytes_.back().data(), 1);
    return {format, rows, columns, bytes_.back().data()};
  }

  int embed() {
    const std::size_t columns = any_width();
    const std::size_t rows = static_cast<std::size_t>(vocabulary) + input_.number<std::size_t>(0, 3);
    const double offset = input_.number(0, 3);
    const double padding = offset == 0 && !input_.rarely() ? -1 : input_.number(-1, 3);
    switch (input_.number(0, 3)) {
      case 0:
        return add({"embed_row", {}, {matrix(rows, columns)}, columns, {{"offset", offset}}});
      case 1:
        return add({"embed_position", {}, {matrix(rows + 60, columns)}, columns,
                    {{"offset", offset}, {"padding", padding}}});
      default:
        return add({"embed", {}, {matrix(rows, columns)}, columns, {}});
    }
  }
  int linear(int from, std::size_t columns) {
    std::vector<Tensor> weights = {matrix(columns, width(from))};
    if (input_.flip()) weights.push_back(vector(columns));
    return add({"linear", {from}, weights, columns, {}});
  }
  // A value of this width.
  int wide(std::size_t columns) {
    const int from = any();
    return width(from) == columns ? from : linear(from, columns);
  }

  void attention() {
    const std::size_t layer = input_.number<std::size_t>(0, layers.size() - 1);
    const auto [heads, size] = layers[layer];
    const std::size_t queries = heads * size * input_.number<std::size_t>(1, 3);
    const bool causal = input_.number(0, 3) > 0;
    const double window = causal && input_.flip() ? input_.number(1, 40) : 0;
    const std::vector<int> inputs = {wide(queries), wide(heads * size), wide(heads * size)};
    add({"attention", inputs, {}, queries,
         {{"head_size", double(size)}, {"layer", double(layer)}, {"scale", 0.25},
          {"soft_cap", input_.flip() ? 0.0 : 20.0}, {"window", window},
          {"causal", causal ? 1.0 : 0.0}}});
  }
  void rope(int from) {
    const std::size_t columns = width(from), heads = columns % 4 == 0 ? 4 : 1;
    Buffer<float> numbers(input_.number<std::size_t>(0, columns / heads / 2 + input_.rarely()));
    input_.fill(numbers);
    add({"rope", {from}, {}, columns,
         {{"head_size", double(columns / heads)},
          {"frequencies", std::vector<float>(numbers.begin(), numbers.end())}}});
  }

  void add_any() {
    const int from = any();
    const std::size_t columns = width(from);
    const std::string activation =
        input_.rarely() ? "none" : input_.one_of({"silu", "gelu", "gelu_tanh", "quick_gelu", "relu"});
    if (input_.rarely()) return void(add({"unknown", {from}, {}, columns, {}}));
    switch (input_.number(0, 11)) {
      case 0: return void(embed());
      case 1: return attention();
      case 2: return rope(from);
      case 3: return void(add({"activate", {from}, {}, columns, {{"activation", activation}}}));
      case 4: return void(add({"gated", {from, wide(columns)}, {}, columns, {{"activation", activation}}}));
      case 5:
        return void(add({"layer_norm", {from}, {vector(columns), vector(columns)}, columns,
                         {{"eps", 1e-5}}}));
      case 6:
        return void(add({"rms_norm", {from}, {vector(columns)}, columns,
                         {{"size", double(columns)}, {"eps", 1e-6}, {"offset", 1.0}}}));
      case 7: return void(add({"scale", {from}, {}, columns, {{"factor", input_.hostile()}}}));
      case 8: return void(add({"soft_cap", {from}, {}, columns, {{"cap", 30.0}}}));
      case 9: return void(add({"add", {from, wide(columns)}, {}, columns, {}}));
      case 10:
        if (columns == 64 || columns == 128 || input_.rarely())
          add({"gram", {from}, {vector(columns * columns)}, columns,
               {{"rotated", double(input_.flip())}}});
        return;
      default: return void(linear(from, any_width()));
    }
  }

  Input& input_;
  std::vector<Buffer<float>> floats_;
  std::vector<Buffer<std::byte>> bytes_;
};

// Sequences that continue where they are, mostly in blocks that exist.
Batch batch_of(Input& input, std::int32_t vocabulary, std::int32_t blocks, std::int32_t block_size) {
  Batch batch;
  batch.sequences = input.number<std::size_t>(0, 3);
  batch.table_width = input.number<std::size_t>(1, 5);
  batch.row_starts.push_back(0);
  const auto hostile = [&](std::int32_t value) {
    return input.rarely() ? input.number(INT32_MIN, INT32_MAX) : value;
  };
  const bool whole = input.flip();  // sequences from the beginning, which some networks need
  const auto room = static_cast<std::int32_t>(batch.table_width) * block_size;
  for (std::size_t sequence = 0; sequence < batch.sequences; ++sequence) {
    const std::int32_t start = whole || input.flip() ? 0 : hostile(input.number(0, room));
    const std::int32_t most = input.one_of({1, 30, 110});
    const std::int32_t rows = input.number(0, std::clamp(room - std::max(start, 0), 0, most));
    for (std::int32_t i = 0; i < rows; ++i) {
      batch.tokens.push_back(hostile(input.number(0, vocabulary - 1)));
      batch.positions.push_back(start > INT32_MAX - rows ? start : start + i);
    }
    batch.row_starts.push_back(hostile(static_cast<std::int32_t>(batch.tokens.size())));
  }
  for (std::size_t i = 0; i < batch.sequences * batch.table_width; ++i)
    batch.block_tables.push_back(hostile(input.number(0, blocks - 1)));
  for (std::size_t row = 0; row < batch.tokens.size(); ++row)
    if (input.flip()) batch.outputs.push_back(hostile(static_cast<std::int32_t>(row)));
  if (input.rarely()) batch.sequences = input.number<std::size_t>(0, SIZE_MAX);
  if (input.rarely()) batch.table_width = input.number<std::size_t>(0, SIZE_MAX);
  if (input.rarely()) batch.positions.push_back(0);
  if (input.rarely()) batch.row_starts.pop_back();
  return batch;
}

void run(Input& input) {
  const Network network(input);
  const std::int32_t blocks = input.number(1, 8), block_size = input.one_of({16, 32, 48}) - input.rarely();
  const std::string kv_dtype = input.one_of({"f16", "bf16", "f32", "q8"});
  std::vector<std::unique_ptr<Executor>> executors;
  for (const Kernels* kernels : targets())
    executors.push_back(std::make_unique<Executor>(
        network.for_target(*kernels), network.layers, network.result, blocks, block_size, 1,
        kv_dtype, *kernels));
  for (int steps = input.number(1, 3); steps > 0; --steps) {
    const Batch batch = batch_of(input, network.vocabulary, blocks, block_size);
    std::vector<Buffer<float>> results;
    for (const auto& executor : executors) {
      results.emplace_back(batch.outputs.size() * executor->result_width());
      executor->step(batch, results.back().data());
    }
    CHECK(same(results.front(), results.back()));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  try {
    run(input);
  } catch (const std::invalid_argument&) {
  }
  return 0;
}
