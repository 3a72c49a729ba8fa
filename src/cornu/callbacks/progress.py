"""What training shows while it runs: a bar on a terminal, one plain line per epoch anywhere else."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from cornu.core.errors import ArgumentError

__all__ = ["Progress", "say"]

# The least time between two drawings of the bar, in seconds.
_INTERVAL = 0.1
_BAR_WIDTH = 24
_LEAST_BAR = 8

# The bars that stand unfinished on a terminal's last line.
_open: list["Progress"] = []


def say(text: str) -> None:
    """Print a line, above the bar if one is being drawn."""
    for bar in _open:
        bar.clear()
    if sys.stdout is not None:
        print(text, flush=True)


class Progress:
    """The progress of epochs, or of one pass (`epochs=None`).

    On a terminal, with `verbose` 1, a line is drawn in place at most ten times a second:

        Epoch 3/10  ━━━━━━━━━━━━────────────  60/120  50%  10ms/step  ETA 0.6s  accuracy 0.95  loss 0.12

    and it ends as the line that is all there is elsewhere, or with `verbose` 2:

        Epoch 3/10  120/120 steps  1.2s  10ms/step  accuracy 0.95  loss 0.12  val_loss 0.2

    Logs are read only when something is drawn: to read a value is to wait for the device.

    Args:
        total: steps per epoch; `None` if nobody knows.
        epochs: how many epochs there are; `None` for a pass that is no epoch.
        verbose: 0 silent; 1 or `"auto"` a bar on a terminal, else a line per epoch; 2 a line per epoch.
        stream: where to write, by default `sys.stdout`.
        unit: what is counted.
        clock: gives the time in seconds.
        width: columns of the terminal; by default it is asked.

    Example:
        >>> progress = Progress(3, 1, verbose=2, clock=iter([0.0, 0.5, 1.0, 1.5, 1.5]).__next__)
        >>> progress.begin(0)
        >>> for step in range(3):
        ...     progress.update(step + 1)
        >>> progress.end({"loss": 0.25})
        Epoch 1/1  3/3 steps  1.5s  500ms/step  loss 0.25
    """

    def __init__(
        self,
        total: int | None,
        epochs: int | None = None,
        verbose: Any = "auto",
        stream: Any = None,
        unit: str = "step",
        *,
        clock: Callable[[], float] = time.monotonic,
        width: int | None = None,
    ) -> None:
        if verbose not in (0, 1, 2, "auto"):
            raise ArgumentError(f"verbose={verbose!r}", "0, 1, 2 or 'auto'")
        self.total = total
        self.epochs = epochs
        self.verbose = 1 if verbose == "auto" else int(verbose)
        self.unit = unit
        self.done = 0
        self._stream = stream
        self._clock = clock
        self._width = width
        self._epoch: int | None = None
        self._drawn = 0  # columns of the line that stands on the terminal
        self._begun = self._last_drawn = 0.0
        self._first_end: float | None = None
        self._first_count = 0
        self._last_end: float | None = None

    @property
    def stream(self) -> Any:
        """Where to write."""
        return sys.stdout if self._stream is None else self._stream

    @property
    def draws(self) -> bool:
        """Whether a bar is drawn in place."""
        return self.verbose == 1 and _is_terminal(self.stream)

    def begin(self, epoch: int | None = None) -> None:
        """Start an epoch (numbered from 0), or the one pass."""
        for bar in [bar for bar in _open if bar.stream is self.stream]:
            bar.leave()
        self._epoch = epoch
        self.done = 0
        self._first_end = self._last_end = None
        self._begun = self._clock()
        self._last_drawn = self._begun - 2 * _INTERVAL

    def update(self, done: int, logs: Mapping[str, Any] | None = None) -> None:
        """Say how many steps are done; `logs` are read only if it is time to draw."""
        self.done = done
        if not self.verbose:
            return
        now = self._last_end = self._clock()
        if self._first_end is None:
            self._first_end, self._first_count = now, done
        if now - self._last_drawn >= _INTERVAL and self.draws:
            self._last_drawn = now
            self._draw(now, logs)

    def end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Finish the epoch with one whole line."""
        if not self.verbose or self.stream is None:
            return
        now = self._clock()
        total = self.done if self.total is None else self.total
        parts = [self._title(), f"{self.done or total}/{total} {self.unit}{'' if total == 1 else 's'}"]
        parts.append(_duration(now - self._begun))
        parts += self._pace() + self._metrics(logs)
        self.clear()
        self._write(_shown("  ".join(part for part in parts if part), self.stream) + "\n")

    def clear(self) -> None:
        """Wipe the unfinished line off the terminal; the next drawing puts it back."""
        if self._drawn:
            self._write("\r" + " " * self._drawn + "\r")
            self._drawn = 0
        if self in _open:
            _open.remove(self)

    def leave(self) -> None:
        """Let the unfinished line stand and go on below it."""
        if self._drawn:
            self._write("\n")
            self._drawn = 0
        if self in _open:
            _open.remove(self)

    # ------------------------------------------------ the parts of a line

    def _draw(self, now: float, logs: Mapping[str, Any] | None) -> None:
        room = self._columns() - 1  # a full last column makes some terminals wrap
        title, metrics = self._title(), self._metrics(logs)
        if self.total:
            share = min(self.done / self.total, 1.0)
            count = f"{self.done:>{len(str(self.total))}}/{self.total}"
            middle = [count, f"{int(100 * share):>3}%", *self._pace()]
            pace = self._seconds_per_step()
            if pace is not None and self.done < self.total:
                middle.append(f"ETA {_duration(pace * (self.total - self.done))}")
        else:
            share = None
            middle = [
                f"{self.done} {self.unit}{'' if self.done == 1 else 's'}",
                _duration(now - self._begun),
                *self._pace(),
            ]
        bar = ""
        if share is not None:
            others = len("  ".join(part for part in [title, *middle, *metrics] if part)) + 2
            size = max(_LEAST_BAR, min(_BAR_WIDTH, room - others))
            bar = _bar(share, size, self.stream)
        line = ""
        for part in [title, bar, *middle, *metrics]:
            if part and len(line) + len(part) + 2 <= room:
                line += ("  " if line else "") + part
            elif part:
                line = line or part[:room]
                break
        line = _shown(line, self.stream)
        self._write("\r" + line + " " * (self._drawn - len(line)))
        self._drawn = len(line)
        if self not in _open:
            _open.append(self)

    def _title(self) -> str:
        if self._epoch is None:
            return ""
        return f"Epoch {self._epoch + 1}" + (f"/{self.epochs}" if self.epochs is not None else "")

    def _seconds_per_step(self) -> float | None:
        """Time per step; the first step, which holds the compiling, counts only if there is no other."""
        if self._last_end is None or not self.done:
            return None
        if self._first_end is not None and self.done > self._first_count:
            return (self._last_end - self._first_end) / (self.done - self._first_count)
        return (self._last_end - self._begun) / self.done

    def _pace(self) -> list[str]:
        pace = self._seconds_per_step()
        return [] if pace is None else [f"{_duration(pace)}/{self.unit}"]

    def _metrics(self, logs: Mapping[str, Any] | None) -> list[str]:
        return [] if logs is None else [f"{name} {_number(logs[name])}" for name in logs]

    def _columns(self) -> int:
        if self._width is not None:
            return self._width
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or 80
        except (AttributeError, OSError, ValueError):
            return shutil.get_terminal_size().columns

    def _write(self, text: str) -> None:
        stream = self.stream
        if stream is not None:
            stream.write(text)
            stream.flush()


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # no stream, or a closed one
        return False


def _can_write(text: str, stream: Any) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _shown(text: str, stream: Any) -> str:
    """Text with what the stream cannot write replaced by `?`."""
    return text if _can_write(text, stream) else text.encode("ascii", "replace").decode()


def _bar(share: float, size: int, stream: Any) -> str:
    full, empty = ("━", "─") if _can_write("━─", stream) else ("#", ".")
    filled = int(share * size)
    return full * filled + empty * (size - filled)


def _number(value: Any) -> str:
    """A value in about four digits."""
    try:
        value = float(value)
    except (TypeError, ValueError):
        return str(value).replace("\n", " ")
    return f"{value:.4g}" if abs(value) < 1e4 or value != value else f"{value:.6g}"


def _duration(seconds: float) -> str:
    """A time in two or three digits: `350us`, `10ms`, `1.2s`, `1:05`, `2:00:05`."""
    seconds = max(seconds, 0.0)
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f}us"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
