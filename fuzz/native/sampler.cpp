// Samples tokens from hostile logits with hostile settings.
#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "input.h"

using namespace talu;

namespace {

SamplerSettings settings_of(Input& input, std::size_t vocabulary) {
  const auto sometimes = [&](double value) { return input.flip() ? input.hostile() : value; };
  const auto share = [&] { return input.one_of({0.0, 1e-9, 0.1, 0.5, 0.9, 0.999999, 1.0}); };
  SamplerSettings settings;
  settings.temperature = sometimes(input.number(0, 20) * 0.1);
  settings.top_k = input.flip() ? input.number(0, 70) : input.number<std::int64_t>(-1, INT64_MAX);
  settings.top_p = sometimes(share());
  settings.min_p = sometimes(share());
  settings.repetition_penalty = sometimes(1.0);
  settings.presence_penalty = sometimes(0.0);
  settings.frequency_penalty = sometimes(0.0);
  settings.seed = input.number<std::uint64_t>(0, UINT64_MAX);
  settings.seen_prompt = input.number<std::uint64_t>(0, 3);
  settings.top_logprobs =
      input.flip() ? input.number(-1, 20) : input.number<std::int64_t>(-2, INT64_MAX);
  for (int i = input.number(-8, 8); i > 0; --i) {
    const auto last = static_cast<std::int64_t>(vocabulary);
    settings.bias_ids.push_back(input.number<std::int64_t>(input.rarely() ? -1 : 0, last));
    settings.bias_values.push_back(input.hostile());
  }
  if (input.rarely()) settings.bias_values.push_back(0);
  return settings;
}

void check(const Buffer<float>& logits, const SamplerSettings& settings, const Sample& sample) {
  CHECK(sample.token >= 0 && static_cast<std::size_t>(sample.token) < logits.size());
  for (std::size_t i = 0; i < settings.bias_ids.size(); ++i)
    CHECK(settings.bias_ids[i] != sample.token || settings.bias_values[i] > -100);
  CHECK(logits[static_cast<std::size_t>(sample.token)] > -INFINITY);
  if (settings.top_logprobs < 0) return;
  CHECK(sample.logprob <= 1e-6);
  const auto wanted = static_cast<std::size_t>(settings.top_logprobs);
  CHECK(sample.top_logprobs.size() <= std::min(wanted, logits.size()));
  for (std::size_t i = 0; i < sample.top_logprobs.size(); ++i) {
    CHECK(sample.top_logprobs[i].second <= 1e-6);
    CHECK(i == 0 || sample.top_logprobs[i].second <= sample.top_logprobs[i - 1].second);
  }
}

void run(Input& input) {
  // Rows of any size follow each other, in the same buffers.
  static Sampler sampler(generic_kernels), another(*targets().back());
  Buffer<float> logits(input.rarely() ? input.number<std::size_t>(0, 5000)
                                      : input.number<std::size_t>(0, 300));
  const SamplerSettings settings = settings_of(input, logits.size());
  settings.check();
  Buffer<std::int32_t> seen(input.number<std::size_t>(0, 12));
  for (std::int32_t& token : seen)
    token = input.number<std::int32_t>(input.rarely() ? -1 : 0, static_cast<int>(logits.size()));
  SampleRow row = {&settings, input.number<std::uint64_t>(0, UINT64_MAX), seen.data(), seen.size()};
  input.fill(logits);
  const float factor = input.one_of({1.0f, 30.0f, 3e38f, 1e-38f, 0.0f});
  for (float& logit : logits) logit *= factor;
  const Sample sample = sampler.sample(logits.data(), logits.size(), row);
  check(logits, settings, sample);
  CHECK(another.sample(logits.data(), logits.size(), row).token == sample.token);
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
