"""`TensorBoard`: logs that TensorBoard shows, written without TensorFlow."""

import os
import time
from typing import Any

import numpy as np

from cornu.callbacks.base import Callback, python_value
from cornu.core.errors import ArgumentError, MissingEngineError, UnsupportedError

__all__ = ["TensorBoard"]


class TensorBoard(Callback):
    """Write logs for TensorBoard (`tensorboard --logdir logs`) in Keras's folders and under Keras's tags.

    Scalars are `epoch_<name>` in `train/` and `validation/` by epoch, `batch_<name>` by step if `update_freq` asks for
    it, `evaluation_<name>_vs_iterations` after an evaluation; the learning rate is `epoch_learning_rate`.

    Args:
        log_dir: folder of the logs.
        histogram_freq: every so many epochs histograms of all weights, 0 for none.
        write_graph: whether to write the model's graph.
        write_images: whether the weights are written as images along with their histograms.
        write_steps_per_second: whether to write the steps per second of each epoch.
        update_freq: `"epoch"`, `"batch"`, or every how many batches to write the running metrics (which waits for the
            device).
        profile_batch: 0; the engines have profilers of their own.
        embeddings_freq: 0; not supported.
        embeddings_metadata: not supported.

    Raises:
        MissingEngineError: if tensorboardX is not installed.
        UnsupportedError: if profiles or embeddings are asked for.

    Example:
        >>> callback = TensorBoard("logs", histogram_freq=1)
    """

    def __init__(
        self,
        log_dir: Any = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: Any = "epoch",
        profile_batch: Any = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: Any = None,
    ) -> None:
        super().__init__()
        if profile_batch:
            raise UnsupportedError("TensorBoard(profile_batch=...)", "0", "jax.profiler, tf.profiler or torch.profiler")
        if embeddings_freq or embeddings_metadata:
            raise UnsupportedError("TensorBoard(embeddings_freq=...)", "0")
        if update_freq not in ("epoch", "batch") and not (isinstance(update_freq, int) and update_freq > 0):
            raise ArgumentError(f"TensorBoard got update_freq={update_freq!r}", "'epoch', 'batch' or a number above 0")
        self.log_dir = os.fspath(log_dir)
        self.histogram_freq = histogram_freq
        self.write_graph = write_graph
        self.write_images = write_images
        self.write_steps_per_second = write_steps_per_second
        self.update_freq = 1 if update_freq == "batch" else update_freq
        self._writers: dict[str, Any] = {}
        self._step = 0
        self._tests = 0
        self._training = False
        self._begun = (0.0, 0)
        _library()

    def _writer(self, name: str) -> Any:
        if name not in self._writers:
            self._writers[name] = _library().SummaryWriter(os.path.join(self.log_dir, name), write_to_disk=True)
        return self._writers[name]

    def _scalars(self, name: str, logs: Any, prefix: str, step: int, suffix: str = "") -> None:
        for key, value in logs.items():
            value = python_value(value)
            if isinstance(value, (int, float)):
                self._writer(name).add_scalar(f"{prefix}{key}{suffix}", value, step)

    def on_train_begin(self, logs: Any = None) -> None:
        self._training = True
        if self.write_graph and hasattr(self.model, "to_json"):
            _write_graph(self._writer("train"), self.model)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step += 1
        if self.update_freq != "epoch" and self._step % self.update_freq == 0:
            self._scalars("train", logs or {}, "batch_", self._step)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begun = (time.monotonic(), self._step)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs = dict(logs or {})
        training = {key: value for key, value in logs.items() if not key.startswith("val_")}
        rate = getattr(self.model.optimizer, "learning_rate", None)
        if rate is not None:
            training["learning_rate"] = float(np.asarray(python_value(rate)))
        if self.write_steps_per_second:
            moment, step = self._begun
            training["steps_per_second"] = (self._step - step) / max(time.monotonic() - moment, 1e-9)
        self._scalars("train", training, "epoch_", epoch)
        validation = {key.removeprefix("val_"): value for key, value in logs.items() if key.startswith("val_")}
        if validation:
            self._scalars("validation", validation, "epoch_", epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            self._write_weights(epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_test_end(self, logs: Any = None) -> None:
        if logs:
            self._scalars("validation", logs, "evaluation_", self._step or self._tests, "_vs_iterations")
        self._tests += 1
        if not self._training:
            self._close()

    def on_train_end(self, logs: Any = None) -> None:
        self._training = False
        self._close()

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _write_weights(self, epoch: int) -> None:
        writer = self._writer("train")
        for variable in self.model.weights:
            host = variable.numpy().astype("float32")
            writer.add_histogram(f"{variable.path}/histogram", host, epoch)
            image = _image(host) if self.write_images else None
            if image is not None:
                writer.add_image(f"{variable.path}/image", image, epoch)


def _library() -> Any:
    try:
        import tensorboardX
    except ImportError as error:
        raise MissingEngineError(
            f"the callback TensorBoard needs tensorboardX: {error}", "it installed", "pip install 'cornu[tensorboard]'"
        ) from error
    return tensorboardX


def _image(host: np.ndarray) -> np.ndarray | None:
    """A vector or matrix of weights as a picture `(1, height, width)`, wider than high, from black to white."""
    flat = np.squeeze(host)
    if flat.ndim not in (1, 2) or not flat.size:
        return None
    flat = flat[None] if flat.ndim == 1 else flat.T if flat.shape[0] > flat.shape[1] else flat
    low, high = float(flat.min()), float(flat.max())
    return ((flat - low) / (high - low or 1.0))[None]


def _write_graph(writer: Any, model: Any) -> None:
    """The model's config in the form that TensorBoard's graph page reads (plugin `graph_keras_model`)."""
    from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboardX.proto.tensor_pb2 import TensorProto

    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="graph_keras_model", content=b"1"))
    tensor = TensorProto(dtype="DT_STRING", string_val=[model.to_json().encode()])
    writer.file_writer.add_summary(Summary(value=[Summary.Value(tag="keras", metadata=metadata, tensor=tensor)]), 0)
