"""What glibc is told about freed memory, and when it is left alone."""

import ctypes
import sys

import pytest

from cornu.engines import memory

REST = [(-1, 1 << 30), (-2, 1 << 27)]  # and nothing of how many arenas there are


@pytest.fixture
def told(monkeypatch):
    """What `mallopt` would be told."""
    found = []
    library = type("Library", (), {"mallopt": staticmethod(lambda *pair: found.append(pair) or 1)})
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory, "_pieces", [0])
    for name in ("GLIBC_TUNABLES", "CORNU_KEEP_MEMORY"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_freed_memory_is_kept_as_far_as_the_most_demanding_engine_asks(told):
    assert memory.keep_freed(1 << 25)
    assert told == [(-3, 1 << 25), *REST]
    for piece in (1 << 30, 1 << 25):
        del told[:]
        assert memory.keep_freed(piece)
        assert told == [(-3, 1 << 30), *REST]


@pytest.mark.parametrize(
    ("name", "value"), [("CORNU_KEEP_MEMORY", "0"), ("GLIBC_TUNABLES", "x"), ("MALLOC_ARENA_MAX", "2")]
)
def test_what_the_environment_sets_stays(told, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not memory.keep_freed()
    assert not told


def test_another_library_or_system_is_left_alone(told, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not memory.keep_freed()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not memory.keep_freed()
    assert not told
