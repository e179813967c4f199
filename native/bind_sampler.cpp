// Binds the sampler: reads its settings and rows, names a refused row, releases the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <exception>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "dispatch.h"
#include "sampler.h"
#include "threads.h"

namespace nb = nanobind;
using namespace nanobind::literals;

namespace {

using Logits = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
constexpr size_t kWorthWaking = 1 << 16;  // logits, for another thread to help

using Words = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class T>
T field(nb::handle value, const char* name) {
  T result{};
  if (!nb::try_cast<T>(value, result))
    throw std::invalid_argument(std::string(name) + " is " + nb::repr(value).c_str() +
                                ", which has the wrong type or does not fit");
  return result;
}

// Keeps alive what the rows point to, while other threads may change the caller's list.
struct Owned {
  std::vector<nb::object> settings;
  std::vector<Words> words;
};

talu::SampleRow row_of(nb::handle given, Owned& owned) {
  if (!nb::isinstance<nb::tuple>(given) || nb::len(given) != 4)
    throw std::invalid_argument("it must be a tuple of settings, position, seen tokens and mask");
  const auto fields = nb::borrow<nb::tuple>(given);
  talu::SampleRow row;
  if (!nb::isinstance<talu::SamplerSettings>(fields[0]))
    throw std::invalid_argument("its settings are not SamplerSettings");
  owned.settings.emplace_back(fields[0]);
  row.settings = nb::inst_ptr<const talu::SamplerSettings>(fields[0]);
  row.position = field<uint64_t>(fields[1], "position");
  if (!fields[2].is_none()) {
    owned.words.push_back(field<Words>(fields[2], "seen"));
    row.seen = owned.words.back().data();
    row.seen_count = owned.words.back().size();
  }
  if (!fields[3].is_none()) {
    owned.words.push_back(field<Words>(fields[3], "mask"));
    row.mask = owned.words.back().data();
    row.mask_words = owned.words.back().size();
  }
  return row;
}

template <class Work>
auto naming_row(size_t row, Work&& work) {
  try {
    return work();
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument("row " + std::to_string(row) + ": " + error.what());
  }
}

// The rows of one call, which several threads may sample.
struct Rows {
  const float* logits;
  size_t vocabulary;
  const std::vector<talu::SampleRow>& read;
  std::vector<talu::Sample> samples;
  std::vector<std::exception_ptr> errors;  // of the rows that are refused

  static void sample_one(void* context, size_t row, int) {
    thread_local talu::Sampler sampler(talu::chosen_target());
    Rows& rows = *static_cast<Rows*>(context);
    try {
      rows.samples[row] = naming_row(row, [&] {
        return sampler.sample(rows.logits + row * rows.vocabulary, rows.vocabulary,
                              rows.read[row]);
      });
    } catch (...) {
      rows.errors[row] = std::current_exception();
    }
  }
};

nb::list sample(const Logits& logits, nb::sequence rows, int num_threads) {
  const size_t count = logits.shape(0), vocabulary = logits.shape(1);
  if (nb::len(rows) != count)
    throw std::invalid_argument(std::to_string(count) + " rows of logits, but parameters for " +
                                std::to_string(nb::len(rows)));
  Owned owned;
  std::vector<talu::SampleRow> read;
  for (size_t i = 0; i < count; ++i)
    read.push_back(naming_row(i, [&] { return row_of(nb::object(rows[i]), owned); }));

  Rows work{logits.data(), vocabulary, read, std::vector<talu::Sample>(count),
            std::vector<std::exception_ptr>(count)};
  {
    nb::gil_scoped_release unlocked;
    const int threads = count * vocabulary < kWorthWaking ? 1 : num_threads;
    talu::run_parallel(threads, count, Rows::sample_one, &work);
  }
  for (const std::exception_ptr& error : work.errors)
    if (error) std::rethrow_exception(error);

  nb::list result;
  for (size_t i = 0; i < count; ++i) {
    const talu::Sample& s = work.samples[i];
    const bool asked = read[i].settings->top_logprobs >= 0;
    const nb::object logprob = asked ? nb::cast(s.logprob) : nb::none();
    result.append(nb::make_tuple(s.token, logprob, nb::tuple(nb::cast(s.top_logprobs))));
  }
  return result;
}

void make_settings(talu::SamplerSettings* self, double temperature, int64_t top_k, double top_p,
                   double min_p, double repetition_penalty, double presence_penalty,
                   double frequency_penalty, uint64_t seed, std::vector<int64_t> bias_ids,
                   std::vector<double> bias_values, uint64_t seen_prompt, int64_t top_logprobs) {
  talu::SamplerSettings settings{temperature,          top_k,
                                 top_p,                min_p,
                                 repetition_penalty,   presence_penalty,
                                 frequency_penalty,    seed,
                                 std::move(bias_ids),  std::move(bias_values),
                                 seen_prompt,          top_logprobs};
  settings.check();
  new (self) talu::SamplerSettings(std::move(settings));
}

void bind_settings(nb::module_& m) {
  using talu::SamplerSettings;
  const SamplerSettings unset;
  nb::class_<SamplerSettings>(m, "SamplerSettings",
                              "How to choose the tokens of one sequence; cannot be changed.")
      .def("__init__", &make_settings, nb::kw_only(), "temperature"_a = unset.temperature,
           "top_k"_a = unset.top_k, "top_p"_a = unset.top_p, "min_p"_a = unset.min_p,
           "repetition_penalty"_a = unset.repetition_penalty,
           "presence_penalty"_a = unset.presence_penalty,
           "frequency_penalty"_a = unset.frequency_penalty, "seed"_a = unset.seed,
           "bias_ids"_a = unset.bias_ids, "bias_values"_a = unset.bias_values,
           "seen_prompt"_a = unset.seen_prompt, "top_logprobs"_a = unset.top_logprobs)
      .def_ro("temperature", &SamplerSettings::temperature)
      .def_ro("top_k", &SamplerSettings::top_k)
      .def_ro("top_p", &SamplerSettings::top_p)
      .def_ro("min_p", &SamplerSettings::min_p)
      .def_ro("repetition_penalty", &SamplerSettings::repetition_penalty)
      .def_ro("presence_penalty", &SamplerSettings::presence_penalty)
      .def_ro("frequency_penalty", &SamplerSettings::frequency_penalty)
      .def_ro("seed", &SamplerSettings::seed)
      .def_ro("bias_ids", &SamplerSettings::bias_ids)
      .def_ro("bias_values", &SamplerSettings::bias_values)
      .def_ro("seen_prompt", &SamplerSettings::seen_prompt)
      .def_ro("top_logprobs", &SamplerSettings::top_logprobs);
}

}  // namespace

void talu::bind_sampler(nb::module_& m) {
  bind_settings(m);
  m.def("sample", &sample, nb::arg("logits").noconvert(), nb::arg("rows"),
        nb::arg("num_threads") = 1,
        "Sample a token from each row of (n, vocabulary) float32 logits; see talu.graph.sampler.");
}
