#include "sampler.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <sstream>
#include <stdexcept>

#include "portable_math.h"

namespace talu {
namespace {

constexpr size_t kBlock = kWeighedTogether;  // values that share a maximum, and a partial sum
constexpr size_t kBins = 2048;               // of the histogram that finds the nucleus
constexpr size_t kMaskBits = 32;             // of a word
constexpr double kLargestSetting = 1e30;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

void check_range(const char* name, double value, double lowest, double highest) {
  if (!(value >= lowest && value <= highest))
    refuse(name, " is ", value, ", it must be a number from ", lowest, " to ", highest);
}

// What only the logits of a row decide: whether the vocabulary has the tokens that are named.
void check(const SampleRow& row, size_t vocabulary) {
  if (vocabulary == 0) refuse("the vocabulary is empty");
  const SamplerSettings& settings = *row.settings;
  for (const int64_t id : settings.bias_ids)
    if (static_cast<size_t>(id) >= vocabulary)
      refuse("bias for token ", id, ", the vocabulary has ", vocabulary);
  if (settings.seen_prompt > row.seen_count)
    refuse("seen_prompt is ", settings.seen_prompt, ", but there are ", row.seen_count,
           " seen tokens");
  for (size_t i = 0; i < row.seen_count; ++i)
    if (row.seen[i] < 0 || static_cast<size_t>(row.seen[i]) >= vocabulary)
      refuse("seen token ", row.seen[i], ", the vocabulary has ", vocabulary);
  if (row.mask != nullptr && row.mask_words != (vocabulary + kMaskBits - 1) / kMaskBits)
    refuse("the mask has ", row.mask_words, " words, but the vocabulary has ", vocabulary,
           " tokens");
}

// Four values at once, as the compiler's vector type: every supported processor has such registers,
// and the order of every sum is the same on all of them.
using f32x4 = float __attribute__((vector_size(16)));
using i32x4 = int32_t __attribute__((vector_size(16)));

inline f32x4 load(const float* from) {
  f32x4 v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline bool any(i32x4 mask) { return (mask[0] | mask[1] | mask[2] | mask[3]) != 0; }

// visit(index, four values) along the row; the last four are filled up with -inf.
template <class Visit>
inline void each4(const float* x, size_t begin, size_t end, Visit visit) {
  size_t i = begin;
  for (; i + 4 <= end; i += 4) visit(i, load(x + i));
  if (i == end) return;
  f32x4 rest = {-kInfinity, -kInfinity, -kInfinity, -kInfinity};
  std::memcpy(&rest, x + i, (end - i) * sizeof(float));
  visit(i, rest);
}

}  // namespace

// Bins of the histogram, by distance from the peak; the last one holds all larger distances.
struct Sampler::Bins {
  float peak, scale;

  i32x4 of(f32x4 values) const {
    const f32x4 bin = (peak - values) * scale;
    const f32x4 last = f32x4{} + static_cast<float>(kBins - 1);
    return __builtin_convertvector(bin < last ? bin : last, i32x4);
  }
  int32_t of(float value) const { return of(f32x4{} + value)[0]; }
};

void SamplerSettings::check() const {
  if (top_k < 0) refuse("top_k is ", top_k, ", it must be 0 (off) or more");
  check_range("temperature", temperature, 0, kLargestSetting);
  check_range("top_p", top_p, 0, 1);
  check_range("min_p", min_p, 0, 1);
  check_range("repetition_penalty", repetition_penalty, std::numeric_limits<double>::min(),
              kLargestSetting);
  check_range("presence_penalty", presence_penalty, -1e6, 1e6);
  check_range("frequency_penalty", frequency_penalty, -1e6, 1e6);
  if (bias_ids.size() != bias_values.size())
    refuse(bias_ids.size(), " bias_ids but ", bias_values.size(), " bias_values");
  for (size_t i = 0; i < bias_ids.size(); ++i) {
    if (bias_ids[i] < 0) refuse("bias for token ", bias_ids[i], ", it must be 0 or more");
    if (!(bias_values[i] <= kLargestSetting))
      refuse("bias of token ", bias_ids[i], " is ", bias_values[i], ", it must be finite");
  }
}

double philox_uniform(uint64_t seed, uint64_t position) {
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  uint32_t c0 = static_cast<uint32_t>(position), c1 = static_cast<uint32_t>(position >> 32);
  uint32_t c2 = 0, c3 = 0;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * c0, product1 = uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
    c3 = static_cast<uint32_t>(product0);
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return static_cast<double>(((uint64_t{c1} << 32) | c0) >> 11) * 0x1p-53;
}

Sample Sampler::sample(const float* logits, size_t vocabulary, const SampleRow& row) {
  const SamplerSettings& settings = *row.settings;
  check(row, vocabulary);
  Sample result;
  const float own_peak = scan(logits, vocabulary);
  if (settings.top_logprobs >= 0) {
    best(logits, vocabulary, static_cast<size_t>(settings.top_logprobs));
    std::sort(candidates_.begin(), candidates_.end(), before);
    for (const Candidate& c : candidates_) result.top_logprobs.emplace_back(c.id, c.value);
  }

  const float* x = adjust(logits, vocabulary, row);
  const float peak = x == logits ? own_peak : scan(x, vocabulary);
  if (peak == -kInfinity) refuse("no token is left: all are banned or have a logit of -inf");
  const bool greedy = static_cast<float>(settings.temperature) == 0;
  result.token = greedy ? argmax(x, vocabulary, peak) : draw(x, vocabulary, peak, row);

  if (settings.top_logprobs >= 0) {
    const double log_total = own_peak + natural_logarithm(weigh(logits, vocabulary, own_peak, 1.0f));
    result.logprob = logits[result.token] - log_total;
    for (auto& [id, value] : result.top_logprobs) value -= log_total;
  }
  return result;
}

// The largest value; fills tops_.
float Sampler::scan(const float* x, size_t size) {
  tops_.resize((size + kBlock - 1) / kBlock);
  float peak = -kInfinity;
  for (size_t block = 0; block < tops_.size(); ++block) {
    const size_t begin = block * kBlock, end = std::min(size, begin + kBlock);
    f32x4 top = f32x4{} - kInfinity;
    i32x4 wrong = {};
    each4(x, begin, end, [&](size_t, f32x4 v) {
      top = v > top ? v : top;
      wrong |= ~(v < kInfinity);  // +inf and NaN
    });
    if (any(wrong))
      for (size_t i = begin; i < end; ++i)
        if (!(x[i] < kInfinity)) refuse("the logit of token ", i, " is ", x[i]);
    tops_[block] = std::max(std::max(top[0], top[1]), std::max(top[2], top[3]));
    peak = std::max(peak, tops_[block]);
  }
  return peak;
}

// The `count` best values above -inf, unordered, of the row scanned last.
void Sampler::best(const float* x, size_t size, size_t count) {
  candidates_.clear();
  if (count == 0) return;
  // At least `count` values are not below the count-th largest of the block maxima.
  float bound = -kInfinity;
  if (count <= tops_.size()) {
    sorted_tops_ = tops_;
    const auto nth = sorted_tops_.begin() + static_cast<ptrdiff_t>(count - 1);
    std::nth_element(sorted_tops_.begin(), nth, sorted_tops_.end(), std::greater<float>());
    bound = *nth;
  }
  for (size_t block = 0; block < tops_.size(); ++block) {
    if (tops_[block] < bound) continue;
    const size_t end = std::min(size, (block + 1) * kBlock);
    for (size_t i = block * kBlock; i < end; ++i)
      if (x[i] >= bound && x[i] > -kInfinity)
        candidates_.push_back({x[i], static_cast<int32_t>(i)});
  }
  if (candidates_.size() <= count) return;
  const auto end = candidates_.begin() + static_cast<ptrdiff_t>(count);
  std::nth_element(candidates_.begin(), end - 1, candidates_.end(), before);
  candidates_.erase(end, candidates_.end());
}

// Applies bias, penalties and mask to a copy; returns the row itself if there are none.
const float* Sampler::adjust(const float* x, size_t size, const SampleRow& row) {
  const SamplerSettings& settings = *row.settings;
  const bool repetition = settings.repetition_penalty != 1 && row.seen_count > 0;
  const bool frequency = (settings.presence_penalty != 0 || settings.frequency_penalty != 0) &&
                         row.seen_count > settings.seen_prompt;
  const bool masked = row.mask != nullptr;
  if (settings.bias_ids.empty() && !repetition && !frequency && !masked) return x;
  adjusted_.assign(x, x + size);
  for (size_t i = 0; i < settings.bias_ids.size(); ++i) {
    float& value = adjusted_[static_cast<size_t>(settings.bias_ids[i])];
    const double bias = settings.bias_values[i];
    value = bias <= -100 ? -kInfinity : value + static_cast<float>(bias);
  }
  if (repetition) penalise_repetition(row);
  if (frequency) penalise_frequency(row);
  if (masked) ban_masked(row);
  return adjusted_.data();
}

void Sampler::ban_masked(const SampleRow& row) {
  const size_t size = adjusted_.size();
  for (size_t word = 0; word < row.mask_words; ++word) {
    const uint32_t bits = static_cast<uint32_t>(row.mask[word]);
    if (bits == ~uint32_t{0}) continue;
    const size_t begin = word * kMaskBits, count = std::min(size - begin, kMaskBits);
    float* values = adjusted_.data() + begin;
    if (bits == 0) {
      std::fill_n(values, count, -kInfinity);
      continue;
    }
    for (size_t bit = 0; bit < count; ++bit)
      if ((bits >> bit & 1) == 0) values[bit] = -kInfinity;
  }
}

// Divides positive and multiplies negative logits, once for each token.
// Keskar et al., 2019, https://arxiv.org/abs/1909.05858, with the sign as in transformers.
void Sampler::penalise_repetition(const SampleRow& row) {
  const SamplerSettings& settings = *row.settings;
  const float penalty = static_cast<float>(settings.repetition_penalty);
  penalised_.assign(adjusted_.size(), false);
  for (size_t i = 0; i < row.seen_count; ++i) {
    const size_t id = static_cast<size_t>(row.seen[i]);
    // Repeats a test of `check`, because another thread may have changed the array since.
    if (id >= adjusted_.size() || penalised_[id]) continue;
    penalised_[id] = true;
    adjusted_[id] = adjusted_[id] > 0 ? adjusted_[id] / penalty : adjusted_[id] * penalty;
  }
}

// Subtracts frequency_penalty * count + presence_penalty from each token of the answer so far.
void Sampler::penalise_frequency(const SampleRow& row) {
  const SamplerSettings& settings = *row.settings;
  const float presence = static_cast<float>(settings.presence_penalty);
  const float frequency = static_cast<float>(settings.frequency_penalty);
  counts_.assign(adjusted_.size(), 0);
  for (size_t i = settings.seen_prompt; i < row.seen_count; ++i) {
    const size_t id = static_cast<size_t>(row.seen[i]);
    if (id < counts_.size()) counts_[id] += 1;
  }
  for (size_t i = settings.seen_prompt; i < row.seen_count; ++i) {
    const size_t id = static_cast<size_t>(row.seen[i]);
    if (id >= counts_.size() || counts_[id] == 0) continue;  // already applied
    const float often = frequency * counts_[id];
    adjusted_[id] -= often + presence;
    counts_[id] = 0;
  }
}

int32_t Sampler::argmax(const float* x, size_t size, float peak) const {
  const auto block = std::find(tops_.begin(), tops_.end(), peak) - tops_.begin();
  const float* found = std::find(x + static_cast<size_t>(block) * kBlock, x + size, peak);
  return static_cast<int32_t>(found - x);
}

int32_t Sampler::draw(const float* x, size_t size, float peak, const SampleRow& row) {
  const SamplerSettings& settings = *row.settings;
  const bool chosen = settings.top_k > 0 && static_cast<size_t>(settings.top_k) < size;
  if (chosen) {
    best(x, size, static_cast<size_t>(settings.top_k));
    std::sort(candidates_.begin(), candidates_.end(),
              [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
    values_.clear();
    for (const Candidate& c : candidates_) values_.push_back(c.value);
    x = values_.data();
    size = values_.size();
    scan(x, size);
  }
  const float temperature = static_cast<float>(settings.temperature);
  const double total = weigh(x, size, peak, temperature);
  if (settings.top_p < 1) keep_nucleus(x, size, peak, temperature, total, settings.top_p);
  if (settings.min_p > 0) {
    const float least = static_cast<float>(settings.min_p);  // the best token has weight 1
    for (float& weight : weights_) weight = weight < least ? 0.0f : weight;
    sum_blocks_again();
  }
  const size_t index = pick(philox_uniform(settings.seed, row.position));
  return chosen ? candidates_[index].id : static_cast<int32_t>(index);
}

// Fills weights_, padded with zeros to whole vectors, and returns their sum.
double Sampler::weigh(const float* x, size_t size, float peak, float temperature) {
  const float inverse = std::min(1.0f / temperature, std::numeric_limits<float>::max());
  weights_.resize((size + kTileRows - 1) / kTileRows * kTileRows);
  sums_.resize((size + kBlock - 1) / kBlock);
  kernels_.weigh(x, size, peak, inverse, weights_.data(), sums_.data());
  return std::accumulate(sums_.begin(), sums_.end(), 0.0);
}

// Recomputes the sum of each block that is not empty.
void Sampler::sum_blocks_again() {
  for (size_t block = 0; block < sums_.size(); ++block) {
    if (sums_[block] == 0) continue;
    const size_t begin = block * kBlock;
    sums_[block] = kernels_.sum_weights(&weights_[begin], std::min(weights_.size() - begin, kBlock));
  }
}

// Holtzman et al., 2019, https://arxiv.org/abs/1904.09751. A histogram of the mass over the
// distance from the peak finds the few tokens at the border; only they are sorted.
void Sampler::keep_nucleus(const float* x, size_t size, float peak, float temperature,
                           double total, double p) {
  // A token of the nucleus and all lighter ones together have at least 1 - p of the mass, so the
  // token has at least an equal share of it. The margin covers the rounding of `weigh`.
  const float least = static_cast<float>(0.999 * (1 - p) * total / static_cast<double>(size));
  const float depth = -static_cast<float>(natural_logarithm(least)) * temperature;
  const float scale =
      std::min(static_cast<float>(kBins - 1) / depth, std::numeric_limits<float>::max());
  const Bins bins{peak, scale};
  fill_histogram(x, size, bins, least);

  const double target = p * total;
  double mass = 0;
  size_t border = 0;
  while (border < kBins && mass + mass_of(border) < target) mass += mass_of(border++);
  if (border == kBins) return;  // p is within rounding of 1: nothing is removed
  cut_below(x, size, bins, static_cast<int32_t>(border));
  cut_within_border(mass, target);
  sum_blocks_again();
}

// Fills mass_ with the weights of each bin, in four sums, so that equal logits are not added one
// after the other; weights below `least` may be missing.
void Sampler::fill_histogram(const float* x, size_t size, const Bins& bins, float least) {
  mass_.assign(4 * kBins, 0.0);
  for (size_t block = 0; block < tops_.size(); ++block) {
    if (bins.of(tops_[block]) == static_cast<int32_t>(kBins - 1)) continue;
    each4(x, block * kBlock, std::min(size, (block + 1) * kBlock), [&](size_t i, f32x4 v) {
      if (!any(load(&weights_[i]) >= least)) return;
      const i32x4 bin = bins.of(v);
      for (size_t j = 0; j < 4; ++j) mass_[4 * static_cast<size_t>(bin[j]) + j] += weights_[i + j];
    });
  }
}

// Removes tokens beyond the bin `border`, and puts the tokens of that bin into border_. A block
// whose largest value is beyond it is not visited: its sum becomes 0, and its weights, which are
// kept, are ignored.
void Sampler::cut_below(const float* x, size_t size, const Bins& bins, int32_t border) {
  border_.clear();
  for (size_t block = 0; block < tops_.size(); ++block) {
    if (bins.of(tops_[block]) > border) {
      sums_[block] = 0;
      continue;
    }
    each4(x, block * kBlock, std::min(size, (block + 1) * kBlock), [&](size_t i, f32x4 v) {
      const i32x4 bin = bins.of(v);
      const f32x4 weight = bin <= border ? load(&weights_[i]) : f32x4{};
      std::memcpy(&weights_[i], &weight, sizeof weight);
      const i32x4 inside = bin == border;
      if (!any(inside)) return;
      for (size_t j = 0; j < 4 && i + j < size; ++j)
        if (inside[j]) border_.push_back({x[i + j], static_cast<int32_t>(i + j)});
    });
  }
}

double Sampler::mass_of(size_t bin) const {
  const double* const four = &mass_[4 * bin];
  return four[0] + four[1] + (four[2] + four[3]);
}

// Keeps the best tokens of border_ until the mass reaches the target, at least one. Only the part in
// which the mass reaches it is sorted: a vocabulary of equal logits is one bin.
void Sampler::cut_within_border(double mass, double target) {
  constexpr ptrdiff_t kSortedAtOnce = 64;
  auto first = border_.begin(), last = border_.end();
  const bool sorted = std::is_sorted(first, last, before);
  while (!sorted && last - first > kSortedAtOnce) {
    const auto middle = first + (last - first) / 2;
    std::nth_element(first, middle, last, before);
    const double upper = weight_of(first, middle);
    if (mass + upper < target) {
      mass += upper;
      first = middle;
    } else {
      last = middle;
    }
  }
  if (!sorted) std::sort(first, last, before);
  // The first token of all stays, whatever its weight.
  if (first == border_.begin() && first != last)
    mass += weights_[static_cast<size_t>((first++)->id)];
  for (; first != last && mass < target; ++first) mass += weights_[static_cast<size_t>(first->id)];
  for (; first != border_.end(); ++first) weights_[static_cast<size_t>(first->id)] = 0;
}

// The sum of the weights of some candidates, exactly: they are of one bin, so that their exponents
// hardly differ, and a double has room for all their digits.
double Sampler::weight_of(Candidates::const_iterator first, Candidates::const_iterator last) const {
  return std::accumulate(first, last, 0.0, [&](double sum, const Candidate& candidate) {
    return sum + weights_[static_cast<size_t>(candidate.id)];
  });
}

// Inverts the cumulative distribution of weights_ in the order of their indices. Blocks whose sum
// is 0 are skipped, regardless of their weights.
size_t Sampler::pick(double uniform) {
  const double goal = uniform * std::accumulate(sums_.begin(), sums_.end(), 0.0);
  double mass = 0;
  size_t block = 0;
  while (block + 1 < sums_.size() && mass + sums_[block] <= goal) mass += sums_[block++];
  const auto end = [&] { return std::min(weights_.size(), (block + 1) * kBlock); };
  for (size_t i = block * kBlock; sums_[block] > 0 && i < end(); ++i) {
    mass += weights_[i];
    if (mass > goal) return i;
  }
  // Rounding moved the goal to the end: use the last token with a positive weight.
  while (sums_[block] == 0) --block;
  size_t last = end() - 1;
  while (weights_[last] == 0) --last;
  return last;
}

}  // namespace talu
