"""Follows the references of a schema to places in it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from talu.structured.keywords import DEFINITIONS, asserts, draft_of, pointer, subschemas

__all__ = ["References", "place_of", "reachable", "resolved", "targets_of"]

REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def place_of(node: dict[str, Any]) -> str | None:
    """The reference of a schema, such as ``#/$defs/name``; None for none, or one by a name."""
    reference = node.get("$ref")
    is_place = isinstance(reference, str) and (reference == "#" or reference.startswith("#/"))
    return str(reference) if is_place else None


def resolved(root: Any, reference: str) -> Any:
    """What a reference such as ``#/$defs/name`` refers to.

    Raises:
        LookupError: there is nothing at this place.
    """
    found = root
    for step in reference.removeprefix("#").split("/")[1:]:
        key = _unquoted(step).replace("~1", "/").replace("~0", "~")
        found = found[int(key)] if isinstance(found, list) and key.isdigit() else found[key]
    return found


def _has_names(root: dict[str, Any]) -> bool:
    """Whether a reference is by another name than a place, so that any definition may be meant."""
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict):
            continue
        for key in REFERENCES:
            name = node.get(key)
            if isinstance(name, str) and name != "#" and not name.startswith("#/"):
                return True
        waiting += [each for _, each in subschemas(node)]
    return False


def _unquoted(step: str) -> str:
    """A step of a pointer without the percent encoding of URIs."""
    if "%" not in step:
        return step
    parts = step.split("%")
    encoded = bytearray(parts[0].encode())
    for part in parts[1:]:
        try:
            encoded += bytes([int(part[:2], 16)]) + part[2:].encode()
        except ValueError:
            encoded += b"%" + part.encode()
    return encoded.decode("utf-8", "replace")


def reachable(root: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The schemas that take part in a check, by their pointers; each definition once."""
    found: dict[str, dict[str, Any]] = {}
    waiting: list[tuple[str, Any]] = [("#", root)]
    draft, every = draft_of(root), _has_names(root)
    while waiting:
        path, node = waiting.pop()
        if not isinstance(node, dict) or path in found:
            continue
        found[path] = node
        waiting += [
            (pointer(path, *keys), each)
            for keys, each in subschemas(node)
            if asserts(node, str(keys[0]), draft) or (every and keys[0] in DEFINITIONS)
        ]
        if (reference := place_of(node)) is not None:
            waiting.append((reference, resolved(root, reference)))
    return found


def targets_of(root: dict[str, Any]) -> dict[str, Any]:
    """The schemas that references lead to at places where no keyword has a schema."""
    nodes = reachable(root).values()
    places = {place for node in nodes if (place := place_of(node)) is not None}
    known = {id(each) for node in nodes for _, each in subschemas(node)} | {id(root)}
    found = {place: resolved(root, place) for place in sorted(places)}
    return {place: node for place, node in found.items() if id(node) not in known}


class References:
    """The references in a schema: to places and names, and dynamic ones to all they can mean."""

    def __init__(self, root: dict[str, Any], nodes: Iterable[dict[str, Any]]) -> None:
        """Collect the names in a schema, from all of its subschemas."""
        self._root, self._draft = root, draft_of(root)
        self._named: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._named["#"].append(root)
        for node in nodes:
            for key, prefix in (("$anchor", "#"), ("$dynamicAnchor", "#"), ("$id", ""), ("id", "")):
                if isinstance(node.get(key), str):
                    self._named[prefix + node[key]].append(node)
            if node.get("$recursiveAnchor") is True:
                self._named["#"].append(node)

    def targets(self, node: dict[str, Any]) -> Iterator[Any]:
        """The schemas that the references of a schema lead to.

        Raises:
            LookupError: there is nothing at the place.
        """
        place = place_of(node)
        if place is not None:
            yield resolved(self._root, place)
        for key in REFERENCES:
            name = node.get(key)
            is_name = isinstance(name, str) and (key != "$ref" or place is None)
            if is_name and asserts(node, key, self._draft):
                yield from self._named.get(str(name), ())

    def target(self, reference: str) -> Any:
        """What ``$ref`` means; None if that is not in the schema."""
        if place_of({"$ref": reference}) is not None:
            return resolved(self._root, reference)
        return next(iter(self._named.get(reference, ())), None)
