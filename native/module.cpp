// The Python face of the native module: shapes, lifetimes and the GIL are dealt with here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings.h"
#include "dispatch.h"
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
  for (const Format& format : chosen_target().formats) names.emplace_back(format.name);
  return names;
}

std::vector<std::string> target_names() {
  std::vector<std::string> names;
  for (const Kernels* target : supported_targets()) names.emplace_back(target->name);
  return names;
}

int threads_or_all(int requested) {
  if (requested < 0) throw std::invalid_argument("num_threads must not be negative");
  const int available = available_threads();
  return requested == 0 || requested > available ? available : requested;
}

void check_packed(const Format& format, std::size_t rows, std::size_t columns, std::size_t bytes,
                  const void* data) {
  const std::size_t wanted = packed_bytes(format, rows, columns);
  if (bytes != wanted)
    throw std::invalid_argument("a packed " + std::string(format.name) + " matrix of shape (" +
                                std::to_string(rows) + ", " + std::to_string(columns) +
                                ") has " + std::to_string(wanted) + " bytes, not " +
                                std::to_string(bytes));
  if (bytes != 0 && reinterpret_cast<std::uintptr_t>(data) % 64 != 0)
    throw std::invalid_argument("packed bytes must begin at a multiple of 64");
}

void pack_matrix(const std::string& format_name, const Matrix& source, const Bytes& out,
                 int num_threads, const std::string& target) {
  const Format& format = format_named(target_named(target), format_name);
  const nb::dlpack::dtype wanted =
      format.element_bytes == 4 ? nb::dtype<float>() : nb::dtype<std::uint16_t>();
  if (source.dtype() != wanted)
    throw std::invalid_argument(format_name + " is packed from an array of " +
                                (format.element_bytes == 4 ? "float32" : "uint16"));
  check_packed(format, source.shape(0), source.shape(1), out.size(), out.data());
  const int threads = threads_or_all(num_threads);
  const nb::gil_scoped_release released;
  pack(format, source.data(), source.shape(0), source.shape(1), out.data(), threads);
}

// A float matrix that Python owns.
nb::ndarray<nb::numpy, float, nb::ndim<2>> new_matrix(std::size_t rows, std::size_t columns) {
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
  auto out = new_matrix(rows, columns);
  const nb::gil_scoped_release released;
  unpack(format, packed.data(), rows, columns, out.data());
  return out;
}

}  // namespace
}  // namespace talu

NB_MODULE(_native, m) {
  using namespace talu;
  m.doc() = "Kernels and executor of talu.";
  m.attr("PACKING_VERSION") = kPackingVersion;
  m.def("formats", format_names, "Weight formats of matrices.");
  m.def("targets", target_names, "CPU targets that this processor supports, best first.");
  m.def(
      "target", [] { return std::string(chosen_target().name); },
      "The CPU target in use: the best one, or the one that TALU_CPU names.");
  m.def("available_threads", available_threads,
        "Processors that this process may use, by affinity and control group.");
  m.def(
      "packed_bytes",
      [](const std::string& format, std::size_t rows, std::size_t columns) {
        return packed_bytes(format_named(chosen_target(), format), rows, columns);
      },
      "format"_a, "rows"_a, "columns"_a, "Size of a packed matrix.");
  m.def("pack", pack_matrix, "format"_a, "source"_a, "out"_a, "num_threads"_a = 0,
        "target"_a = "", "Lay a (rows, columns) matrix out in tiles.");
  m.def("unpack", unpack_matrix, "format"_a, "packed"_a, "rows"_a, "columns"_a, "target"_a = "",
        "The logical matrix of packed tiles, as float32.");
  bind_sampler(m);
}
