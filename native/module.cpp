// Python bindings of the native module: checks shapes and manages lifetimes and the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "ceilings.h"
#include "dispatch.h"
#include "executor.h"
#include "packing.h"
#include "threads.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace talu {
namespace {

using Matrix = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ReadOnlyBytes = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::vector<std::string> format_names() {
  std::vector<std::string> names;
  for (const Format& format : chosen_target().formats)
    if (format.source_columns == 1 && format.choose == nullptr) names.emplace_back(format.name);
  return names;
}

nb::dict rotated_formats() {
  nb::dict formats;
  for (const Format& format : chosen_target().formats)
    if (format.choose != nullptr) formats[format.name] = format.multiple;
  return formats;
}

nb::dict encoded_formats() {
  nb::dict formats;
  for (const Format& format : chosen_target().formats)
    if (format.encode != nullptr)
      formats[format.name] = nb::make_tuple(format.source_columns, format.source_bytes);
  return formats;
}

nb::dict block_formats() {
  nb::dict formats;
  for (const Format& format : chosen_target().formats)
    if (format.source_columns > 1)
      formats[format.name] = nb::make_tuple(format.source_columns, format.source_bytes);
  return formats;
}

std::vector<std::string> target_names() {
  std::vector<std::string> names;
  for (const Kernels* target : supported_targets()) names.emplace_back(target->name);
  return names;
}

void return_free_memory() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

int threads_or_all(int requested) {
  if (requested < 0) throw std::invalid_argument("num_threads must not be negative");
  const int available = available_threads();
  const int threads = requested == 0 || requested > available ? available : requested;
  return threads > 1 ? std::min(threads, pool_threads()) : threads;
}

void check_packed(const Format& format, std::size_t rows, std::size_t columns, std::size_t bytes,
                  const void* data) {
  const std::size_t expected = packed_bytes(format, rows, columns);
  if (bytes != expected)
    throw std::invalid_argument("a packed " + std::string(format.name) + " matrix of shape (" +
                                std::to_string(rows) + ", " + std::to_string(columns) +
                                ") has " + std::to_string(expected) + " bytes, not " +
                                std::to_string(bytes));
  if (bytes != 0 && reinterpret_cast<std::uintptr_t>(data) % 64 != 0)
    throw std::invalid_argument("packed bytes must begin at a multiple of 64");
}

// The type of a source's elements, and its name.
std::pair<nb::dlpack::dtype, const char*> source_type(const Format& format) {
  if (format.source_columns > 1) return {nb::dtype<std::uint8_t>(), "uint8"};
  if (format.source_bytes == 4) return {nb::dtype<float>(), "float32"};
  return {nb::dtype<std::uint16_t>(), "uint16"};
}

void pack_matrix(const std::string& format_name, const Matrix& source, const Bytes& out,
                 int num_threads, const std::string& target) {
  const Format& format = format_named(target_named(target), format_name);
  const auto [expected, type_name] = source_type(format);
  if (source.dtype() != expected)
    throw std::invalid_argument(format_name + " is packed from an array of " + type_name);
  const std::size_t row_bytes = source.shape(1) * expected.bits / 8;
  if (row_bytes % format.source_bytes != 0)
    throw std::invalid_argument("a row of " + std::to_string(row_bytes) + " bytes has no whole " +
                                "number of blocks of " + format_name + ", " +
                                std::to_string(format.source_bytes) + " bytes each");
  const std::size_t columns = row_bytes / format.source_bytes * format.source_columns;
  check_packed(format, source.shape(0), columns, out.size(), out.data());
  const int threads = threads_or_all(num_threads);
  const nb::gil_scoped_release released;
  pack(format, source.data(), source.shape(0), columns, out.data(), threads);
}

// A float matrix that Python owns: an array of NumPy, or a memoryview, which does not load NumPy.
template <class Kind>
nb::ndarray<Kind, float, nb::ndim<2>> new_matrix(std::size_t rows, std::size_t columns) {
  auto data = std::make_unique_for_overwrite<float[]>(rows * columns);
  nb::capsule owner(data.get(), [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return {data.release(), {rows, columns}, owner};
}

nb::ndarray<nb::numpy, float, nb::ndim<2>> unpack_matrix(const std::string& format_name,
                                                         const ReadOnlyBytes& packed,
                                                         std::size_t rows, std::size_t columns,
                                                         const std::string& target) {
  const Format& format = format_named(target_named(target), format_name);
  check_packed(format, rows, columns, packed.size(), packed.data());
  auto out = new_matrix<nb::numpy>(rows, columns);
  const nb::gil_scoped_release released;
  unpack(format, packed.data(), rows, columns, out.data());
  return out;
}

using Square = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void check_square(const char* what, std::size_t rows, std::size_t columns, std::size_t expected) {
  if (rows != expected || columns != expected)
    throw std::invalid_argument(std::string(what) + " has the shape (" + std::to_string(rows) + ", " +
                                std::to_string(columns) + "), expected (" +
                                std::to_string(expected) + ", " + std::to_string(expected) + ")");
}

void choose_codes(const std::string& format_name, const Floats& source, const Bytes& out,
                  const std::optional<Floats>& factor, int num_threads, const std::string& target) {
  const Format& format = format_named(target_named(target), format_name);
  const std::size_t rows = source.shape(0), columns = source.shape(1);
  check_packed(format, rows, columns, out.size(), out.data());
  if (factor) check_square("the factor", factor->shape(0), factor->shape(1), columns);
  const float* const factors = factor ? factor->data() : nullptr;
  const int threads = threads_or_all(num_threads);
  const nb::gil_scoped_release released;
  choose(format, source.data(), rows, columns, factors, out.data(), threads);
}

void encode_rows(const std::string& format_name, const Floats& source, const Bytes& out,
                 const std::optional<Floats>& factor, int num_threads, const std::string& target) {
  const Format& format = format_named(target_named(target), format_name);
  const std::size_t rows = source.shape(0), columns = source.shape(1);
  const std::size_t expected = encoded_bytes(format, rows, columns);
  if (out.size() != expected)
    throw std::invalid_argument("the encoded rows have " + std::to_string(expected) +
                                " bytes, not " + std::to_string(out.size()));
  if (factor) check_square("the factor", factor->shape(0), factor->shape(1), columns);
  const float* const factors = factor ? factor->data() : nullptr;
  const int threads = threads_or_all(num_threads);
  const nb::gil_scoped_release released;
  encode(format, source.data(), rows, columns, factors, out.data(), threads);
}

bool factorize_matrix(const Square& matrix, int num_threads, const std::string& target) {
  const Kernels& kernels = target_named(target);
  const std::size_t columns = matrix.shape(1);
  check_square("the matrix", matrix.shape(0), columns, columns);
  const int threads = threads_or_all(num_threads);
  const nb::gil_scoped_release released;
  return factorize(kernels, matrix.data(), columns, threads);
}

using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Integers = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const std::int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <class Array>
std::vector<std::int32_t> copy_of(const Array& array) {
  return {array.data(), array.data() + array.size()};
}

// An executor together with the arrays that it reads from.
struct Running {
  std::vector<nb::object> arrays;
  std::unique_ptr<Executor> executor;
};

// Converts a Python value, or throws a TypeError that names the expected type.
template <class T>
T read(nb::handle value, const std::string& what, const char* expected, bool convert = true) {
  T result{};
  if (!nb::try_cast<T>(value, result, convert))
    throw nb::type_error((what + " is " + nb::repr(value).c_str() + ", not " + expected).c_str());
  return result;
}

// An array without conversion: a converted copy would be destroyed before it is used.
template <class T>
T read_array(nb::handle value, const std::string& what, const char* expected) {
  return read<T>(value, what, expected, false);
}

nb::tuple read_tuple(nb::handle value, std::size_t size, const std::string& what,
                     const char* parts) {
  const auto result = read<nb::tuple>(value, what, "a tuple");
  if (result.size() != size)
    throw nb::type_error((what + " has " + std::to_string(result.size()) + " parts, not " +
                          std::to_string(size) + ": " + parts).c_str());
  return result;
}

Tensor tensor_of(nb::handle given, const std::string& what, const Kernels& kernels,
                 std::vector<nb::object>& arrays) {
  const nb::tuple weight = read_tuple(given, 3, what, "format, shape, data");
  const auto format_name = read<std::string>(weight[0], what + ": its format", "a name");
  const auto shape = read<std::vector<std::size_t>>(weight[1], what + ": its shape", "sizes");
  Tensor tensor;
  if (format_name == "vector") {
    const auto data = read_array<Vector>(weight[2], what + ": its data", "a float32 vector");
    if (shape.size() != 1 || data.size() != shape[0])
      throw std::invalid_argument("a vector's data has another length than its shape says");
    tensor.rows = shape[0];
    tensor.data = reinterpret_cast<const std::byte*>(data.data());
  } else {
    const auto data = read_array<ReadOnlyBytes>(weight[2], what + ": its data", "packed bytes");
    if (shape.size() != 2) throw std::invalid_argument("a matrix has a shape of two numbers");
    tensor = {&format_named(kernels, format_name), shape[0], shape[1],
              reinterpret_cast<const std::byte*>(data.data())};
    check_packed(*tensor.format, shape[0], shape[1], data.size(), data.data());
  }
  arrays.push_back(nb::object(weight[2]));
  return tensor;
}

OpSpec op_of(nb::handle given, std::size_t number, const Kernels& kernels,
             std::vector<nb::object>& arrays) {
  std::string where = "operation " + std::to_string(number);
  const nb::tuple op = read_tuple(given, 5, where, "kind, inputs, weights, width, parameters");
  OpSpec spec;
  spec.kind = read<std::string>(op[0], where + ": its kind", "a name");
  where = spec.kind + " (" + where + ")";
  spec.inputs = read<std::vector<int>>(op[1], where + ": inputs", "numbers of operations");
  if (spec.inputs.size() > kMostInputs)
    throw std::invalid_argument(spec.kind + " reads too many values");
  for (nb::handle weight : read<nb::list>(op[2], where + ": weights", "a list"))
    spec.weights.push_back(tensor_of(weight, where + ": a weight", kernels, arrays));
  if (spec.weights.size() > kMostWeights)
    throw std::invalid_argument(spec.kind + " has too many weights");
  spec.width = read<std::size_t>(op[3], where + ": width", "a size");
  for (const auto& [key, value] : read<nb::dict>(op[4], where + ": parameters", "a dictionary")) {
    const auto name = read<std::string>(key, where + ": a parameter", "a name");
    const std::string what = where + ": " + name;
    if (nb::isinstance<nb::str>(value)) {
      spec.parameters[name] = nb::cast<std::string>(value);
    } else if (nb::isinstance<nb::float_>(value) || nb::isinstance<nb::int_>(value)) {
      spec.parameters[name] = read<double>(value, what, "a number that a double holds");
    } else {
      const auto numbers =
          read_array<Vector>(value, what, "a number, a name or a float32 vector");
      spec.parameters[name] = std::vector<float>(numbers.data(), numbers.data() + numbers.size());
    }
  }
  return spec;
}

std::vector<CacheLayer> cache_layers(
    const std::vector<std::pair<std::size_t, std::size_t>>& layers) {
  std::vector<CacheLayer> found;
  for (const auto& [kv_heads, head_size] : layers) found.push_back({kv_heads, head_size});
  return found;
}

class PyExecutor {
 public:
  PyExecutor(const nb::list& ops, const std::vector<std::pair<std::size_t, std::size_t>>& layers,
             int result, std::size_t blocks, std::size_t block_size, int num_threads,
             const std::string& kv_dtype, const std::string& target)
      : running_(std::make_shared<Running>()) {
    const Kernels& kernels = target_named(target);
    std::vector<OpSpec> specs;
    for (nb::handle op : ops)
      specs.push_back(op_of(op, specs.size(), kernels, running_->arrays));
    running_->executor =
        std::make_unique<Executor>(specs, cache_layers(layers), result, blocks, block_size,
                                   threads_or_all(num_threads), kv_dtype, kernels);
  }

  nb::ndarray<nb::memview, float, nb::ndim<2>> step(const Integers& tokens,
                                                    const Integers& positions,
                                                    const Integers& row_starts,
                                                    const Table& block_tables,
                                                    const Integers& outputs) {
    const std::shared_ptr<Running> running = open();  // outlives a concurrent close
    Executor& executor = *running->executor;
    if (outputs.size() > tokens.size())
      throw std::invalid_argument("step: " + std::to_string(outputs.size()) + " outputs of " +
                                  std::to_string(tokens.size()) + " rows");
    // Copies: what has been checked must not change while other threads run.
    Batch batch;
    batch.tokens = copy_of(tokens);
    batch.positions = copy_of(positions);
    batch.row_starts = copy_of(row_starts);
    batch.block_tables = copy_of(block_tables);
    batch.sequences = block_tables.shape(0);
    batch.table_width = block_tables.shape(1);
    batch.outputs = copy_of(outputs);
    auto result = new_matrix<nb::memview>(outputs.size(), executor.result_width());
    const nb::gil_scoped_release released;
    executor.step(batch, result.data());
    return result;
  }

  std::size_t block_bytes() const { return open()->executor->block_bytes(); }
  nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<2>> read_blocks(const Integers& blocks) {
    const std::shared_ptr<Running> running = open();
    const std::vector<std::int32_t> numbers = copy_of(blocks);
    const std::size_t bytes = running->executor->block_bytes();
    auto* const data = new std::uint8_t[numbers.size() * bytes];
    const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<std::uint8_t*>(p); });
    {
      const nb::gil_scoped_release released;
      running->executor->read_blocks(numbers, reinterpret_cast<std::byte*>(data));
    }
    return {data, {numbers.size(), bytes}, owner};
  }
  void write_blocks(const Integers& blocks,
                    const nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::c_contig,
                                      nb::device::cpu>& content) {
    const std::shared_ptr<Running> running = open();
    const std::vector<std::int32_t> numbers = copy_of(blocks);
    if (content.shape(0) != numbers.size() ||
        content.shape(1) != running->executor->block_bytes())
      throw std::invalid_argument("write_blocks: expected " + std::to_string(numbers.size()) +
                                  " blocks of " +
                                  std::to_string(running->executor->block_bytes()) + " bytes");
    const nb::gil_scoped_release released;
    running->executor->write_blocks(numbers, reinterpret_cast<const std::byte*>(content.data()));
  }

  void start_timing() {
    const std::shared_ptr<Running> running = open();
    const nb::gil_scoped_release released;
    running->executor->start_timing();
  }
  std::vector<std::pair<std::vector<int>, double>> times() {
    const std::shared_ptr<Running> running = open();
    const nb::gil_scoped_release released;
    return running->executor->times();
  }

  void close() { running_.reset(); }
  int threads() const { return open()->executor->threads(); }
  std::string target() const { return open()->executor->kernels().name; }

 private:
  std::shared_ptr<Running> open() const {
    if (running_ == nullptr) throw std::runtime_error("the executor is closed");
    return running_;
  }

  std::shared_ptr<Running> running_;
};

}  // namespace
}  // namespace talu

NB_MODULE(_native, m) {
  using namespace talu;
  // Daemon threads, and in a forked child those of the parent, keep their objects alive until the
  // process ends, so leak warnings would be shown to users.
  nb::set_leak_warnings(false);
  m.doc() = "Kernels and executor of talu.";
  m.attr("PACKING_VERSION") = kPackingVersion;
  m.def("formats", format_names, "Weight formats of matrices that are packed from numbers.");
  m.def("block_formats", block_formats,
        "Weight formats that are packed from the blocks of files: columns and bytes of a block.");
  m.def("targets", target_names, "CPU targets that this processor supports, best first.");
  m.def(
      "target", [] { return std::string(chosen_target().name); },
      "The CPU target in use: the best one, or the one that TALU_CPU names.");
  m.def("return_free_memory", return_free_memory, nb::call_guard<nb::gil_scoped_release>(),
        "Return free memory of the allocator to the system, if the C library supports it.");
  m.def("available_threads", available_threads, "proc"_a = "/proc",
        "groups"_a = "/sys/fs/cgroup",
        "Processors that this process may use, by affinity and control groups.");
  m.def(
      "packed_bytes",
      [](const std::string& format, std::size_t rows, std::size_t columns) {
        return packed_bytes(format_named(chosen_target(), format), rows, columns);
      },
      "format"_a, "rows"_a, "columns"_a, "Size of a packed matrix.");
  m.def("pack", pack_matrix, "format"_a, "source"_a.noconvert(), "out"_a.noconvert(),
        "num_threads"_a = 0, "target"_a = "", "Pack a (rows, columns) matrix into tiles.");
  m.def("rotated_formats", rotated_formats,
        "Weight formats whose codes are chosen, and what their columns are a multiple of.");
  m.def("choose", choose_codes, "format"_a, "source"_a.noconvert(), "out"_a.noconvert(),
        "factor"_a.noconvert() = nb::none(), "num_threads"_a = 0, "target"_a = "",
        "Choose the codes of a (rows, columns) matrix of float32, and pack it into tiles.");
  m.def("encoded_formats", encoded_formats,
        "Formats of files in which matrices can be encoded: columns and bytes of a block.");
  m.def("encode", encode_rows, "format"_a, "source"_a.noconvert(), "out"_a.noconvert(),
        "factor"_a.noconvert() = nb::none(), "num_threads"_a = 0, "target"_a = "",
        "Choose the codes of a (rows, columns) matrix of float32, in the blocks of files.");
  m.def("factorize", factorize_matrix, "matrix"_a.noconvert(), "num_threads"_a = 0,
        "target"_a = "",
        "Replace the sums of the operation gram by their factor; False if there is none.");
  m.def(
      "read_rate",
      [](std::size_t bytes, int num_threads, double seconds) {
        const int threads = threads_or_all(num_threads);
        const nb::gil_scoped_release released;
        return read_rate(chosen_target(), bytes, threads, seconds);
      },
      "bytes"_a, "num_threads"_a = 0, "seconds"_a = 0.5,
      "Bytes in a second that the threads read of so much memory.");
  m.def(
      "multiply_rates",
      [](int num_threads, double seconds) {
        const int threads = threads_or_all(num_threads);
        const nb::gil_scoped_release released;
        return multiply_rates(chosen_target(), threads, seconds);
      },
      "num_threads"_a = 0, "seconds"_a = 0.2,
      "Multiplications with additions in a second, by the format of their numbers.");
  m.def("unpack", unpack_matrix, "format"_a, "packed"_a.noconvert(), "rows"_a, "columns"_a,
        "target"_a = "",
        "The logical matrix of packed tiles, as float32.");
  m.def(
      "activation_format",
      [](const std::string& format, const std::string& target) {
        return std::string(format_named(target_named(target), format).activation);
      },
      "format"_a, "target"_a = "",
      "The number format of activations that are multiplied by weights of a format.");
  m.def(
      "kv_dtypes",
      [] {
        std::vector<std::string> names;
        for (const KvDtype& dtype : chosen_target().kv_dtypes) names.emplace_back(dtype.name);
        return names;
      },
      "The formats of keys and values in the cache.");
  m.def(
      "kv_block_bytes",
      [](const std::vector<std::pair<std::size_t, std::size_t>>& layers, std::size_t block_size,
         const std::string& kv_dtype) {
        const Kernels& kernels = chosen_target();
        return KvCache(cache_layers(layers), kv_dtype_named(kernels, kv_dtype), 0, block_size)
            .block_bytes();
      },
      "layers"_a, "block_size"_a, "kv_dtype"_a,
      "Bytes of a block of the cache, for layers with (KV heads, head size).");
  nb::class_<PyExecutor>(m, "Executor", "Runs a recorded graph for batches of rows.")
      .def(nb::init<const nb::list&, const std::vector<std::pair<std::size_t, std::size_t>>&, int,
                    std::size_t, std::size_t, int, const std::string&, const std::string&>(),
           "ops"_a, "layers"_a, "result"_a, "blocks"_a, "block_size"_a, "num_threads"_a = 0,
           "kv_dtype"_a = "f16", "target"_a = "")
      .def("step", &PyExecutor::step, "tokens"_a.noconvert(), "positions"_a.noconvert(),
           "row_starts"_a.noconvert(), "block_tables"_a.noconvert(), "outputs"_a.noconvert(),
           "Run one step; see protocols.Executor.")
      .def("read_blocks", &PyExecutor::read_blocks, "blocks"_a.noconvert(),
           "The bytes of cache blocks, a row for each.")
      .def("write_blocks", &PyExecutor::write_blocks, "blocks"_a.noconvert(),
           "content"_a.noconvert(), "Replace the bytes of cache blocks.")
      .def_prop_ro("block_bytes", &PyExecutor::block_bytes, "Bytes of a cache block.")
      .def("start_timing", &PyExecutor::start_timing,
           "Measure the operations of all steps from now on.")
      .def("times", &PyExecutor::times,
           "The recorded operations that each planned one computes, and its seconds.")
      .def("close", &PyExecutor::close, "Release cache and weights; idempotent.")
      .def_prop_ro("num_threads", &PyExecutor::threads, "Threads that a step uses.")
      .def_prop_ro("target", &PyExecutor::target, "The CPU target of its kernels.");
  bind_sampler(m);
  bind_texts(m);
}
