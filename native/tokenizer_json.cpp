// Reads vocabulary and merges of the model in tokenizer.json in one pass; all else is skipped.
#include "tokenizer_json.h"

#include <cstdint>
#include <utility>
#include <vector>

namespace talu {
namespace {

constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxIds = std::size_t{1} << 24;

class Reader {
 public:
  explicit Reader(std::string_view content, std::size_t at = 0) : content_(content), at_(at) {}

  std::size_t at() const { return at_; }
  std::size_t rest() const { return content_.size() - at_; }

  bool take(char wanted) {
    space();
    if (at_ >= content_.size() || content_[at_] != wanted) return false;
    ++at_;
    return true;
  }

  bool next_is(char wanted) {
    space();
    return at_ < content_.size() && content_[at_] == wanted;
  }

  bool ends() {
    space();
    return at_ == content_.size();
  }

  // Reads a string with its escapes resolved.
  bool text(std::string& out) {
    out.clear();
    if (!take('"')) return false;
    for (unsigned char bits = 0;;) {
      const std::size_t start = at_;
      for (; at_ < content_.size(); ++at_) {
        const auto byte = static_cast<unsigned char>(content_[at_]);
        if (byte == '"' || byte == '\\' || byte < 0x20) break;
        bits |= byte;
      }
      out.append(content_, start, at_ - start);
      if (at_ >= content_.size()) return false;
      const char found = content_[at_++];
      if (found == '"') return bits < 0x80 || is_utf8(out);  // escapes are valid characters
      if (found != '\\' || !escape(out)) return false;
    }
  }

  bool id(std::uint32_t& out) {
    space();
    const std::size_t start = at_;
    std::size_t value = 0;
    while (at_ < content_.size() && content_[at_] >= '0' && content_[at_] <= '9') {
      value = value * 10 + static_cast<std::size_t>(content_[at_++] - '0');
      if (value >= kMaxIds) return false;
    }
    out = static_cast<std::uint32_t>(value);
    return at_ > start && (at_ == start + 1 || content_[start] != '0');
  }

  // Moves past any value; what is in it is not checked further.
  bool skip(int depth = 0) {
    space();
    if (at_ >= content_.size() || depth > kMaxDepth) return false;
    const char first = content_[at_];
    if (first == '"') return skip_text();
    if (first != '{' && first != '[') return skip_word();
    ++at_;
    const char last = first == '{' ? '}' : ']';
    if (take(last)) return true;
    do {
      if (first == '{' && !(next_is('"') && skip_text() && take(':'))) return false;
      if (!skip(depth + 1)) return false;
    } while (take(','));
    return take(last);
  }

 private:
  void space() {
    while (at_ < content_.size() && (content_[at_] == ' ' || content_[at_] == '\n' ||
                                     content_[at_] == '\t' || content_[at_] == '\r'))
      ++at_;
  }

  bool skip_text() {
    for (++at_; at_ < content_.size(); ++at_) {
      if (content_[at_] == '"') {
        ++at_;
        return true;
      }
      if (content_[at_] == '\\') ++at_;
    }
    return false;
  }

  bool skip_word() {
    const std::size_t start = at_;
    while (at_ < content_.size() && (content_[at_] == '-' || content_[at_] == '+' ||
                                     content_[at_] == '.' || is_letter(content_[at_])))
      ++at_;
    return at_ > start;
  }

  static bool is_letter(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  }

  bool escape(std::string& out) {
    constexpr std::string_view letters = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    if (at_ >= content_.size()) return false;
    const char letter = content_[at_++];
    if (letter == 'u') return character(out);
    const std::size_t place = letters.find(letter);
    if (place == std::string_view::npos) return false;
    out += meanings[place];
    return true;
  }

  // Reads a character after `\u`, whose second half may follow.
  bool character(std::string& out) {
    std::uint32_t unit = 0, low = 0;
    if (!hex(unit)) return false;
    if (unit >= 0xDC00 && unit < 0xE000) return false;
    if (unit >= 0xD800 && unit < 0xDC00) {
      if (content_.substr(at_, 2) != "\\u") return false;
      at_ += 2;
      if (!hex(low) || low < 0xDC00 || low >= 0xE000) return false;
      unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
    }
    append(out, unit);
    return true;
  }

  bool hex(std::uint32_t& out) {
    if (content_.size() - at_ < 4) return false;
    out = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = content_[at_++];
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) return false;
      out = out * 16 + static_cast<std::uint32_t>(digit);
    }
    return true;
  }

  static void append(std::string& out, std::uint32_t c) {
    const auto byte = [&out](std::uint32_t value) { out += static_cast<char>(value); };
    const auto rest = [&byte, c](int shift) { byte(0x80 | ((c >> shift) & 0x3F)); };
    if (c < 0x80) {
      byte(c);
    } else if (c < 0x800) {
      byte(0xC0 | (c >> 6)), rest(0);
    } else if (c < 0x10000) {
      byte(0xE0 | (c >> 12)), rest(6), rest(0);
    } else {
      byte(0xF0 | (c >> 18)), rest(12), rest(6), rest(0);
    }
  }

  std::string_view content_;
  std::size_t at_;
};

struct Span {
  std::size_t start = 0, end = 0;
  bool known() const { return end > 0; }
};

bool read_vocabulary(Reader& reader, Texts& out) {
  Texts found;
  std::vector<std::uint32_t> ids;
  found.reserve(reader.rest() / 16, reader.rest());
  std::string text;
  std::uint32_t id = 0;
  if (!reader.take('{')) return false;
  do {
    if (!reader.text(text) || !reader.take(':') || !reader.id(id)) return false;
    found.add(text);
    ids.push_back(id);
  } while (reader.take(','));
  if (!reader.take('}')) return false;
  std::vector<std::uint32_t> places(ids.size(), kNoText);
  bool ordered = true;
  for (std::uint32_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= ids.size() || places[ids[i]] != kNoText) return false;
    places[ids[i]] = i;
    ordered = ordered && ids[i] == i;
  }
  if (ordered) {
    out = std::move(found);
  } else {
    out.reserve(ids.size(), reader.at());
    for (const std::uint32_t place : places) out.add(found[place]);
  }
  return out.repeated() == kNoText;
}

// A merge is a pair of strings, or one string with a space in the middle.
bool read_merges(Reader& reader, const Texts& vocabulary, Merges& out) {
  std::string left, right;
  if (!reader.take('[')) return false;
  if (!reader.take(']')) {
    do {
      if (reader.take('[')) {
        if (!reader.text(left) || !reader.take(',') || !reader.text(right) || !reader.take(']'))
          return false;
      } else {
        if (!reader.text(left)) return false;
        const std::size_t cut = left.find(' ');
        if (cut == std::string::npos || left.find(' ', cut + 1) != std::string::npos) return false;
        right = left.substr(cut + 1);
        left.resize(cut);
      }
      if (!out.add(vocabulary, left, right)) return false;
    } while (reader.take(','));
    if (!reader.take(']')) return false;
  }
  out.index();
  return true;
}

// Where the vocabulary and the merges are.
struct Places {
  Span vocabulary, merges;
};

// Reads the vocabulary, or merges after it; merges before it are skipped.
bool read_entry(Reader& reader, bool is_merges, Places& places, TokenizerJson& out) {
  Span& place = is_merges ? places.merges : places.vocabulary;
  if (place.known() || !reader.next_is(is_merges ? '[' : '{')) return false;
  const std::size_t start = reader.at();
  const bool fits = !is_merges                  ? read_vocabulary(reader, out.vocabulary)
                    : places.vocabulary.known() ? read_merges(reader, out.vocabulary, out.merges)
                                                : reader.skip();
  place = {start, reader.at()};
  return fits;
}

bool read_model(std::string_view content, Reader& reader, Places& places, TokenizerJson& out) {
  std::string key;
  if (!reader.take('{')) return false;
  do {
    if (!reader.text(key) || !reader.take(':')) return false;
    const bool is_merges = key == "merges", is_entry = is_merges || key == "vocab";
    if (!(is_entry ? read_entry(reader, is_merges, places, out) : reader.skip())) return false;
  } while (reader.take(','));
  const auto& [vocabulary, merges] = places;
  if (!reader.take('}') || !vocabulary.known() || !merges.known()) return false;
  if (merges.start > vocabulary.start) return true;
  Reader skipped(content.substr(0, merges.end), merges.start);
  return read_merges(skipped, out.vocabulary, out.merges);
}

bool read_file(std::string_view content, Places& places, TokenizerJson& out) {
  Reader reader(content);
  std::string key;
  if (!reader.take('{')) return false;
  do {
    if (!reader.text(key) || !reader.take(':')) return false;
    if (key != "model") {
      if (!reader.skip()) return false;
      continue;
    }
    if (places.vocabulary.known()) return false;
    if (!read_model(content, reader, places, out)) return false;
  } while (reader.take(','));
  return reader.take('}') && reader.ends() && places.vocabulary.known();
}

}  // namespace

std::optional<TokenizerJson> read_tokenizer_json(std::string_view content) {
  Places places;
  TokenizerJson result;
  if (!read_file(content, places, result)) return std::nullopt;
  std::pair first{places.vocabulary, "{}"}, second{places.merges, "[]"};
  if (first.first.start > second.first.start) std::swap(first, second);
  result.rest.append(content.substr(0, first.first.start)).append(first.second);
  result.rest.append(content.substr(first.first.end, second.first.start - first.first.end));
  result.rest.append(second.second).append(content.substr(second.first.end));
  return result;
}

}  // namespace talu
