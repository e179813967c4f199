// Declares a list of many texts in one block of memory, which finds them by their content.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace talu {

constexpr std::uint32_t kNoText = UINT32_MAX;

// Hashes bytes one after the other, so that all beginnings of a text are hashed in one pass. No file can be made
// such that its texts collide, because the factor is random.
class Hasher {
 public:
  void add(unsigned char byte);
  void add(std::string_view bytes);
  std::uint64_t value() const;

 private:
  std::uint64_t state_ = 1;
};

// Texts are prepared for `find`, `within` and `repeated` by the first of these calls, because many lists are never
// searched. So a list must not be used by several threads at once, and no text may be added after such a call.
class Texts {
 public:
  std::size_t size() const { return ends_.size(); }
  std::string_view operator[](std::size_t i) const;
  void add(std::string_view text);
  void reserve(std::size_t texts, std::size_t bytes);

  // Adds `count` texts that begin at `at`, each after its length in 8 bytes, as GGUF files have them; moves `at`
  // past those that are complete and valid UTF-8. Returns how many they are.
  std::size_t read(std::string_view data, std::size_t& at, std::size_t count);

  // The number of the text, the last one if several are equal, or kNoText.
  std::uint32_t find(std::string_view text) const;
  std::size_t characters() const { return characters_; }
  std::size_t longest() const { return longest_characters_; }
  // A text that occurs twice, or kNoText.
  std::uint32_t repeated() const;
  // The numbers of the texts that are a part of `text` after `prefix`, in ascending order, each once.
  std::vector<std::uint32_t> within(std::string_view text, std::string_view prefix) const;
  // The chosen texts that have a character which is no chosen text itself; `chosen` has a byte for each text, which
  // is not 0 if it is chosen.
  std::vector<std::uint32_t> incomplete(std::string_view chosen) const;
  // The number of the text that is `start` and `end`, whose bytes have been hashed; as `find`.
  std::uint32_t look_up(std::uint64_t hash, std::string_view start, std::string_view end) const;

 private:
  void add(std::string_view text, std::size_t characters);
  void index() const;

  std::string bytes_;
  std::vector<std::uint64_t> ends_;
  std::size_t longest_ = 0;  // in bytes
  std::size_t characters_ = 0, longest_characters_ = 0;
  mutable std::vector<std::uint32_t> slots_;  // empty until something is looked up
  mutable std::uint32_t repeated_ = kNoText;
};

// The merges of a BPE model, in order: pairs of tokens that become one.
class Merges {
 public:
  struct Pair {
    std::uint32_t left, right;
  };
  std::size_t size() const { return pairs_.size(); }
  Pair operator[](std::size_t i) const { return pairs_[i]; }
  // Adds the merge of two texts. False if they, or the joined text, are not in the vocabulary.
  bool add(const Texts& vocabulary, std::string_view left, std::string_view right);
  void index();
  // The merges whose result is one of the tokens, in order; of equal ones the last.
  std::vector<std::uint32_t> among(const Texts& vocabulary,
                                   const std::vector<std::uint32_t>& tokens) const;

 private:
  std::vector<Pair> pairs_;
  std::vector<std::uint32_t> slots_;
};

// Whether the bytes are valid UTF-8.
bool is_utf8(std::string_view bytes);

}  // namespace talu
