// Declares the reading of the vocabulary and the merges of tokenizer.json.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "texts.h"

namespace talu {

struct TokenizerJson {
  std::string rest;  // the file with an empty vocabulary and no merges
  Texts vocabulary;  // by id
  Merges merges;
};

// Reads a BPE model out of tokenizer.json. Nothing is returned unless the file is as usual: a vocabulary of different
// texts with the ids 0, 1, 2 …, and merges of its texts. The rest is copied, not checked.
std::optional<TokenizerJson> read_tokenizer_json(std::string_view content);

}  // namespace talu
