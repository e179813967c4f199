// Binds the lists of texts and merges that tokenizers are made of.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.h"
#include "texts.h"
#include "tokenizer_json.h"

namespace nb = nanobind;
using namespace nanobind::literals;

namespace {

using talu::Merges;
using talu::Texts;

std::string_view view(const nb::bytes& data) { return {data.c_str(), data.size()}; }

std::size_t place(const char* what, nb::ssize_t at, std::size_t size) {
  if (at < 0 || static_cast<std::size_t>(at) >= size)
    throw nb::index_error((std::string(what) + " has no such entry").c_str());
  return static_cast<std::size_t>(at);
}

void check(const Texts& texts, const std::vector<std::uint32_t>& numbers) {
  for (const std::uint32_t number : numbers) place("Texts", number, texts.size());
}

nb::str text_of(const Texts& texts, std::size_t number) {
  const std::string_view text = texts[number];
  return nb::str(text.data(), text.size());
}

void bind_merges(nb::module_& module) {
  nb::class_<Merges>(module, "Merges", "Pairs of tokens that become one, in order.")
      .def(nb::new_([](const Texts& vocabulary, const Texts& lines) {
             auto merges = std::make_unique<Merges>();
             for (std::size_t i = 0; i < lines.size(); ++i) {
               const std::string_view line = lines[i];
               const std::size_t cut = line.find(' ', 1);
               if (cut == std::string_view::npos ||
                   !merges->add(vocabulary, line.substr(0, cut), line.substr(cut + 1)))
                 throw nb::index_error(std::to_string(i).c_str());
             }
             merges->index();
             return merges.release();
           }),
           "vocabulary"_a, "lines"_a)
      .def("__len__", &Merges::size)
      .def("__getitem__",
           [](const Merges& merges, nb::ssize_t at) {
             const auto pair = merges[place("Merges", at, merges.size())];
             return std::pair{pair.left, pair.right};
           })
      .def(
          "among",
          [](const Merges& merges, const Texts& vocabulary,
             const std::vector<std::uint32_t>& tokens) {
            check(vocabulary, tokens);
            return merges.among(vocabulary, tokens);
          },
          "vocabulary"_a, "tokens"_a,
          "The numbers of the merges whose result is one of the tokens, in order.");
}

}  // namespace

void talu::bind_texts(nb::module_& module) {
  nb::class_<Texts>(module, "Texts", "Many texts, found by their content; cannot be changed.")
      .def(nb::new_([](const std::vector<std::string_view>& given) {
             auto texts = std::make_unique<Texts>();
             for (const std::string_view text : given) texts->add(text);
             return texts.release();
           }),
           "texts"_a)
      .def_static(
          "read",
          [](const nb::bytes& data, std::size_t at, std::size_t count) {
            Texts texts;
            const std::size_t read = texts.read(view(data), at, count);
            return std::tuple{std::move(texts), read, at};
          },
          "data"_a, "at"_a, "count"_a,
          "Texts with their lengths before them; how many are complete and valid, and where they end.")
      .def("__len__", &Texts::size)
      .def("__getitem__",
           [](const Texts& texts, nb::ssize_t at) {
             return text_of(texts, place("Texts", at, texts.size()));
           })
      .def(
          "find",
          [](const Texts& texts, std::string_view text) -> std::optional<std::uint32_t> {
            const std::uint32_t number = texts.find(text);
            if (number == talu::kNoText) return std::nullopt;
            return number;
          },
          "text"_a, "The number of the last text that equals this one; None if there is none.")
      .def(
          "within",
          [](const Texts& texts, std::string_view text, std::string_view prefix) {
            return texts.within(text, prefix);
          },
          "text"_a, "prefix"_a = "",
          "The numbers of all texts that are the prefix and a part of the text, in order.")
      .def(
          "incomplete",
          [](const Texts& texts, const nb::bytes& chosen) {
            if (chosen.size() != texts.size())
              throw nb::value_error("a byte for each text is needed");
            return texts.incomplete(view(chosen));
          },
          "chosen"_a,
          "Those of the chosen texts with a character that is no chosen text itself. `chosen` has a\n"
          "byte for each text, which is not 0 if it is chosen.")
      .def_prop_ro("repeated",
                   [](const Texts& texts) -> std::optional<std::uint32_t> {
                     if (texts.repeated() == talu::kNoText) return std::nullopt;
                     return texts.repeated();
                   },
                   "The number of a text that occurs twice.")
      .def_prop_ro("characters", &Texts::characters, "The characters of all texts together.")
      .def_prop_ro("longest", &Texts::longest, "The characters of the longest text.");
  bind_merges(module);
  module.def(
      "read_tokenizer_json",
      [](const nb::bytes& content) -> std::optional<nb::tuple> {
        auto read = talu::read_tokenizer_json(view(content));
        if (!read) return std::nullopt;
        return nb::make_tuple(nb::bytes(read->rest.data(), read->rest.size()),
                              std::move(read->vocabulary), std::move(read->merges));
      },
      "content"_a,
      "The file without its vocabulary and merges, and these; None if it is no usual BPE file.");
}
