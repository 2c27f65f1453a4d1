"""The pytest plugin: the fixture `cassette` (see `dionysus.testing`). Light, since pytest loads it in every run."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dionysus.testing import PlayedCassette


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--record-cassettes`."""
    group = parser.getgroup("dionysus")
    group.addoption("--record-cassettes", action="store_true", help="run what has no cassette, and keep it in one")


@pytest.fixture
def cassette(request: pytest.FixtureRequest) -> "Callable[..., PlayedCassette]":
    """`cassette(name)`: the run in `cassettes/NAME.cassette` beside the test; `pruning=` as of `attach`, to record."""

    def named(name: str, *, pruning: Any = "off") -> "PlayedCassette":
        from dionysus.testing import PlayedCassette

        path = request.path.parent / "cassettes" / f"{name}.cassette"
        return PlayedCassette(path, record=bool(request.config.getoption("--record-cassettes")), pruning=pruning)

    return named
