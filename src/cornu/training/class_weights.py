"""Class weights: weights of rows that follow from their labels."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cornu.core import dtypes, tree
from cornu.core.errors import DataError, near_miss
from cornu.training.columns import to_host

__all__ = ["Weigher"]


class Weigher:
    """Class weights, checked, and how to turn labels into weights of rows."""

    def __init__(self, class_weight: Mapping[Any, Any], output_names: list[str] | None, what: str) -> None:
        self.what = what
        self.output_names = output_names
        nested = {isinstance(value, Mapping) for value in class_weight.values()}
        if len(nested) > 1:
            raise DataError(
                f"{what} got class_weight that mixes weights and dicts", "{class: weight}, or {output: {class: weight}}"
            )
        self.by_output: dict[Any, dict[int, float]] | None = None
        self.table: dict[int, float] = {}
        if nested == {True}:
            self.by_output = {
                name: self._table(value, f"class_weight[{name!r}]") for name, value in class_weight.items()
            }
        else:
            self.table = self._table(class_weight, "class_weight")

    def _table(self, given: Mapping[Any, Any], name: str) -> dict[int, float]:
        table: dict[int, float] = {}
        for label, weight in given.items():
            try:
                number, value = int(label), float(weight)
            except (TypeError, ValueError):
                number, value = 0, math.nan
            if isinstance(label, (str, bytes)) or number != label or not math.isfinite(value):
                raise DataError(
                    f"{self.what} got {name} with {label!r}: {weight!r}",
                    "whole numbers as classes and finite numbers as weights",
                    "output names, if meant, map to a dict each: {output: {class: weight}}"
                    if isinstance(label, str)
                    else None,
                )
            table[number] = value
        return table

    def weights(self, y: Any, given: Any) -> Any:
        """Sample weights for targets, multiplied with those given.

        Raises:
            DataError: if the labels are not whole numbers or one-hot rows, or an output is not there.
        """
        if y is None:
            raise DataError(f"{self.what} got class_weight but no targets", "y, the labels")
        if not tree.is_nested(y):
            tables = self._tables([0], is_list=True) if self.by_output is not None else {0: self.table}
            return self._one(y, "y", tables[0], given) if 0 in tables else given
        keys = list(y) if isinstance(y, dict) else list(range(len(y)))
        if self.by_output is not None:
            tables = self._tables(keys, is_list=not isinstance(y, dict))
        elif len(keys) == 1:
            tables = {keys[0]: self.table}
        else:
            raise DataError(
                f"{self.what} got one class_weight for {len(keys)} outputs",
                "class weights by output",
                f"class_weight={{{keys[0]!r}: {{0: ..., 1: ...}}}}",
            )
        found = {}
        for place in keys:
            own = self._given_for(given, place)
            found[place] = self._one(y[place], f"y[{place!r}]", tables[place], own) if place in tables else own
        return found if isinstance(y, dict) else list(found.values())

    def _given_for(self, given: Any, place: Any) -> Any:
        if isinstance(given, dict):
            return given.get(place)
        if isinstance(given, (list, tuple)):
            if not isinstance(place, int) or place >= len(given):
                raise DataError(
                    f"{self.what} got sample_weight as a list and class_weight by name", "both in a structure like y"
                )
            return given[place]
        return given

    def _tables(self, keys: list[Any], is_list: bool) -> dict[Any, dict[int, float]]:
        """The tables by the keys of `y`; a name stands for its place in a list if the outputs' names are known."""
        assert self.by_output is not None
        names = self.output_names or []
        found = {}
        for name, table in self.by_output.items():
            place = name
            if is_list and name in names:
                place = names.index(name)
            elif not is_list and isinstance(name, int) and name not in keys and name < len(names):
                place = names[name]
            if place not in keys:
                known = [*keys, *(names if is_list else ())]
                raise DataError(
                    f"{self.what} got class_weight for the output {name!r}{near_miss(name, map(str, known))}",
                    f"one of {', '.join(map(repr, known))}",
                    "pass y as a dict by output name to weigh by name" if is_list and not names else None,
                )
            found[place] = table
        return found

    def _one(self, y: Any, name: str, table: dict[int, float], given: Any) -> np.ndarray:
        if tree.is_nested(y) or y is None:
            raise DataError(f"{self.what} got class_weight for {name}, which is no array", "an array of labels")
        labels = self._labels(np.asarray(to_host(y, name, self.what)), name)
        classes, places = np.unique(labels, return_inverse=True)
        found = np.array([table.get(int(label), 1.0) for label in classes], dtypes.numpy_dtype(dtypes.floatx()))
        weights = found[places].reshape(labels.shape)
        if given is None:
            return weights
        given = np.asarray(given, weights.dtype)
        missing = given.ndim - weights.ndim
        weights = weights.reshape(weights.shape + (1,) * max(missing, 0))
        given = given.reshape(given.shape + (1,) * max(-missing, 0))
        try:
            product: np.ndarray = given * weights
        except ValueError:
            raise DataError(
                f"{self.what} got sample_weight of shape {given.shape} and class weights of shape {weights.shape} "
                f"for {name}",
                "weights that can be multiplied",
            ) from None
        return product

    def _labels(self, y: np.ndarray, name: str) -> np.ndarray:
        fix = "give class numbers (rows,) or (rows, 1), or one-hot rows (rows, classes); else pass sample_weight"
        if y.ndim > 1 and y.shape[-1] != 1:
            if not np.allclose(y.sum(axis=-1, dtype=np.float64), 1, atol=1e-3) or y.min() < 0:
                raise DataError(
                    f"{self.what} got class_weight, but {name} of shape {y.shape} holds neither class numbers "
                    "nor one-hot rows",
                    "rows that are zero but for a one",
                    fix,
                )
            return y.argmax(axis=-1)
        labels = y[..., 0] if y.ndim > 1 else y
        whole = labels.astype(np.int64) if np.isfinite(labels).all() else np.zeros(labels.shape, np.int64)
        if not np.array_equal(whole, labels):
            raise DataError(
                f"{self.what} got class_weight, but {name} holds numbers that are not whole", "class numbers", fix
            )
        return whole
