"""Makes the error of a request that no model answered."""

from collections.abc import Mapping, Sequence
from math import inf

from talu.error_text import shown
from talu.exceptions import EndpointError, GenerationError
from talu.router.waits import Wait
from talu.types import Attempt

__all__ = ["no_answer", "no_model_works", "not_in_time"]


def no_answer(
    attempts: Sequence[Attempt],
    errors: Sequence[BaseException],
    waits: Mapping[str, Wait] | None = None,
    within: float = 0.0,
) -> GenerationError:
    """The error after these attempts, each of which ended with an error.

    Args:
        attempts: at all models.
        errors: of these attempts.
        waits: for each model that could be asked again later, why it cannot be asked now.
        within: the seconds for which the request could wait.
    """
    message = f"no model answered: {_said(attempts)}"
    details: dict[str, object] = {"models": list(dict.fromkeys(each.model for each in attempts))}
    known = {} if waits is None else _known(waits)
    if waits:
        details |= {"waits": known, "seconds": within}
    if waits and within > 0:
        later = "; ".join(_waits(model, wait, attempts) for model, wait in waits.items())
        message += f"; none can be asked again within {within:g} seconds: {later}"
    codes = {getattr(error, "code", None) for error in errors}
    remote = [error for error in errors if isinstance(error, EndpointError)]
    error: GenerationError
    if remote and len(remote) == len(errors):
        transient = [each for each in remote if each.transient]
        last = (transient or remote)[-1]  # the failure that may pass, if there is one
        error = EndpointError(
            message,
            last.code,
            details,
            status=last.status,
            transient=last.transient,
            retry_after=min(known.values(), default=None),
        )
    elif codes == {"UNSUITABLE"}:
        message += "; leave out what they do not have, or add a model that has it"
        error = GenerationError(message, "UNSUITABLE", details)
    else:
        error = GenerationError(message, details=details)
    return _with(error, attempts, errors)


def no_model_works(
    waits: Mapping[str, Wait], attempts: Sequence[Attempt], errors: Sequence[BaseException]
) -> GenerationError:
    """The error when each of the models has an error that only a change of its settings can end.

    Args:
        waits: for each model that is left, why it cannot be asked; all have a cause.
        attempts: at other models.
        errors: of these attempts.
    """
    causes = {model: wait.broken for model, wait in waits.items() if wait.broken is not None}
    parts = [_said(attempts)] if attempts else []
    known = [Attempt(model=model, reason=cause.message) for model, cause in causes.items()]
    parts.append(_said(known))
    again = min(wait.seconds for wait in waits.values())
    message = (
        f"no model can answer: {'; '.join(parts)}; correct that, and make a new client, or wait: "
        f"the models are asked again after {again:.3g} s"
    )
    models = dict.fromkeys([*(each.model for each in attempts), *waits])
    seconds = {model: wait.seconds for model, wait in waits.items()}
    details: dict[str, object] = {"waits": seconds, "models": list(models)}
    last = list(causes.values())[-1]
    remote = all(each.remote for each in causes.values())
    error: GenerationError
    if remote and all(isinstance(each, EndpointError) for each in errors):
        error = EndpointError(message, last.code, details, status=last.status)
    else:
        error = GenerationError(message, details=details)
    return _with(error, attempts, errors)


def not_in_time(
    waits: Mapping[str, Wait],
    within: float,
    attempts: Sequence[Attempt],
    errors: Sequence[BaseException],
) -> GenerationError:
    """The error when none of the models that are left can be asked in time.

    Args:
        waits: for each of these models, why it cannot be asked.
        within: the seconds for which the request could wait.
        attempts: at other models.
        errors: of these attempts.
    """
    parts = [_said(attempts)] if attempts else []
    parts += [_waits(model, wait, attempts) for model, wait in waits.items()]
    limits = {model: wait.limits.given for model, wait in waits.items() if wait.limits is not None}
    known = _known(waits)
    models = dict.fromkeys([*(each.model for each in attempts), *waits])
    details: dict[str, object] = {"waits": known, "models": list(models), "seconds": within}
    message = f"no model can be asked within {within:g} seconds: {'; '.join(parts)}"
    error: GenerationError
    if limits:
        message += "; raise its limits, or allow more time: timeout=, or wait= of its Limits"
        error = GenerationError(message, "GENERATION_TIMEOUT", {**details, "limits": limits})
    else:
        message += "; allow more time: timeout=, or wait= of the policy or the Limits"
        passing = [wait.seconds for wait in waits.values() if wait.broken is None]
        after = min(passing) if passing and min(passing) < inf else None
        error = EndpointError(message, "MODELS_COOLING", details, retry_after=after, transient=True)
    return _with(error, attempts, errors)


def _known(waits: Mapping[str, Wait]) -> dict[str, float]:
    """The seconds until each model can be asked, where that is known."""
    return {model: wait.seconds for model, wait in waits.items() if wait.seconds < inf}


def _with(
    error: GenerationError, attempts: Sequence[Attempt], errors: Sequence[BaseException]
) -> GenerationError:
    error.attempts = tuple(attempts)
    error.__cause__ = errors[-1] if errors else None
    return error


def _said(attempts: Sequence[Attempt]) -> str:
    """What the models said, as a part of a sentence: the same error of several models once."""
    models: dict[str | None, list[str]] = {}
    for each in attempts:
        named = models.setdefault(each.reason, [])
        if shown(each.model) not in named:
            named.append(shown(each.model))
    parts = []
    for reason, named in models.items():
        named_inside = reason is not None and reason.startswith(f"model {named[0]} ")
        parts.append(reason if named_inside else f"{' and '.join(named)}: {reason}")
    return "; ".join(map(str, parts))


def _waits(model: str, wait: Wait, attempts: Sequence[Attempt]) -> str:
    """Why a model cannot be asked, as a part of a sentence."""
    name = shown(model)
    seconds = f" for {wait.seconds:.3g} s" if wait.seconds < inf else ""
    if wait.limits is not None:
        given = ", ".join(f"{limit}={value}" for limit, value in wait.limits.given.items())
        return f"{name} has reached its limits{seconds} ({given})"
    if not seconds:
        return f"{name} is being probed by another request"
    known = wait.reason in {each.reason for each in attempts}
    if wait.broken is not None:
        return f"{name} does not work until somebody repairs it" + (
            "" if known else f" ({wait.reason})"
        )
    return f"{name} is cooling down{seconds}" + ("" if known else f" ({wait.reason})")
