"""What glibc is told about freed memory, and when it is left alone."""

import ctypes
import subprocess
import sys

import pytest

from cornu.engines import memory

MOST = (1 << 31) - 1


@pytest.fixture
def told(monkeypatch):
    """What `mallopt` would be told."""
    found = []
    library = type("Library", (), {"mallopt": staticmethod(lambda *pair: found.append(pair) or 1)})
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory, "_pieces", [0])
    monkeypatch.setattr(memory, "_grown", [None])
    monkeypatch.setattr(memory, "_may_ask", lambda: False)
    for name in ("GLIBC_TUNABLES", "CORNU_KEEP_MEMORY"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_freed_memory_is_kept_as_far_as_the_most_demanding_engine_asks(told):
    assert memory.keep_freed(1 << 25)
    assert told == [(-3, 1 << 25), (-2, 1 << 27), (-1, MOST), (-1, 1 << 30)]
    for piece in (1 << 30, 1 << 25):
        del told[:]
        assert memory.keep_freed(piece)
        assert told == [(-3, 1 << 30), (-2, 1 << 27), (-1, MOST), (-1, 1 << 30)]


def test_what_the_heap_has_grown_by_is_kept_besides(told, monkeypatch):
    grows = []
    monkeypatch.setattr(memory, "_may_ask", lambda: True)
    monkeypatch.setattr(memory, "_grow_huge", lambda library: grows.append(library) or 1 << 20)
    for _ in range(2):
        assert memory.keep_freed()
    assert told[-1] == (-1, (1 << 30) + (1 << 20))
    assert len(grows) == 1


@pytest.mark.parametrize(
    ("given", "counted", "limit", "asks"),
    [
        ("always [madvise] never", "0", -1, True),
        ("[always] madvise never", "0", -1, False),
        ("always [madvise] never", "2", -1, False),
        ("always [madvise] never", "0", 1 << 33, False),
        (None, "0", -1, False),
    ],
)
def test_huge_pages_are_asked_for_where_they_come_and_cost_nothing(monkeypatch, given, counted, limit, asks):
    def read_text(path, encoding):
        text = {"enabled": given, "overcommit_memory": counted}[path.name]
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr("pathlib.Path.read_text", read_text)
    monkeypatch.setattr("resource.getrlimit", lambda kind: (limit, limit))
    assert memory._may_ask() is asks


SCRIPT = r"""
import re, cornu
from cornu.engines import memory
assert memory.keep_freed() and memory._grown[0] >= 1 << 30, memory._grown
smaps = open("/proc/self/smaps").read()
found = re.findall(r"\[heap\]\n(?:\w+: .*\n)*?Rss: +(\d+) kB\n(?:\w+: .*\n)*?VmFlags: (.*)", smaps)
assert [int(rss) < 1 << 16 for rss, flags in found if " hg" in flags] == [True], found
"""


@pytest.mark.skipif(sys.platform != "linux" or not memory._may_ask(), reason="huge pages are not to be asked for here")
def test_a_heap_in_huge_pages_takes_no_memory_before_it_is_used(monkeypatch):
    for name in ("GLIBC_TUNABLES", "CORNU_KEEP_MEMORY"):
        monkeypatch.delenv(name, raising=False)
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)


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
