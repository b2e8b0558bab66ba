"""`python -m biggan.bench`: how fast a configuration trains on this machine, what limits it, what makes it faster."""

from biggan.bench.command import main
from biggan.bench.measure import measure

__all__ = ["main", "measure"]
