"""Holds the models of a server: opens them on demand, and closes idle ones."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from talu.chat.observers import Hook
from talu.client import AsyncClient
from talu.error_text import shown
from talu.exceptions import ValidationError
from talu.router.policies import Policy
from talu.router.router import Router
from talu.router.spec import ModelInput, ModelSpec, specs_from
from talu.server.failures import Failure
from talu.server.memory import Memory, with_cache
from talu.types import LocalBackend

__all__ = ["ModelState", "Models"]

ROOM = "the memory of the server is taken by models that are in use: try again later"


@dataclass(frozen=True, slots=True)
class ModelState:
    """The state of a model.

    Attributes:
        name: by which requests ask for it.
        kind: whether it runs in the server, behind an endpoint, or is a policy.
        state: a remote model is ready; a policy is as its models.
        running: how many requests use it, or another model of its policy.
    """

    name: str
    kind: Literal["local", "remote", "policy"]
    state: Literal["ready", "loaded", "unloaded"]
    running: int


class _Unit:
    """Models that are opened and closed together: a single one, or all of a policy."""

    def __init__(self, make: Callable[[int | None], AsyncClient]) -> None:
        self._make = make
        self.client = make(None)
        self.users = 0
        self.idle_since = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self._sized = False  # its cache is that of a budget

    @property
    def is_open(self) -> bool:
        return any(target.is_open for target in self.client.router.targets)

    @property
    def can_close(self) -> bool:
        """Whether it has a model that can be opened again, and holds memory."""
        kinds = [target.backend for target in self.client.router.targets]
        return any(isinstance(kind, LocalBackend) for kind in kinds)

    def renew(self, cache: int | None = None) -> AsyncClient:
        """Put a client with closed models in the place of this one, which is returned.

        Args:
            cache: the most bytes of keys and values of its model; None for talu's own choice.
        """
        old, self.client = self.client, self._make(cache)
        self._sized = cache is not None
        return old

    def holds(self, *, besides: int = 0) -> bool:
        """Whether it has a part of the budget: open, or being opened by others than this many."""
        return self._sized and (self.is_open or self.users > besides)


class Models:
    """The models that a server offers."""

    def __init__(
        self,
        models: Sequence[ModelInput],
        hooks: Sequence[Hook],
        policy: Policy | None = None,
        *,
        keep_alive: float | None = None,
        memory: int | None = None,
    ) -> None:
        """Register the models; none is opened.

        Args:
            models: the models.
            hooks: observe all answers.
            policy: chooses among the models; then they are opened and closed together.
            keep_alive: seconds after its last request after which a local model is closed; None
                keeps it.
            memory: bytes that the weights and caches of all local models may take together. A model
                that needs more takes the place of those used longest ago.

        Raises:
            ValidationError: something is not a model, or is given twice; there is a budget of
                memory and a policy; a model does not fit into the budget.
            ModelNotFoundError: there is a budget of memory, and a model is not on this machine.
        """
        specs = specs_from(list(models), None)
        router = Router(specs, policy=policy)  # which checks the names
        self._names, self._default = router.names, router.default_model
        self._policy = policy
        self._keep_alive = keep_alive
        if memory is not None and policy is not None:
            wrong = "memory is not for models of a policy, which are opened together"
            raise ValidationError(wrong, details={"param": "memory"})
        local = [t.model for t in router.targets if isinstance(t.backend, LocalBackend)]
        self._memory = None
        if memory is not None:
            self._memory = Memory(memory, [spec for spec in specs if spec.name in local])
        self._units = self._made(specs, list(hooks), policy)
        self._making_room = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    def _made(
        self, specs: list[ModelSpec], hooks: list[Hook], policy: Policy | None
    ) -> dict[str, _Unit]:
        """The units by the names of their models."""
        if policy is not None:
            unit = _Unit(lambda cache: AsyncClient(specs, hooks=hooks, policy=policy))
            return dict.fromkeys(self._names, unit)

        def unit_of(spec: ModelSpec) -> _Unit:
            return _Unit(lambda cache: AsyncClient(with_cache(spec, cache), hooks=hooks))

        return {spec.name: unit_of(spec) for spec in specs}

    @property
    def names(self) -> list[str]:
        """The names that a request may ask for."""
        return list(self._names)

    def name_of(self, name: str | None) -> str:
        """The name of a model; the default one for None.

        Raises:
            Failure: there is no such model.
        """
        if name is None:
            return self._default
        self.check(name)
        return name

    def check(self, name: str) -> None:
        """``Failure`` if no model has this name: a request never names a file or an address."""
        if name not in self._names:
            known = ", ".join(self._names)
            text = f"there is no model {shown(name)} here; there are: {known:.1000}"
            raise Failure(404, "MODEL_NOT_FOUND", text, param="model")

    def state(self, name: str) -> ModelState:
        """The state of a model.

        Raises:
            Failure: there is no such model.
        """
        self.check(name)
        unit = self._units[name]
        if self._policy is not None and name == self._policy.name:
            state: Literal["loaded", "unloaded"] = "loaded" if unit.is_open else "unloaded"
            return ModelState(name, "policy", state, unit.users)
        target = unit.client.router.resolve(name)
        if not isinstance(target.backend, LocalBackend):
            return ModelState(name, "remote", "ready", unit.users)
        return ModelState(name, "local", "loaded" if target.is_open else "unloaded", unit.users)

    @asynccontextmanager
    async def use(self, name: str) -> AsyncGenerator[AsyncClient]:
        """The client of a model, which is not closed meanwhile.

        Raises:
            Failure: there is no such model, or no memory for it now.
        """
        self.check(name)
        unit = self._units[name]
        unit.users += 1
        if unit.timer is not None:
            unit.timer.cancel()
        try:
            if self._memory is not None:
                await self._make_room(name, self._memory)
            yield unit.client
        finally:
            unit.users -= 1
            if not unit.users:
                self._rest(unit)

    def _rest(self, unit: _Unit) -> None:
        """Note that a unit is not used any more, and close it later."""
        unit.idle_since = time.monotonic()
        if self._keep_alive is None or not unit.can_close:
            return

        def end() -> None:
            if not unit.users and unit.is_open:
                task = asyncio.ensure_future(unit.renew().close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

        unit.timer = asyncio.get_running_loop().call_later(self._keep_alive, end)

    async def _make_room(self, name: str, memory: Memory) -> None:
        """Close idle models, those used longest ago first, until there is room for this one.

        Raises:
            Failure: the models that are in use leave too little.
        """
        if name not in memory.needs:
            return
        unit = self._units[name]
        async with self._making_room:
            if unit.holds(besides=1):
                return
            others = {each: self._units[each] for each in memory.needs if each != name}
            held = [each for each, other in others.items() if other.holds()]
            idle = [each for each in held if not others[each].users]
            for other in sorted(idle, key=lambda each: others[each].idle_since):
                if memory.fits(name, held):
                    break
                await others[other].renew().close()
                held.remove(other)
            if not memory.fits(name, held):
                raise Failure(503, "RESOURCE_EXHAUSTED", ROOM, retry_after=5)
            await unit.renew(memory.needs[name].cache).close()

    async def close(self) -> None:
        """Close all models."""
        for unit in set(self._units.values()):
            if unit.timer is not None:
                unit.timer.cancel()
            await unit.client.close()
        await asyncio.gather(*self._closing)
