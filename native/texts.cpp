// Stores texts one after the other, with a hash table of their numbers.
#include "texts.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <random>

namespace talu {
namespace {

constexpr std::size_t kCharacters = 0x110000;
constexpr std::size_t kAhead = 16;  // texts whose slots are fetched while those before them are placed
constexpr std::size_t kUsualBytes = 12;  // of a token in a vocabulary, at most
constexpr std::uint64_t kNotAscii = 0x8080808080808080u;  // bits of eight bytes
constexpr std::uint64_t kPrime = (std::uint64_t{1} << 61) - 1;

std::uint64_t random_factor() {
  std::random_device random;
  const std::uint64_t bits = (std::uint64_t{random()} << 32) | random();
  return bits % (kPrime - 512) + 256;
}

const std::uint64_t kFactor = random_factor();

__extension__ using Wide = unsigned __int128;

// The remainder modulo kPrime, of less than 2^123.
std::uint64_t reduced(Wide value) {
  std::uint64_t sum =
      (static_cast<std::uint64_t>(value) & kPrime) + static_cast<std::uint64_t>(value >> 61);
  sum = (sum & kPrime) + (sum >> 61);
  return sum >= kPrime ? sum - kPrime : sum;
}

// kFactor to the power of 0 to 8, modulo kPrime.
const std::array<std::uint64_t, 9> kPowers = [] {
  std::array<std::uint64_t, 9> powers{1};
  for (std::size_t i = 1; i < powers.size(); ++i) powers[i] = reduced(Wide{powers[i - 1]} * kFactor);
  return powers;
}();

std::uint64_t mixed(std::uint64_t value) {
  value *= 0x9E3779B97F4A7C15u;
  return value ^ (value >> 29);
}

std::size_t slots_for(std::size_t count) { return std::bit_ceil(2 * count + 2); }

bool continues(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// The characters of valid UTF-8.
std::size_t characters_in(std::string_view text) {
  return text.size() -
         static_cast<std::size_t>(std::count_if(text.begin(), text.end(), continues));
}

bool is_ascii(std::string_view text) {
  std::uint64_t bits = 0, word = 0;
  std::size_t at = 0;
  for (; at + 8 <= text.size(); at += 8) {
    std::memcpy(&word, text.data() + at, 8);
    bits |= word;
  }
  for (; at < text.size(); ++at) bits |= static_cast<unsigned char>(text[at]);
  return (bits & kNotAscii) == 0;
}

// The bytes of a character that begins with this one, in valid UTF-8.
std::size_t width(char byte) {
  const auto first = static_cast<unsigned char>(byte);
  return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

std::uint32_t character(std::string_view text, std::size_t at) {
  const std::size_t bytes = width(text[at]);
  std::uint32_t value = static_cast<unsigned char>(text[at]) & (bytes == 1 ? 0x7Fu : 0x7Fu >> bytes);
  for (std::size_t i = 1; i < bytes; ++i)
    value = (value << 6) | (static_cast<unsigned char>(text[at + i]) & 0x3Fu);
  return value;
}

// Whether the second byte makes the character neither longer than necessary, nor a surrogate, nor too large.
bool fits(unsigned char first, unsigned char second) {
  switch (first) {
    case 0xE0: return second >= 0xA0;
    case 0xED: return second <= 0x9F;
    case 0xF0: return second >= 0x90;
    case 0xF4: return second <= 0x8F;
    default: return true;
  }
}

std::uint64_t hash_of(std::string_view text) {
  Hasher hasher;
  hasher.add(text);
  return hasher.value();
}

std::uint64_t hash_of(Merges::Pair pair) {
  const std::uint64_t both = (std::uint64_t{pair.left} << 32) | pair.right;
  return mixed(mixed(both ^ kFactor) ^ (both << 32));
}

}  // namespace

void Hasher::add(unsigned char byte) {
  state_ = reduced(Wide{state_} * kFactor + byte);
}

// As byte by byte, but the products of eight bytes do not wait for one another.
void Hasher::add(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::size_t count = std::min(bytes.size(), kPowers.size() - 1);
    Wide sum = Wide{state_} * kPowers[count];
    for (std::size_t i = 0; i < count; ++i)
      sum += Wide{kPowers[count - 1 - i]} * static_cast<unsigned char>(bytes[i]);
    state_ = reduced(sum);
    bytes.remove_prefix(count);
  }
}

std::uint64_t Hasher::value() const { return mixed(state_); }

std::string_view Texts::operator[](std::size_t i) const {
  const std::size_t start = i == 0 ? 0 : ends_[i - 1];
  return std::string_view(bytes_).substr(start, ends_[i] - start);
}

void Texts::add(std::string_view text) { add(text, characters_in(text)); }

void Texts::add(std::string_view text, std::size_t characters) {
  bytes_.append(text);
  ends_.push_back(bytes_.size());
  longest_ = std::max(longest_, text.size());
  characters_ += characters;
  longest_characters_ = std::max(longest_characters_, characters);
}

void Texts::reserve(std::size_t texts, std::size_t bytes) {
  ends_.reserve(texts);
  bytes_.reserve(bytes);
}

std::size_t Texts::read(std::string_view data, std::size_t& at, std::size_t count) {
  const std::size_t rest = data.size() - std::min(at, data.size());
  const std::size_t most = std::min(count, rest / 8);
  reserve(size() + most, bytes_.size() + std::min(rest - 8 * most, kUsualBytes * most));
  for (std::size_t done = 0; done < count; ++done) {
    if (at > data.size() || data.size() - at < 8) return done;
    std::uint64_t length;
    std::memcpy(&length, data.data() + at, 8);
    if constexpr (std::endian::native == std::endian::big) length = __builtin_bswap64(length);
    if (length > data.size() - at - 8) return done;
    const std::string_view text = data.substr(at + 8, length);
    const bool plain = is_ascii(text);
    if (!plain && !is_utf8(text)) return done;
    add(text, plain ? text.size() : characters_in(text));
    at += 8 + length;
  }
  return count;
}

void Texts::index() const {
  slots_.assign(slots_for(size()), kNoText);
  const std::size_t mask = slots_.size() - 1;
  std::array<std::size_t, kAhead> first{};  // the slots of the next texts, before collisions
  const auto fetch = [&](std::size_t number) {
    const std::size_t slot = hash_of((*this)[number]) & mask;
    first[number % kAhead] = slot;
    __builtin_prefetch(&slots_[slot], 1);
  };
  for (std::size_t number = 0; number < std::min(kAhead, size()); ++number) fetch(number);
  for (std::uint32_t number = 0; number < size(); ++number) {
    const std::string_view text = (*this)[number];
    std::size_t slot = first[number % kAhead];
    if (number + kAhead < size()) fetch(number + kAhead);
    while (slots_[slot] != kNoText && (*this)[slots_[slot]] != text) slot = (slot + 1) & mask;
    if (slots_[slot] != kNoText && repeated_ == kNoText) repeated_ = slots_[slot];
    slots_[slot] = number;
  }
}

std::uint32_t Texts::repeated() const {
  if (slots_.empty()) index();
  return repeated_;
}

std::uint32_t Texts::look_up(std::uint64_t hash, std::string_view start,
                             std::string_view end) const {
  if (slots_.empty()) index();
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t slot = hash & mask;; slot = (slot + 1) & mask) {
    if (slots_[slot] == kNoText) return kNoText;
    const std::string_view text = (*this)[slots_[slot]];
    if (text.size() == start.size() + end.size() && text.starts_with(start) &&
        text.ends_with(end))
      return slots_[slot];
  }
}

std::uint32_t Texts::find(std::string_view text) const { return look_up(hash_of(text), "", text); }

std::vector<std::uint32_t> Texts::within(std::string_view text, std::string_view prefix) const {
  Hasher first;
  first.add(prefix);
  std::vector<std::uint32_t> found;
  const auto note = [&found](std::uint32_t number) {
    if (number != kNoText) found.push_back(number);
  };
  note(look_up(first.value(), prefix, ""));
  for (std::size_t start = 0; start < text.size(); ++start) {
    if (continues(text[start])) continue;
    Hasher hasher = first;
    const std::size_t most = std::min(longest_, text.size() - start);
    for (std::size_t length = 1; length <= most; ++length) {
      hasher.add(static_cast<unsigned char>(text[start + length - 1]));
      if (start + length < text.size() && continues(text[start + length])) continue;
      note(look_up(hasher.value(), prefix, text.substr(start, length)));
    }
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

std::vector<std::uint32_t> Texts::incomplete(std::string_view chosen) const {
  std::vector<bool> known(kCharacters);
  for (std::size_t number = 0; number < size(); ++number) {
    const std::string_view text = (*this)[number];
    if (chosen[number] && !text.empty() && width(text[0]) == text.size())
      known[character(text, 0)] = true;
  }
  std::vector<std::uint32_t> found;
  for (std::uint32_t number = 0; number < size(); ++number) {
    if (!chosen[number]) continue;
    const std::string_view text = (*this)[number];
    for (std::size_t at = 0; at < text.size(); at += width(text[at]))
      if (!known[character(text, at)]) {
        found.push_back(number);
        break;
      }
  }
  return found;
}

bool Merges::add(const Texts& vocabulary, std::string_view left, std::string_view right) {
  Hasher hasher;
  hasher.add(left);
  const Pair pair{vocabulary.look_up(hasher.value(), "", left), vocabulary.find(right)};
  if (pair.left == kNoText || pair.right == kNoText) return false;
  hasher.add(right);
  if (vocabulary.look_up(hasher.value(), left, right) == kNoText) return false;
  pairs_.push_back(pair);
  return true;
}

void Merges::index() {
  slots_.assign(slots_for(size()), kNoText);
  const std::size_t mask = slots_.size() - 1;
  for (std::uint32_t number = 0; number < size(); ++number) {
    std::size_t slot = hash_of(pairs_[number]) & mask;
    while (slots_[slot] != kNoText && (pairs_[slots_[slot]].left != pairs_[number].left ||
                                       pairs_[slots_[slot]].right != pairs_[number].right))
      slot = (slot + 1) & mask;
    slots_[slot] = number;
  }
}

std::vector<std::uint32_t> Merges::among(const Texts& vocabulary,
                                         const std::vector<std::uint32_t>& tokens) const {
  const std::size_t mask = slots_.size() - 1;
  std::vector<std::uint32_t> found;
  for (const std::uint32_t token : tokens) {
    const std::string_view text = vocabulary[token];
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      if (continues(text[cut])) continue;
      const std::uint32_t left = vocabulary.find(text.substr(0, cut));
      if (left == kNoText) continue;
      const std::uint32_t right = vocabulary.find(text.substr(cut));
      if (right == kNoText) continue;
      std::size_t slot = hash_of(Pair{left, right}) & mask;
      while (slots_[slot] != kNoText &&
             (pairs_[slots_[slot]].left != left || pairs_[slots_[slot]].right != right))
        slot = (slot + 1) & mask;
      if (slots_[slot] != kNoText) found.push_back(slots_[slot]);
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

bool is_utf8(std::string_view bytes) {
  const auto* at = reinterpret_cast<const unsigned char*>(bytes.data());
  const auto* end = at + bytes.size();
  for (std::uint64_t word = 0; end - at >= 8; at += 8) {
    std::memcpy(&word, at, 8);
    if (word & kNotAscii) break;
  }
  while (at < end) {
    const unsigned char first = *at++;
    if (first < 0x80) continue;
    const int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
    if (first < 0xC2 || first > 0xF4 || end - at < more || !fits(first, *at)) return false;
    for (int i = 0; i < more; ++i)
      if ((*at++ & 0xC0) != 0x80) return false;
  }
  return true;
}

}  // namespace talu
