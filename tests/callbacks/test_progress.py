"""What is shown, where, and how seldom logs are read."""

import io

import pytest

from cornu.callbacks import progress as module
from cornu.callbacks.progress import Progress, say
from cornu.core.errors import ArgumentError


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


class Ascii(Terminal):
    encoding = "ascii"


class Clock:
    """A clock that goes on when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Logs(dict):
    """Logs that count how often they are read."""

    reads = 0

    def __getitem__(self, name):
        type(self).reads += 1
        return super().__getitem__(name)


@pytest.fixture(autouse=True)
def no_open_bars():
    module._open.clear()
    Logs.reads = 0


def run(stream, verbose="auto", total=120, steps=120, epochs=10, epoch=2, seconds=0.01, logs=None, **kwargs):
    """One epoch of steps; gives what was written."""
    clock = Clock()
    shown = Progress(total, epochs, verbose, stream, clock=clock, **kwargs)
    shown.begin(epoch)
    for step in range(steps):
        clock.now += seconds
        shown.update(step + 1, Logs(loss=1.0) if logs is None else logs)
    shown.end({"accuracy": 0.95, "loss": 0.12, "val_loss": 0.2})
    return stream.getvalue()


LINE = "Epoch 3/10  120/120 steps  1.2s  10ms/step  accuracy 0.95  loss 0.12  val_loss 0.2\n"


@pytest.mark.parametrize(
    ("stream", "verbose"), [(io.StringIO, "auto"), (io.StringIO, 1), (io.StringIO, 2), (Terminal, 2)]
)
def test_one_plain_line_per_epoch(stream, verbose):
    assert run(stream(), verbose) == LINE
    assert Logs.reads == 0


def test_silent():
    assert run(Terminal(), 0) == ""


@pytest.mark.parametrize(
    ("kwargs", "line"),
    [
        ({"total": None}, LINE),
        ({"epochs": None, "epoch": None}, LINE.removeprefix("Epoch 3/10  ")),
        ({"steps": 57}, LINE.replace("120/120", "57/120").replace("1.2s", "570ms")),
        ({"total": 1, "steps": 1}, LINE.replace("120/120 steps", "1/1 step").replace("1.2s", "10ms")),
        ({"seconds": 40.0}, LINE.replace("1.2s  10ms", "1:20:00  40.0s")),
        ({"seconds": 2e-4}, LINE.replace("1.2s  10ms", "24ms  200us")),
        ({"steps": 0}, LINE.replace("1.2s  10ms/step", "0us")),
    ],
)
def test_lines(kwargs, line):
    assert run(io.StringIO(), **kwargs) == line


def test_a_bar_is_drawn_at_most_ten_times_a_second():
    text = run(Terminal(), width=100)
    lines = [line for line in text.split("\r") if line.strip()]
    assert lines[-1] == LINE
    assert 12 <= len(lines) - 1 <= 13 and Logs.reads == len(lines) - 1
    middle = lines[6].rstrip()
    assert middle.startswith("Epoch 3/10  ━") and "─" in middle and middle.endswith("loss 1")
    assert "%  10ms/step  ETA " in middle and "/120  " in middle
    assert all(len(line.rstrip("\n")) < 100 for line in lines[:-1])


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80])
def test_the_bar_fits_the_terminal(width):
    many = {f"metric_{i}": 0.123456 for i in range(20)}
    text = run(Terminal(), width=width, logs=many)
    drawn = [line for line in text.split("\r") if line.strip()][:-1]
    assert drawn and all(len(line) < width for line in drawn)


def test_ascii_terminals():
    text = run(Ascii(), width=100)
    assert text.isascii() and "#" in text and "." in text
    stream = Ascii()
    shown = Progress(1, 1, 1, stream, clock=Clock())
    shown.begin(0)
    shown.update(1, {"verlust_ä": 1.0})
    shown.end({"verlust_ä": 1.0})
    assert "verlust_? 1" in stream.getvalue()


def test_unknown_total_shows_a_count():
    text = run(Terminal(), total=None, steps=30, width=100)
    assert "21 steps  " in text and "%" not in text and "ETA" not in text


def test_the_first_step_does_not_count_as_pace():
    clock, stream = Clock(), io.StringIO()
    shown = Progress(3, 1, 1, stream, clock=clock)
    shown.begin(0)
    for step, seconds in enumerate((5.0, 0.5, 0.5)):
        clock.now += seconds
        shown.update(step + 1)
    shown.end()
    assert stream.getvalue() == "Epoch 1/1  3/3 steps  6.0s  500ms/step\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123456, "0.1235"), (1e-5, "1e-05"), (12345.678, "12345.7"), (float("nan"), "nan"), (1, "1"), ("a\nb", "a b")],
)
def test_numbers(value, text):
    assert module._number(value) == text


def test_say_prints_above_the_bar(capsys):
    stream = Terminal()
    shown = Progress(10, 1, 1, stream, clock=Clock(), width=60)
    shown.begin(0)
    shown.update(1)
    drawn = shown._drawn
    say("stopped early")
    assert capsys.readouterr().out == "stopped early\n"
    assert stream.getvalue().endswith("\r" + " " * drawn + "\r") and not module._open
    shown._last_drawn = -1.0
    shown.update(2)
    assert module._open == [shown]
    other = Progress(10, 1, 1, stream, clock=Clock())
    other.begin(0)  # a bar that was left unfinished stays above
    assert stream.getvalue().endswith("\n") and not module._open


def test_odd_streams_and_arguments():
    closed = io.StringIO()
    closed.close()
    assert not Progress(1, 1, 1, closed).draws
    with pytest.raises(ArgumentError, match="verbose=3"):
        Progress(1, 1, 3)
    assert Progress(1, 1, True).verbose == 1
