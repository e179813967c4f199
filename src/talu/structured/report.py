"""Reports which keywords of a schema were enforced, checked or ignored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from talu.structured.keywords import ANNOTATIONS, asserts, draft_of, pointer
from talu.structured.references import reachable
from talu.structured.string_formats import CHECKED_FORMATS

__all__ = ["SchemaReport", "checked_report"]


@dataclass(frozen=True, slots=True)
class SchemaReport:
    """What was done with each keyword of a schema; a keyword is named by its JSON pointer.

    Annotations, such as ``title`` and ``default``, demand nothing and are not listed.

    Attributes:
        enforced: keywords that no generated token could violate.
        checked: keywords that the complete answer was checked for.
        ignored: keywords that demand nothing by the specification and may have been meant
            otherwise: unknown ones, such as misspelled ones, those that the schema's draft does not
            have, those beside a ``$ref`` until draft 7, those that need another one, such as
            ``then`` without ``if``, and formats without a definition.
        enforced_by: who enforced: ``"talu"``, the name of a provider, or None for nobody. What a
            provider enforces is not known keyword by keyword, so all are checked as well.
        explained: how the prompt explains the form to the model: ``"typescript"``,
            ``"json_schema"``, ``"xml_schema"``, ``"choice"``, or None for not at all.
    """

    enforced: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    enforced_by: str | None = None
    explained: str | None = None


def checked_report(
    schema: Mapping[str, Any], asked: str | None = None, explained: str | None = None
) -> SchemaReport:
    """The report on a schema that nothing in this process enforces.

    Args:
        schema: the schema.
        asked: the provider that was asked to enforce it; None for nobody.
        explained: how the prompt explains it.
    """
    checked: list[str] = []
    ignored: list[str] = []
    root = dict(schema)
    draft = draft_of(root)
    for path, node in reachable(root).items():
        for key in node.keys() - ANNOTATIONS:
            demands = asserts(node, key, draft)
            if key == "format":
                demands = demands and node[key] in CHECKED_FORMATS
            (checked if demands else ignored).append(pointer(path, key))
    return SchemaReport((), tuple(sorted(checked)), tuple(sorted(ignored)), asked, explained)
