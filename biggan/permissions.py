"""What a call's own command line permits, beside what the run that it opens says: code to import, caches to trust.

What is read from a run, a plan, a checkpoint or a cache permits nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from biggan.errors import UserError

_code: ContextVar[frozenset[str]] = ContextVar("_code", default=frozenset())
_trusts: ContextVar[bool] = ContextVar("_trusts", default=False)


@contextmanager
def permitted(code: Iterable[str | None] = (), *, trust_cache: bool = False) -> Iterator[None]:
    """Inside, the import paths `code` (`package.module:Name`) may be imported where a configuration names them, and
    with `trust_cache` files of the cache that belong to others are used. Adds to what is permitted already."""
    names = _code.get() | {name for name in code if name}
    tokens = _code.set(names), _trusts.set(_trusts.get() or trust_cache)
    try:
        yield
    finally:
        _code.reset(tokens[0])
        _trusts.reset(tokens[1])


def trusts_cache() -> bool:
    """Whether this call uses files of the cache that belong to others."""
    return _trusts.get()


def check_features(features: str) -> None:
    """Raise `UserError` where a configuration's `eval.features` is code that this call has not named itself."""
    if ":" in features and features not in _code.get():
        raise UserError(
            f"the configuration's eval.features is {features}, which names code, and code is taken from the command "
            f"line alone. Give --eval.features {features} to import it, or --eval.features classifier."
        )
