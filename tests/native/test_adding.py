"""A new operation or weight format needs the files that ARCHITECTURE.md names, and no other."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What runs a network without Python and without the targets of particular processors.
SOURCES = (
    "operations", "plan", "preparation", "executor", "kv_cache", "packing", "portable_math",
    "threads", "targets/generic",
)  # fmt: skip

TWICE = """
struct Twice {
  static constexpr char kind[] = "twice";
  float times;

#if TALU_PREPARES
  static Twice prepare(Preparation& op) {
    op.reads(1, 0);
    op.same_width(0);
    return {static_cast<float>(op.number("times"))};
  }
#else
  void run(const Node& node, const Step& step) const {
    const Value& x = step.values[node.inputs[0]];
    const Value& out = step.values[node.output];
    for_rows(step, x.rows, x.width, [&](std::size_t row) {
      for_columns(x.width, [&](std::size_t c, std::size_t n) {
        store_some(out.row(row) + c, multiply(load_some(x.row(row) + c, n), splat(times)), n);
      });
    });
  }
#endif
};
"""

QUARTER = """
struct quarter {
  static constexpr char name[] = "quarter";
  static constexpr std::size_t group = 1, parts = 1;
  static constexpr auto& panels = kFloatPanels;
  static constexpr std::size_t sums_at_once = kFloatSumsAtOnce;
  static constexpr std::size_t columns_at_once = kFloatColumnsAtOnce;
  using element = float;
  using activation = float;

  static float widen(element x) { return 0.25f * x; }
  static f32x16 load_part(const element* p, std::size_t) {
    return multiply(load(p), splat(0.25f));
  }
  static f32x16 multiply_add(f32x16 w, const activation* x, f32x16 sum) {
    return fma(w, splat(*x), sum);
  }
};
"""

# Twice a product with quarters of the weights 0 .. 31, of the row (4, 8) of an embedding.
MAIN = """
#include <cstdio>
#include <vector>

#include "executor.h"
#include "packing.h"

using namespace talu;

int main() {
  std::vector<std::vector<float>> sources = {{0, 0, 4, 8}, std::vector<float>(32)};
  for (std::size_t i = 0; i < 32; ++i) sources[1][i] = static_cast<float>(i);
  std::vector<Memory> memory(2);
  auto packed = [&](std::size_t i, const char* name, std::size_t rows) {
    const Format* format = nullptr;
    for (const Format& known : generic_kernels.formats)
      if (std::string_view(known.name) == name) format = &known;
    std::byte* const at = memory[i].of(packed_bytes(*format, rows, 2));
    pack(*format, sources[i].data(), rows, 2, at, 1);
    return Tensor{format, rows, 2, at};
  };
  const std::vector<OpSpec> ops = {
      {"embed", {}, {packed(0, "f32", 2)}, 2, {}},
      {"linear", {0}, {packed(1, "quarter", 16)}, 16, {}},
      {"twice", {1}, {}, 16, {{"times", 2.0}}},
      {"output_rows", {2}, {}, 16, {}},
  };
  Executor executor(ops, {}, 3, 1, 16, 1, "f32", generic_kernels);
  float result[16];
  executor.step({{1}, {0}, {0, 1}, {0}, 1, 1, {0}}, result);
  for (const float x : result) std::printf("%g ", x);
}
"""


def with_line(path: Path, after: str, line: str) -> None:
    source = path.read_text()
    assert source.count(after) == 1
    path.write_text(source.replace(after, after + line))


def files_to_add(what: str) -> set[str]:
    """The files in native/ that the page names for adding something."""
    page = (ROOT / "ARCHITECTURE.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith(f"| {what} |"))
    return set(re.findall(r"`(native/[^`]+)`", row))


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adding") / "native"
    shutil.copytree(ROOT / "native", folder)
    (folder / "ops/twice.h").write_text(TWICE)
    with_line(folder / "operations.inc", '#include "ops/rope.h"\n', '#include "ops/twice.h"\n')
    with_line(folder / "operations.inc", "TALU_OPERATION(Rope)", " TALU_OPERATION(Twice)")
    (folder / "formats/quarter.h").write_text(QUARTER)
    with_line(
        folder / "kernels.inc", '#include "formats/f16.h"\n', '#include "formats/quarter.h"\n'
    )
    with_line(folder / "kernels.inc", "format_of<f16>(),", " format_of<quarter>(),")
    return folder


def changed(folder: Path) -> set[str]:
    found = set()
    for path in folder.rglob("*.*"):
        old = ROOT / "native" / path.relative_to(folder)
        if not old.exists() or old.read_bytes() != path.read_bytes():
            found.add(f"native/{path.relative_to(folder)}")
    return found


def test_the_files_that_change_are_those_that_the_page_names(native: Path) -> None:
    named = {
        *(name.replace("<name>", "twice") for name in files_to_add("an operation")),
        *(name.replace("<name>", "quarter") for name in files_to_add("a weight format")),
    }
    assert changed(native) == named


def with_few_formats(kernels: Path) -> None:
    """Leave out the formats that the network does not use: compiling them all takes long."""
    source = kernels.read_text()
    for name, left in {
        "Format kFormats": "format_of<quarter>(), format_of<f32>()",
        "KvDtype kKvDtypes": "kv_dtype_of<KvFloats<f32>>()",
    }.items():
        source, found = re.subn(rf"({name}\[\] = {{)[^}}]*}}", rf"\1{left}}}", source)
        assert found == 1
    kernels.write_text(source)


def test_a_network_runs_with_the_new_operation_and_the_new_format(
    native: Path, tmp_path: Path
) -> None:
    shutil.copytree(native, tmp_path / "native")
    with_few_formats(tmp_path / "native/kernels.inc")
    (tmp_path / "main.cpp").write_text(MAIN)

    def compile(*arguments: str) -> None:
        command = ["c++", "-std=c++20", "-pthread", "-Inative", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    sources = ["main.cpp", *(f"native/{name}.cpp" for name in SOURCES)]
    objects = [f"{number}.o" for number in range(len(sources))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda name, to: compile("-c", name, "-o", to), sources, objects))
    compile(*objects, "-o", "main")
    printed = subprocess.run([tmp_path / "main"], check=True, capture_output=True, text=True).stdout
    assert [float(x) for x in printed.split()] == [
        2 * (0.25 * (2 * row) * 4 + 0.25 * (2 * row + 1) * 8) for row in range(16)
    ]
