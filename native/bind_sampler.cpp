// The Python face of the sampler: reads the rows, names the one that is refused, gives up the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "bindings.h"
#include "sampler.h"

namespace nb = nanobind;

namespace {

using Logits = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Seen = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class T>
T field(nb::handle row, const char* name) {
  const nb::object value = row.attr(name);
  T result{};
  if (!nb::try_cast<T>(value, result))
    throw std::invalid_argument(std::string(name) + " is " + nb::repr(value).c_str() +
                                ", which has the wrong type or does not fit");
  return result;
}

// `owner` keeps the array of seen tokens alive.
talu::SampleParams params_of(nb::handle row, std::vector<Seen>& owner) {
  talu::SampleParams params;
  params.temperature = field<double>(row, "temperature");
  params.top_k = field<int64_t>(row, "top_k");
  params.top_p = field<double>(row, "top_p");
  params.min_p = field<double>(row, "min_p");
  params.repetition_penalty = field<double>(row, "repetition_penalty");
  params.presence_penalty = field<double>(row, "presence_penalty");
  params.frequency_penalty = field<double>(row, "frequency_penalty");
  params.seen_prompt = field<uint64_t>(row, "seen_prompt");
  params.seed = field<uint64_t>(row, "seed");
  params.position = field<uint64_t>(row, "position");
  params.bias_ids = field<std::vector<int64_t>>(row, "bias_ids");
  params.bias_values = field<std::vector<double>>(row, "bias_values");
  params.top_logprobs = field<int64_t>(row, "top_logprobs");
  if (!row.attr("seen").is_none()) {
    owner.push_back(field<Seen>(row, "seen"));
    params.seen = owner.back().data();
    params.seen_count = owner.back().size();
  }
  return params;
}

template <class Work>
auto naming_row(size_t row, Work&& work) {
  try {
    return work();
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument("row " + std::to_string(row) + ": " + error.what());
  }
}

nb::list sample(const Logits& logits, nb::sequence rows) {
  const size_t count = logits.shape(0), vocabulary = logits.shape(1);
  if (nb::len(rows) != count)
    throw std::invalid_argument(std::to_string(count) + " rows of logits, but parameters for " +
                                std::to_string(nb::len(rows)));
  std::vector<Seen> owner;
  std::vector<talu::SampleParams> params;
  for (size_t i = 0; i < count; ++i)
    params.push_back(naming_row(i, [&] { return params_of(nb::object(rows[i]), owner); }));

  std::vector<talu::Sample> samples;
  {
    nb::gil_scoped_release unlocked;
    thread_local talu::Sampler sampler;
    for (size_t i = 0; i < count; ++i)
      samples.push_back(naming_row(i, [&] {
        return sampler.sample(logits.data() + i * vocabulary, vocabulary, params[i]);
      }));
  }

  nb::list result;
  for (size_t i = 0; i < count; ++i) {
    const talu::Sample& s = samples[i];
    const bool asked = params[i].top_logprobs >= 0;
    const nb::object logprob = asked ? nb::cast(s.logprob) : nb::none();
    result.append(nb::make_tuple(s.token, logprob, nb::tuple(nb::cast(s.top_logprobs))));
  }
  return result;
}

}  // namespace

void talu::bind_sampler(nb::module_& m) {
  m.def("sample", &sample, nb::arg("logits").noconvert(), nb::arg("rows"),
        "Sample a token from each row of (n, vocabulary) float32 logits; see talu.graph.sampler.");
}
