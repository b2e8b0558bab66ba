"""The progress of a preparation on the terminal."""

from __future__ import annotations

import time

from biggan.observers.display import ProgressDisplay


class PrepareProgress:
    """Prints the progress of a preparation. `packed` counts this call's images, of which was `done` what it says."""

    def __init__(self, done: str = "packed") -> None:
        self.packed, self.word = 0, done

    def begin(self, total: int, done: int) -> None:
        """Print where an earlier call stopped."""
        self.display = ProgressDisplay("{task.completed:,} of {task.total:,} images", total, done)
        self.done, self.began = done, time.monotonic()
        if done:
            print(f"continuing: {done:,} of {total:,} images were packed before.", flush=True)

    def advance(self, images: int) -> None:
        """Count further packed images."""
        self.packed += images
        done = self.done + self.packed
        rate = f"{self.packed / max(time.monotonic() - self.began, 1e-9):,.0f} images/s"
        self.display.show(done, rate, lambda: f"{self.word} {done:,} of {self.display.total:,} images  {rate}")

    def note(self, text: str) -> None:
        """A line of its own."""
        self.display.say(text)

    def end(self) -> None:
        """Close the display."""
        self.display.close()
