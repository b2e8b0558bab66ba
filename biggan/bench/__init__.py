"""`python -m biggan.bench`: how fast a configuration trains here, what bounds it, and what makes it faster."""

from biggan.bench.command import main
from biggan.bench.measure import measure

__all__ = ["main", "measure"]
