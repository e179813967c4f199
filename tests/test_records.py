"""``talu.records.dataclass`` makes the classes that ``dataclasses.dataclass`` would make."""

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from talu import records


def classes(decorate: Callable[..., Any]) -> list[type]:
    @decorate(frozen=True, slots=True)
    class Record:
        """A record."""

        first: int
        second: str = "x"
        third: list[int] = dataclasses.field(default_factory=list, compare=False)
        fourth: int | None = dataclasses.field(default=None, kw_only=True, repr=False)
        fifth: int = dataclasses.field(default=3, init=False)

    @decorate(frozen=True, slots=True, kw_only=True, repr=False)
    class Checked:
        """A record that is checked."""

        value: int
        other: tuple[int, ...] = dataclasses.field(default=(), hash=False)

        def __post_init__(self) -> None:
            if self.value < 0:
                raise ValueError("negative")

        def __repr__(self) -> str:
            return "checked"

    @decorate(frozen=True, slots=True)
    class Derived(Record):
        """A record with one more field."""

        sixth: int = 6

    @decorate(frozen=True, slots=True)
    class Empty:
        """A record without fields."""

    return [Record, Checked, Derived, Empty]


def test_a_class_cannot_be_frozen_unless_its_base_is() -> None:
    @dataclasses.dataclass
    class Base:
        """A record that can be changed."""

        value: int = 0

    with pytest.raises(TypeError, match="cannot inherit frozen dataclass from a non-frozen one"):

        @records.dataclass(frozen=True, slots=True)
        class Derived(Base):
            """A record that cannot."""


PAIRS = [*zip(classes(records.dataclass), classes(dataclasses.dataclass), strict=True)]
OURS, THEIRS = PAIRS[0]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_the_signature_and_the_fields_are_the_same(ours: Any, theirs: Any) -> None:
    assert str(inspect.signature(ours)) == str(inspect.signature(theirs))
    assert ours.__match_args__ == theirs.__match_args__
    assert ours.__slots__ == theirs.__slots__
    assert ours.__init__.__qualname__ == theirs.__init__.__qualname__
    names = [field.name for field in dataclasses.fields(theirs)]
    assert [field.name for field in dataclasses.fields(ours)] == names
    assert ours.__dataclass_params__.frozen is True


@pytest.mark.parametrize(
    ("args", "options"), [((1,), {}), ((1, "y", [2]), {"fourth": 4}), ((), {"first": 0})]
)
def test_instances_are_the_same(args: tuple[Any, ...], options: dict[str, Any]) -> None:
    ours, theirs = OURS(*args, **options), THEIRS(*args, **options)
    assert repr(ours) == repr(theirs)
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert hash(ours) == hash(theirs)
    assert ours == OURS(*args, **options) == copy.deepcopy(ours)
    assert ours != dataclasses.replace(ours, second="z") != theirs
    assert ours.__getstate__() == theirs.__getstate__()


def test_fields_cannot_be_changed_or_deleted() -> None:
    record = OURS(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'first'"):
        record.first = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'first'"):
        del record.first
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'other'"):
        record.other = 2


@pytest.mark.parametrize("cls", PAIRS[0])
def test_wrong_arguments_are_refused_as_by_any_function(cls: Any) -> None:
    for args, options, words in (
        ((), {}, "missing 1 required positional argument: 'first'"),
        ((1,), {"sixth": 1}, "unexpected keyword argument 'sixth'"),
        ((1, "", [], 4), {}, "takes from 2 to 4 positional arguments but 5 were given"),
    ):
        with pytest.raises(TypeError, match=words):
            cls(*args, **options)


def test_the_class_checks_its_values_and_keeps_its_own_methods() -> None:
    checked = PAIRS[1][0]
    with pytest.raises(ValueError, match="negative"):
        checked(value=-1)
    assert repr(checked(value=1)) == "checked"
    assert hash(checked(value=1, other=[])) == hash(checked(value=1, other=()))


def test_records_can_be_pickled() -> None:
    record = Pickled(1, "y")
    assert pickle.loads(pickle.dumps(record)) == record


def test_a_class_that_is_not_frozen_is_an_ordinary_dataclass() -> None:
    @records.dataclass(slots=True)
    class Open:
        """A record that can be changed."""

        value: int

    record = Open(1)
    record.value = 2
    assert record == Open(2)


@records.dataclass(frozen=True, slots=True)
class Pickled:
    """A record that pickle finds by its name."""

    first: int
    second: str
