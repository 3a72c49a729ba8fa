"""Nested structures."""

from typing import NamedTuple

import pytest

from cornu.core import tree


class Pair(NamedTuple):
    left: object
    right: object


NESTED = {"b": [1, (2, 3)], "a": Pair(4, {"z": 5, "y": None})}


def test_leaves_come_by_sorted_key():
    assert tree.leaves(NESTED) == [4, None, 5, 1, 2, 3]
    assert tree.leaves(7) == [7] and tree.leaves([]) == [] and tree.leaves(None) == [None]
    assert tree.leaves({2: "b", 1: "a"}) == ["a", "b"]
    assert sorted(map(str, tree.leaves({"k": 1, 3: 2}))) == ["1", "2"]  # keys that do not compare


def test_paths_lead_to_leaves():
    for path, leaf in tree.flatten_with_path(NESTED):
        node = NESTED
        for key in path:
            node = node[key]
        assert node is leaf


def test_map_keeps_types_and_key_order():
    mapped = tree.map_structure(lambda x: x if x is None else x * 10, NESTED)
    assert mapped == {"b": [10, (20, 30)], "a": Pair(40, {"z": 50, "y": None})}
    assert list(mapped) == ["b", "a"] and type(mapped["a"]) is Pair and type(mapped["b"][1]) is tuple
    assert tree.map_structure(lambda a, b: a + b, {"x": [1, 2]}, {"x": [10, 20]}) == {"x": [11, 22]}
    # A partner may hold structures where the first tree has leaves.
    assert tree.map_structure(lambda a, b: (a, b), [1, 2], [[3, 4], {"k": 5}]) == [(1, [3, 4]), (2, {"k": 5})]
    assert tree.map_structure(len, []) == []


def test_pack_undoes_leaves():
    flat, back = tree.flatten(NESTED)
    assert back(flat) == NESTED
    assert tree.pack({"b": 0, "a": (0, 0)}, [1, 2, 3]) == {"b": 3, "a": (1, 2)}
    with pytest.raises((StopIteration, ValueError, RuntimeError)):
        tree.pack([0, 0], [1])


def test_same_structure():
    assert tree.same_structure([1, (2,)], (3, [4]))
    assert not tree.same_structure([1], [1, 2])
    assert not tree.same_structure({"a": 1}, {"b": 1})
    assert repr(tree.structure({"a": [1, 2]})) == "{'a': [*, *]}"
    assert tree.is_nested(()) and not tree.is_nested("text")


def test_depth_is_no_limit():
    deep = 0
    for _ in range(5000):
        deep = [deep]
    assert tree.leaves(deep) == [0]
    doubled = tree.map_structure(lambda x: x + 1, deep)
    for _ in range(5000):
        doubled = doubled[0]
    assert doubled == 1
