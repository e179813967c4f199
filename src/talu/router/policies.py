"""Decides in which order a router asks its models; every policy is a function of values."""

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from itertools import count
from typing import Any, ClassVar, TypedDict, Unpack

from talu.checks import check_boolean
from talu.error_text import nearest, shown
from talu.exceptions import ValidationError
from talu.protocols import Backend
from talu.router.abilities import ignored_settings
from talu.router.limits import check_wait
from talu.router.status import TargetStatus
from talu.types import Capabilities, Request

__all__ = [
    "ByCapability",
    "Cheapest",
    "Fallback",
    "Fastest",
    "First",
    "LeastBusy",
    "Policy",
    "RoundRobin",
    "Sticky",
]

WAIT_S = 30.0
MAX_NAME = 200
MAX_PRICE = 1e12
CHARACTERS_PER_TOKEN = 4
USUAL_TOKENS = 256  # of an answer without max_tokens
KEY_CHARACTERS = 4000  # of a raw prompt that identify a conversation


class PolicyOptions(TypedDict, total=False):
    """The options of every policy; see ``Policy``."""

    models: Sequence[str] | None
    name: str | None
    hedge: bool
    wait: float


class Policy:
    """Base of all policies: the order in which a router asks its models.

    A policy is a model of its client under its own name: the default one. Override ``order`` to
    make another policy.

    Attributes:
        falls_back: after a failure before the first token the next model is asked.
        prefers_cached: an open model that has most of the prompt in its cache goes first.
        needs_room: a model whose context is too small for the prompt is passed over, if it counts
            tokens.
    """

    falls_back: ClassVar[bool] = True
    prefers_cached: ClassVar[bool] = False
    needs_room: ClassVar[bool] = False

    def __init__(
        self,
        *,
        models: Sequence[str] | None = None,
        name: str | None = None,
        hedge: bool = False,
        wait: float = WAIT_S,
    ) -> None:
        """Make a policy.

        Args:
            models: names of the models to ask, best first; None for all, in the client's order.
            name: the name of the policy as a model; None is the class in lower case.
            hedge: ask a second model as well when the first token comes later than 95 % of the
                recent ones; at most one additional request for ten requests.
            wait: seconds for which a request without a time limit waits when no model can be asked.
        """
        self.name = type(self).__name__.lower() if name is None else name
        self.models = None if models is None else _names(models)
        self.hedge = hedge
        self.wait = wait
        fits = isinstance(self.name, str) and self.name.isprintable()
        if not fits or not 0 < len(self.name.strip()) <= MAX_NAME:
            wrong = f"the name of a policy must be printable text, got {shown(name)}"
            raise ValidationError(wrong, details={"param": "name"})
        check_boolean("hedge", hedge)
        check_wait(wait)
        if hedge and not self.falls_back:
            wrong = f"{type(self).__name__} asks no second model: leave out hedge=True"
            raise ValidationError(wrong, details={"param": "hedge"})

    def order(self, request: Request, targets: Sequence[TargetStatus]) -> list[str]:
        """The names of the models to ask, best first.

        Args:
            request: the request.
            targets: the models of the policy with their state, in its order.
        """
        return [target.model for target in targets]

    def unfit(self, backend: Backend, request: Request) -> str | None:
        """Why this model cannot answer the request, as a part of a sentence; None if it can."""
        if ignored := ignored_settings(backend, request):
            return f"it has no {' and no '.join(ignored)}"
        if request.tools and not backend.capabilities.tool_calling:
            return "it has no tools"
        return None

    def check(self, models: Sequence[str]) -> list[str]:
        """The names of the policy's models, of those of its client.

        Raises:
            ValidationError: a name is unknown, or the policy's own name is that of a model.
        """
        if self.name in models:
            raise ValidationError(
                f"the policy has the name of a model, {shown(self.name)}: give it another one, as "
                f"in {type(self).__name__}(name='any')",
                details={"param": "policy", "value": self.name},
            )
        for name in self.models or ():
            _check_known(name, models)
        return list(models) if self.models is None else self.models

    def __repr__(self) -> str:
        given = [] if self.models is None else [f"models={self.models}"]
        return f"{type(self).__name__}({', '.join([*given, f'name={self.name!r}'])})"


class First(Policy):
    """Always asks the first model. A failure is an error, and no other model is asked."""

    falls_back = False


class Fallback(Policy):
    """Asks the first model that can be asked; the next one when it fails before its first token."""


class RoundRobin(Policy):
    """Asks the models in turn."""

    def __init__(self, **options: Unpack[PolicyOptions]) -> None:
        """See ``Policy``."""
        super().__init__(**options)
        self._turns = count()

    def order(self, request: Request, targets: Sequence[TargetStatus]) -> list[str]:
        """The next model, and those after it."""
        start = next(self._turns) % len(targets)
        return [target.model for target in (*targets[start:], *targets[:start])]


class LeastBusy(Policy):
    """Asks the model with the fewest running and waiting requests."""

    def order(self, request: Request, targets: Sequence[TargetStatus]) -> list[str]:
        """The least busy model first; of equally busy ones, the first in the list."""
        return _by(targets, lambda target: target.running + target.waiting)


class Fastest(Policy):
    """Asks the model whose first tokens came fastest in the last five minutes.

    A model without a measured time is asked first, so that it is measured.
    """

    def order(self, request: Request, targets: Sequence[TargetStatus]) -> list[str]:
        """The fastest model first. One that is being measured for the first time comes last."""

        def time(target: TargetStatus) -> float:
            if target.first_token_ms is None:
                return math.inf if target.running else -math.inf
            return target.first_token_ms

        return _by(targets, time)


Price = float | tuple[float, float]


class Cheapest(Policy):
    """Asks the model with the lowest price for the request, by a table of prices."""

    def __init__(self, prices: Mapping[str, Price], **options: Unpack[PolicyOptions]) -> None:
        """Make the policy.

        The price of a request is estimated: four characters of the conversation for a token, and
        ``max_tokens`` for the answer, 256 if it is not set.

        Args:
            prices: for each model, the price of a million tokens in any currency, or two prices,
                that of the prompt's tokens and that of the answer's.
            options: see ``Policy``.

        Raises:
            ValidationError: a price is not a number that is 0 or more, or a pair of such numbers.
        """
        super().__init__(**options)
        if not isinstance(prices, Mapping):
            wrong = f"prices must be a dictionary from models to prices, got {shown(prices)}"
            raise ValidationError(wrong, details={"param": "prices"})
        self.prices = {model: _price(model, price) for model, price in prices.items()}

    def check(self, models: Sequence[str]) -> list[str]:
        """See ``Policy.check``; every model of the policy needs a price."""
        checked = super().check(models)
        for name in self.prices:
            _check_known(name, models, "prices")
        if missing := [name for name in checked if name not in self.prices]:
            raise ValidationError(
                f"prices has no price for {', '.join(map(shown, missing))}: add it, or name the "
                "models to use in models=[…]",
                details={"param": "prices", "missing": missing},
            )
        return checked

    def order(self, request: Request, targets: Sequence[TargetStatus]) -> list[str]:
        """The cheapest model first; of models with the same price, the first in the list."""
        prompt, answer = prompt_tokens(request), request.config.max_tokens or USUAL_TOKENS

        def cost(target: TargetStatus) -> float:
            of_prompt, of_answer = self.prices[target.model]
            return of_prompt * prompt + of_answer * answer

        return _by(targets, cost)


class ByCapability(Policy):
    """Asks the first model that can do what the request needs.

    Besides the settings and tools of the request, which every policy checks, the model has to have
    room for the prompt, if it counts tokens, and the given capabilities.
    """

    needs_room = True

    def __init__(self, needs: Collection[str] = (), **options: Unpack[PolicyOptions]) -> None:
        """Make the policy.

        Args:
            needs: names of fields of ``Capabilities`` that the model has to have, such as
                ``["tool_calling"]``.
            options: see ``Policy``.

        Raises:
            ValidationError: an unknown capability.
        """
        super().__init__(**options)
        known = [each.name for each in fields(Capabilities)]
        if isinstance(needs, str) or not isinstance(needs, Collection):
            wrong = f"needs must be a list of capabilities, got {shown(needs)}"
            raise ValidationError(wrong, details={"param": "needs"})
        for need in needs:
            if need not in known:
                hint = nearest(need, known) if isinstance(need, str) else ""
                wrong = f"{shown(need)} is not a capability{hint}; they are {', '.join(known)}"
                raise ValidationError(wrong, details={"param": "needs", "value": need})
        self.needs = tuple(needs)

    def unfit(self, backend: Backend, request: Request) -> str | None:
        """See ``Policy.unfit``."""
        if (reason := super().unfit(backend, request)) is not None:
            return reason
        able = backend.capabilities
        if missing := [need for need in self.needs if not getattr(able, need)]:
            return f"it has no {' and no '.join(missing)}"
        return None


class Sticky(Policy):
    """Asks the model that has answered the same conversation before.

    The beginning of the conversation, its system message and its first user message, decides the
    order of the models, so that every process finds the same one, without any shared state. An open
    model in this process that has more than half of the prompt in its prefix cache goes first.
    """

    prefers_cached = True

    def order(self, request: Request, targets: Sequence[TargetStatus]) -> list[str]:
        """The order of the models for this conversation; without one of them, the others stay."""
        key = conversation_key(request)

        def weight(target: TargetStatus) -> bytes:
            named = target.model.encode("utf-8", "surrogatepass")
            return hashlib.blake2b(key + named, digest_size=16).digest()

        return [target.model for target in sorted(targets, key=weight)]


def conversation_key(request: Request) -> bytes:
    """A digest of the beginning of a conversation, the same in every process."""
    if request.messages is None:
        parts = [
            (request.prompt or "")[:KEY_CHARACTERS],
            *map(str, (request.token_ids or ())[:1000]),
        ]
    else:
        system = [_text(each) for each in request.messages[:1] if each.get("role") != "user"]
        user = (_text(each) for each in request.messages if each.get("role") == "user")
        parts = ["messages", *system, next(user, "")]
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()


def prompt_tokens(request: Request) -> int:
    """An estimate of the number of tokens of a request's prompt."""
    if request.token_ids is not None:
        return len(request.token_ids)
    if request.messages is None:
        characters = len(request.prompt or "")
    else:
        characters = sum(len(_text(each)) for each in request.messages)
    return math.ceil(characters / CHARACTERS_PER_TOKEN)


def _text(message: Mapping[str, Any]) -> str:
    """The text of a message, without its images."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list | tuple) else ()
    texts = (part.get("text") for part in parts if isinstance(part, Mapping))
    return "".join(text for text in texts if isinstance(text, str))


def choice(chosen: object, known: Collection[str]) -> list[str] | None:
    """The names, if they are a list of some of the known ones, each once; else None."""
    if not isinstance(chosen, list | tuple) or not chosen:
        return None
    named = all(isinstance(name, str) and name in known for name in chosen)
    return list(chosen) if named and len(set(chosen)) == len(chosen) else None


def _by(targets: Sequence[TargetStatus], key: Callable[[TargetStatus], float]) -> list[str]:
    return [target.model for target in sorted(targets, key=key)]


def _names(models: object) -> list[str]:
    if isinstance(models, str) or not isinstance(models, Sequence) or not models:
        wrong = f"models must be a list of names of models, got {shown(models)}"
        raise ValidationError(wrong, details={"param": "models"})
    names = list(models)
    if any(not isinstance(name, str) for name in names) or len(set(names)) < len(names):
        wrong = f"models must be different names of models, got {shown(names)}"
        raise ValidationError(wrong, details={"param": "models"})
    return names


def _check_known(name: object, models: Sequence[str], param: str = "models") -> None:
    if name not in models:
        hint = nearest(name, list(models)) if isinstance(name, str) else ""
        raise ValidationError(
            f"{param}= of the policy names the model {shown(name)}, which the client does not have"
            f"{hint}; its models are {', '.join(map(shown, models[:10]))}",
            details={"param": param, "value": name},
        )


def _price(model: str, price: object) -> tuple[float, float]:
    pair = (price, price) if isinstance(price, int | float) else price
    if (
        not isinstance(pair, tuple | list)
        or len(pair) != 2
        or any(isinstance(each, bool) or not isinstance(each, int | float) for each in pair)
        or not all(0 <= each < MAX_PRICE for each in pair)
    ):
        wrong = (
            f"the price of {shown(model)} must be a number, or two (prompt, answer), got "
            f"{shown(price)}"
        )
        raise ValidationError(wrong, details={"param": "prices", "model": model})
    return float(pair[0]), float(pair[1])
