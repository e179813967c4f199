"""Shows what structured output does with the official JSON-Schema-Test-Suite.

    python tools/schema_coverage.py FOLDER

FOLDER holds the suite, as ``tools/files_for_tests.py schemas`` gets it. The result is the table in
``docs/guides/structured-output.md``, and the violations, of which there must be none: an invalid
instance that the grammar and the check together accept, or that the grammar accepts although the
report says that every keyword is enforced.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from talu.engine.grammars import Compiled, Grammars
from talu.exceptions import SchemaValidationError, StructuredOutputError
from talu.sources.resolve import BUNDLED, resolve
from talu.structured.formats import ResponseFormat, format_of
from talu.tokenizer.loading import load
from talu.tokenizer.tokenizer import Tokenizer

DRAFTS = ("draft7", "draft2019-09", "draft2020-12")
META = {
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}


@dataclass
class Coverage:
    """The results of one draft.

    Attributes:
        schemas: number of schemas.
        refused: schemas that are typed errors.
        enforced: schemas of which every keyword is enforced while generating.
        valid: valid instances of the schemas that are not refused.
        reachable: those that the grammar can write.
        invalid: invalid instances.
        generated: invalid instances that the grammar alone would write; the check refuses them.
        violations: what must not be.
    """

    schemas: int = 0
    refused: int = 0
    enforced: int = 0
    valid: int = 0
    reachable: int = 0
    invalid: int = 0
    generated: int = 0
    violations: list[str] = field(default_factory=list)


@cache
def grammars() -> tuple[Tokenizer, Grammars]:
    """The tokenizer and the grammars of the bundled model."""
    tokenizer = Tokenizer(load(resolve(BUNDLED).path))
    end = tokenizer.eos_token_id
    assert end is not None
    return tokenizer, Grammars(tokenizer, tokenizer.vocabulary_size, frozenset({end}))


def cases(folder: Path, draft: str) -> Iterator[tuple[str, Any, list[dict[str, Any]]]]:
    """Name, schema and tests of each case; schemas that are ``true`` or ``false`` are left out."""
    for path in sorted((folder / draft).glob("*.json")):
        if path.stem == "format":  # its instances are valid with any text; here a format is checked
            continue
        for case in json.loads(path.read_text()):
            schema = case["schema"]
            if isinstance(schema, dict):
                name = f"{draft}/{path.stem}: {case['description']}"
                yield name, {"$schema": META[draft], **schema}, case["tests"]


def covered(folder: Path, draft: str) -> Coverage:
    """What becomes of the suite of one draft."""
    result = Coverage()
    for name, schema, tests in cases(folder, draft):
        result.schemas += 1
        try:
            form = format_of(schema)
            compiled = grammars()[1].compiled(form)
        except StructuredOutputError:
            result.refused += 1
            continue
        whole = not compiled.report.checked
        result.enforced += whole
        for test in tests:
            _count(result, f"{name}: {test['description']}", form, compiled, test, whole)
    return result


def _count(
    result: Coverage,
    name: str,
    form: ResponseFormat,
    compiled: Compiled,
    test: dict[str, Any],
    whole: bool,
) -> None:
    text = json.dumps(test["data"], ensure_ascii=False)
    written = _writes(compiled, text)
    try:
        form.read(text, "stop")
        accepted = True
    except SchemaValidationError:
        accepted = False
    except StructuredOutputError:  # what it refers to is found only now
        return
    if test["valid"]:
        result.valid += 1
        result.reachable += written
        if not accepted:
            result.violations.append(f"{name}: valid, and refused by the check")
        return
    result.invalid += 1
    result.generated += written
    if written and (accepted or whole):
        result.violations.append(f"{name}: invalid, and written")


def _writes(compiled: Compiled, text: str) -> bool:
    matcher = compiled.begin()
    ids = grammars()[0].encode(text, special_tokens=False)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def table(results: dict[str, Coverage]) -> str:
    """The results as a table for the documentation."""
    lines = [
        "| draft | schemas | refused | all keywords enforced | valid instances that can be written "
        "| invalid instances | of these, left to the check | accepted |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for draft, each in results.items():
        lines.append(
            f"| {draft.removeprefix('draft')} | {each.schemas} | {each.refused} | {each.enforced} "
            f"| {each.reachable} of {each.valid} | {each.invalid} | {each.generated} "
            f"| {len(each.violations)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    found = {draft: covered(Path(sys.argv[1]), draft) for draft in DRAFTS}
    print(table(found))
    for each in found.values():
        print(*each.violations, sep="\n")
