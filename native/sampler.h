// Samples the next token from a row of logits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "kernels.h"

namespace talu {

// How to choose the tokens of one sequence: what does not change from token to token.
struct SamplerSettings {
  double temperature = 0;
  int64_t top_k = 0;
  double top_p = 1;
  double min_p = 0;
  double repetition_penalty = 1;
  double presence_penalty = 0;
  double frequency_penalty = 0;
  uint64_t seed = 0;
  std::vector<int64_t> bias_ids;
  std::vector<double> bias_values;
  uint64_t seen_prompt = 0;
  int64_t top_logprobs = -1;

  // Throws std::invalid_argument for a setting that is out of range.
  void check() const;
};

// What changes from token to token. The pointers are borrowed; the settings have been checked.
// Bit i % 32 of the mask's word i / 32 says whether token i is allowed; without a mask, all are.
struct SampleRow {
  const SamplerSettings* settings = nullptr;
  uint64_t position = 0;
  const int32_t* seen = nullptr;
  size_t seen_count = 0;
  const int32_t* mask = nullptr;
  size_t mask_words = 0;
};

// `logprob` and `top_logprobs` are set if top_logprobs >= 0 was requested.
struct Sample {
  int32_t token = 0;
  double logprob = 0;
  std::vector<std::pair<int32_t, double>> top_logprobs;
};

// Uniform in [0, 1) with 53 bits, from Philox 4x32-10 with key (seed) and counter (position).
// Salmon et al., 2011, https://doi.org/10.1145/2063384.2063405
double philox_uniform(uint64_t seed, uint64_t position);

// Keeps its buffers, so that the next row allocates nothing. Not safe for concurrent use. The target
// of the kernels does not change a bit of the result.
class Sampler {
 public:
  explicit Sampler(const Kernels& kernels) : kernels_(kernels) {}

  // Bias, repetition penalty, presence and frequency penalty, mask, temperature, top-k, top-p, min-p,
  // in that order. Throws std::invalid_argument for token ids outside the vocabulary, logits that are
  // not numbers, and when no token is left. Ties go to the lower id everywhere.
  Sample sample(const float* logits, size_t vocabulary, const SampleRow& row);

 private:
  struct Bins;
  struct Candidate {
    float value;
    int32_t id;
  };
  using Candidates = std::vector<Candidate>;
  static bool before(const Candidate& a, const Candidate& b) {
    return a.value != b.value ? a.value > b.value : a.id < b.id;
  }

  float scan(const float* x, size_t size);
  void best(const float* x, size_t size, size_t count);
  const float* adjust(const float* x, size_t size, const SampleRow& row);
  void penalise_repetition(const SampleRow& row);
  void penalise_frequency(const SampleRow& row);
  void ban_masked(const SampleRow& row);
  int32_t argmax(const float* x, size_t size, float peak) const;
  int32_t draw(const float* x, size_t size, float peak, const SampleRow& row);
  double weigh(const float* x, size_t size, float peak, float temperature);
  void keep_nucleus(const float* x, size_t size, float peak, float temperature, double total,
                    double p);
  void fill_histogram(const float* x, size_t size, const Bins& bins, float least);
  void cut_below(const float* x, size_t size, const Bins& bins, int32_t border);
  void cut_within_border(double mass, double target);
  double mass_of(size_t bin) const;
  double weight_of(Candidates::const_iterator first, Candidates::const_iterator last) const;
  void sum_blocks_again();
  size_t pick(double uniform);

  const Kernels& kernels_;
  std::vector<float> tops_;            // largest value of each block of the row scanned last
  std::vector<float> sorted_tops_;
  Candidates candidates_;              // result of best(), unordered
  std::vector<float> adjusted_;
  Candidates border_;                  // candidates for the end of the nucleus
  std::vector<float> values_;          // survivors of top-k, by ascending id
  std::vector<float> weights_;         // exp((value - peak) / temperature), 0 when filtered out,
                                       // or anything where the block's sum is 0
  std::vector<float> sums_;            // of weights_, by blocks
  std::vector<double> mass_;           // histogram of the nucleus, in fours
  std::vector<bool> penalised_;
  std::vector<float> counts_;          // of each token in the answer so far
};

}  // namespace talu
