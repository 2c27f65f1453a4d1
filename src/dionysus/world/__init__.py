"""What can be observed of a watched folder: its files, its git history, the machine it lies on.

`World(path).look(before, now)` gives a `View`; everything beyond the scan is worked out when it is asked for, so
that a look at a folder in which nothing happened costs the scan alone. Nothing here writes; no file is executed.
"""

from dionysus.world.folder import Change, FileMark, Snapshot
from dionysus.world.machine import machine
from dionysus.world.repository import Commit
from dionysus.world.view import View, World

__all__ = ["Change", "Commit", "FileMark", "Snapshot", "View", "World", "machine"]
