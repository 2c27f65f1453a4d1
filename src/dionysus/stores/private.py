"""Small private files beside a store: a key, a token. Made whole or not at all, and readable by their owner only."""

import os
from collections.abc import Callable
from pathlib import Path

from dionysus.errors import StoreError


def kept_beside(store: Path, ending: str, fresh: Callable[[], bytes], is_whole: Callable[[bytes], bool]) -> bytes:
    """What the file `store` + `ending` holds; made where there is none.

    Args:
        fresh: Makes its content.
        is_whole: Whether a content is one that `fresh` could have made.

    Raises:
        StoreError: It cannot be made or read, or holds something else.
    """
    path = store.with_name(store.name + ending)
    try:
        while not os.path.lexists(path):
            made = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
            with os.fdopen(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(fresh())
            try:
                os.link(made, path)  # whoever else makes one: the first counts
            except FileExistsError:
                continue
            finally:
                made.unlink()
        found = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot keep {str(path)!r}: {error.strerror}") from error
    if not is_whole(found):
        raise StoreError(f"{str(path)!r} is none that Dionysus made; move it away")
    return found
