"""`.keras` and `.weights.h5` files: Keras 3's formats, written whole or not at all."""

import datetime
import io
import json
import os
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cornu.core import dtypes, registry
from cornu.core.errors import CornuError, CornuWarning, SavingError, ShapeError
from cornu.core.family import deserialize_object, serialize_object
from cornu.layers.base import Layer
from cornu.saving.state import check_complete, own_variables, walk

__all__ = ["load_model", "load_weights", "save_model", "save_weights"]

_CONFIG, _METADATA, _WEIGHTS, _ASSETS = "config.json", "metadata.json", "model.weights.h5", "assets"
# What reading a damaged file may raise, beside errors that say so themselves.
_DAMAGE = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    IndexError,
    AttributeError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
)
# The version of Keras whose format this is.
_KERAS_VERSION = "3.15.1"


def _h5py() -> Any:
    import h5py

    return h5py


# ---------------------------------------------------------------- writing


def save_model(model: Any, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any) -> None:
    """Save architecture, weights, and what `compile` was given, in one `.keras` file that Keras 3 can load too.

    Args:
        model: the model.
        filepath: where; it ends in `.keras`.
        overwrite: whether a file that is there may be replaced.
        zipped: only `True` (or `None`) is supported.

    Raises:
        SavingError: if something could not be loaded again (a lambda, a class inside a function), or the file exists;
            then nothing is written.
    """
    path = Path(filepath)
    if path.suffix != ".keras" or zipped is False or kwargs:
        raise SavingError(
            f"cannot save to {str(path)!r}" + (f" with {', '.join(kwargs)}" if kwargs else ""),
            "a path that ends in .keras",
            "model.save('model.keras'); weights alone go to save_weights('model.weights.h5')",
        )
    _may_write(path, overwrite)
    config = _json(_described(model))
    metadata = _json(
        {"keras_version": _KERAS_VERSION, "date_saved": datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")}
    )
    weights = _weights_bytes(model)
    members = {_METADATA: metadata.encode(), _CONFIG: config.encode(), _WEIGHTS: weights, **_assets_of(model)}

    def write(file: Any) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, data in members.items():
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)

    def verify(file: Any) -> None:
        with zipfile.ZipFile(file) as archive:
            if archive.testzip() is not None or archive.read(_WEIGHTS) != weights:
                raise SavingError(
                    f"{str(path)!r} does not read back as it was written", "a disk that keeps what it is given"
                )

    _write_whole(path, write, verify)


def _assets_of(model: Any) -> dict[str, bytes]:
    """The files that objects write in `save_assets(folder)`, by their names in the archive."""
    found: dict[str, bytes] = {}
    for path, item in walk(model):
        if not hasattr(item, "save_assets"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            item.save_assets(folder)
            for file in sorted(Path(folder).rglob("*")):
                if file.is_file():
                    parts = (_ASSETS, path, file.relative_to(folder).as_posix())
                    found["/".join(part for part in parts if part)] = file.read_bytes()
    return found


def _load_assets(model: Any, assets: dict[str, bytes]) -> None:
    """Hand every object that has `load_assets(folder)` the files it wrote."""
    pending = set(assets)
    for path, item in walk(model):
        if not hasattr(item, "load_assets"):
            continue
        start = f"{_ASSETS}/{path}/" if path else f"{_ASSETS}/"
        with tempfile.TemporaryDirectory() as folder:
            for name in [name for name in assets if name.startswith(start)]:
                parts = name.removeprefix(start).split("/")
                if any(part in ("", ".", "..") or "\\" in part or ":" in part for part in parts):
                    raise SavingError(
                        f"the file holds an asset of the name {name!r}", "names that stay in their folder"
                    )
                target = Path(folder).joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(assets[name])
                pending.discard(name)
            item.load_assets(folder)
    if pending:
        raise SavingError(
            f"nothing in the model takes the file's asset {min(pending)!r}",
            "an object of that path with load_assets(folder)",
            "load it with the class that wrote it",
        )


def _described(model: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = serialize_object(model)
    except SavingError as error:
        error.locate(layer=f"{model.name!r} ({type(model).__name__})")
        raise
    return found


def _json(value: Any) -> str:
    def refuse(item: Any) -> Any:
        raise SavingError(
            f"{item!r:.80} ({type(item).__name__}) cannot be written as JSON", "numbers, text, lists, dicts"
        )

    return json.dumps(value, default=refuse)


def save_weights(model: Any, filepath: Any, overwrite: bool = True) -> None:
    """Save the weights (and the optimizer's state) in a `.weights.h5` file that Keras 3 can load too.

    Args:
        model: the model.
        filepath: where; it ends in `.weights.h5`.
        overwrite: whether a file that is there may be replaced.

    Raises:
        SavingError: if the path has another ending, or the file exists; then nothing is written.
    """
    path = Path(filepath)
    if not path.name.endswith(".weights.h5"):
        raise SavingError(f"cannot save weights to {str(path)!r}", "a path that ends in .weights.h5")
    _may_write(path, overwrite)
    data = _weights_bytes(model)

    def verify(file: Any) -> None:
        if file.read() != data:
            raise SavingError(
                f"{str(path)!r} does not read back as it was written", "a disk that keeps what it is given"
            )

    _write_whole(path, lambda file: file.write(data), verify)


def _may_write(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise SavingError(f"{str(path)!r} exists", "a new path, or overwrite=True")
    if not path.parent.is_dir():
        raise SavingError(
            f"the folder {str(path.parent)!r} is not there", "an existing folder", f"os.makedirs({str(path.parent)!r})"
        )


def _write_whole(path: Path, write: Callable[[Any], Any], verify: Callable[[Any], None]) -> None:
    """Write beside the target, sync, read back, and only then put it in the target's place."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            verify(file)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _weights_bytes(model: Any) -> bytes:
    found = list(walk(model))
    check_complete(model, found)
    buffer = io.BytesIO()
    with _h5py().File(buffer, "w") as file:
        for path, item in found:
            store: dict[str, Any] = {}
            item.save_own_variables(store)
            if not store and not isinstance(item, Layer):
                continue
            group = file.require_group(f"{path}/vars" if path else "vars")
            group.attrs["name"] = item.name
            for key, value in store.items():
                _write_array(group, key, np.asarray(value))
    return buffer.getvalue()


def _write_array(group: Any, key: str, value: np.ndarray) -> None:
    if value.dtype.name == "bfloat16":  # HDF5 has no such type: its bytes, and a note
        dataset = group.create_dataset(key, data=value.view(np.int16).view("V2"))
        dataset.attrs["dtype"] = "bfloat16"
    else:
        group.create_dataset(key, data=value)


# ---------------------------------------------------------------- reading


class _Store(dict[str, Any]):
    """The arrays of one `vars` group."""

    def __init__(self, group: Any) -> None:
        super().__init__()
        for key in sorted(group.keys(), key=lambda k: (len(k), k)):
            self[key] = _read_array(group, key)


def _read_array(group: Any, key: str) -> np.ndarray:
    if group.get(key, getlink=True).__class__.__name__ != "HardLink":
        raise SavingError(f"the file's entry {group.name}/{key} points out of the file", "arrays in the file itself")
    dataset = group[key]
    if getattr(dataset, "external", None):
        raise SavingError(
            f"the file's entry {group.name}/{key} keeps its data in another file", "arrays in the file itself"
        )
    value = dataset[()]
    if dataset.attrs.get("dtype") == "bfloat16":
        return np.asarray(value).view(dtypes.numpy_dtype("bfloat16"))
    return np.asarray(value)


def load_model(
    filepath: Any, custom_objects: dict[str, Any] | None = None, compile: bool = True, safe_mode: bool = True
) -> Any:
    """The model of a `.keras` file, from Cornu or from Keras 3.

    Args:
        filepath: the file.
        custom_objects: classes and functions by name, for those whose module has not been imported.
        compile: whether to compile it as it was.
        safe_mode: only `True`: a file's code is never run.

    Returns:
        the model.

    Raises:
        SavingError: if the file is damaged, or names what nobody has enrolled.
    """
    path = Path(filepath)
    if not safe_mode:
        raise SavingError("load_model got safe_mode=False", "safe_mode=True: code in a file is never run")
    if not path.is_file():
        raise SavingError(f"there is no file {str(path)!r}", "a .keras file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: _member(archive, info) for info in archive.infolist() if not info.is_dir()}
        config = json.loads(members[_CONFIG])
        weights = members[_WEIGHTS]
        if not isinstance(config, dict) or "class_name" not in config:
            raise ValueError("its config.json describes no model")
    except (zipfile.BadZipFile, *_DAMAGE) as error:
        if isinstance(error, CornuError):
            raise
        missing = f"it has no member {error}" if isinstance(error, KeyError) else error
        raise SavingError(
            f"{str(path)!r} is no whole .keras file: {missing}", "a file written by model.save"
        ) from error
    before = dict(registry.scope)
    registry.scope.update(custom_objects or {})
    try:
        compile_config = config.pop("compile_config", None)
        model = deserialize_object(config, custom_objects)
        if compile and compile_config and hasattr(model, "compile_from_config"):
            _compile(model, compile_config)
        with _h5py().File(io.BytesIO(weights), "r") as file:
            _read_into(model, file, str(path))
        _load_assets(model, {name: data for name, data in members.items() if name.startswith(f"{_ASSETS}/")})
    except CornuError as error:
        error.locate(layer=f"file {str(path)!r}")
        raise
    except _DAMAGE as error:
        raise SavingError(
            f"{str(path)!r} could not be loaded: {type(error).__name__}: {error}",
            "a whole file, and classes that take the arguments it was saved with",
        ) from error
    finally:
        registry.scope.clear()
        registry.scope.update(before)
    return model


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A file of an archive; one that grows a hundredfold when it is unpacked is refused."""
    if info.file_size > 100 * info.compress_size + 2**20:
        raise SavingError(
            f"the member {info.filename!r} would grow from {info.compress_size} to {info.file_size} bytes",
            "a file written by model.save",
        )
    return archive.read(info)


def _compile(model: Any, given: dict[str, Any]) -> None:
    known = (
        "optimizer",
        "loss",
        "loss_weights",
        "metrics",
        "weighted_metrics",
        "run_eagerly",
        "steps_per_execution",
        "jit_compile",
    )
    model.compile_from_config({key: deserialize_object(value) for key, value in given.items() if key in known})


def load_weights(model: Any, filepath: Any, skip_mismatch: bool = False) -> None:
    """Load the weights of a `.weights.h5` or `.keras` file into a model that is built.

    Args:
        model: the model.
        filepath: the file.
        skip_mismatch: whether layers whose weights do not fit are left as they are, with a warning that names them.

    Raises:
        SavingError: if the file is not there or damaged.
        ShapeError: if weights do not fit.
    """
    path = Path(filepath)
    if not path.is_file():
        raise SavingError(f"there is no file {str(path)!r}", "a .weights.h5 or .keras file")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                source: Any = io.BytesIO(_member(archive, archive.getinfo(_WEIGHTS)))
        else:
            source = path
        with _h5py().File(source, "r") as file:
            _read_into(model, file, str(path), skip_mismatch)
    except CornuError:
        raise
    except (zipfile.BadZipFile, *_DAMAGE) as error:
        raise SavingError(
            f"{str(path)!r} is no whole weights file: {error}", "a file written by save_weights"
        ) from error


def _read_into(model: Any, file: Any, name: str, skip_mismatch: bool = False) -> None:
    """Read every object's variables; nothing is assigned before all are found to fit."""
    ready: list[tuple[Any, _Store]] = []
    used: set[str] = set()
    skipped: list[str] = []
    for path, item in walk(model):
        where = f"{path}/vars" if path else "vars"
        store = _Store(file[where]) if where in file else None
        used.add(where)
        wanted = own_variables(item)
        if store is None or len(store) != len(wanted):
            if not wanted and not store:
                continue
            if not isinstance(item, Layer) and not store:
                continue
            if skip_mismatch:
                skipped.append(path)
                continue
            have = 0 if store is None else len(store)
            raise ShapeError(
                f"{item.name!r} has {len(wanted)} variables, the file {name!r} has {have} at {where!r}",
                "a file of this model",
                "build the model first (call it once)"
                if not wanted
                else "skip_mismatch=True leaves such layers as they are",
            )
        if _overrides_loading(item) or all(v.shape == store[str(i)].shape for i, v in enumerate(wanted)):
            ready.append((item, store))
        elif skip_mismatch:
            skipped.append(path)
        else:
            i, variable = next((i, v) for i, v in enumerate(wanted) if v.shape != store[str(i)].shape)
            raise ShapeError(
                f"weight {variable.path!r} has shape {variable.shape}, the file {name!r} has "
                f"{store[str(i)].shape} at {where}/{i}",
                "a file of this model",
                "skip_mismatch=True leaves such layers as they are",
            )
    for item, store in ready:
        item.load_own_variables(store)
    if skipped:
        warnings.warn(f"load_weights left as they are: {', '.join(skipped)}", CornuWarning, stacklevel=4)


def _overrides_loading(item: Any) -> bool:
    return isinstance(item, Layer) and type(item).load_own_variables is not Layer.load_own_variables
