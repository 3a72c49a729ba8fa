"""Plain PyTorch: an `nn.Module`, `Adam(fused=True)`, eager or under `torch.compile`."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.contender import BETA1, BETA2, EPSILON, LEARNING_RATE, ByHand
from benchmarks.workload import Given, Workload

__all__ = ["PyTorch"]


def _classes(out: Any, y: Any) -> Any:
    return functional.cross_entropy(out.flatten(0, -2), y.flatten()), (out.detach().argmax(-1) == y).float().mean()


def _yes_no(out: Any, y: Any) -> Any:
    hit = (out.detach() > 0) == (y > 0.5)
    return functional.binary_cross_entropy_with_logits(out, y), hit.float().mean()


def _squares(out: Any, y: Any) -> Any:
    return functional.mse_loss(out, y), (out.detach() - y).abs().mean()


LOSSES = {"classes": _classes, "yes_no": _yes_no, "squares": _squares}


def _reset_first(gates: torch.Tensor) -> torch.Tensor:
    """Keras's gates z, r, n as PyTorch has them: r, z, n."""
    z, r, n = gates.chunk(3, -1)
    return torch.cat([r, z, n], -1)


@torch.no_grad()
def fill(net: Any, weights: Any) -> None:
    """Put weights in a module's parameters and buffers, in the order in which it was written.

    Args:
        net: the module.
        weights: an iterator of arrays in Keras's layouts.
    """
    given = (torch.from_numpy(w) for w in weights)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            _fill_linear(module, next(given), next(given))
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.weight.copy_(next(given).permute(3, 2, 0, 1))
            if module.bias is not None:
                module.bias.copy_(next(given))
        elif isinstance(module, nn.BatchNorm2d):
            for part in (module.weight, module.bias, module.running_mean, module.running_var):
                part.copy_(next(given))
        elif isinstance(module, nn.LayerNorm):
            module.weight.copy_(next(given))
            module.bias.copy_(next(given))
        elif isinstance(module, nn.Embedding):
            module.weight.copy_(next(given))
        elif isinstance(module, nn.LSTM):
            module.weight_ih_l0.copy_(next(given).T)
            module.weight_hh_l0.copy_(next(given).T)
            module.bias_ih_l0.copy_(next(given))
            module.bias_hh_l0.zero_().requires_grad_(False)  # Keras has one bias
        elif isinstance(module, nn.GRU):
            module.weight_ih_l0.copy_(_reset_first(next(given)).T)
            module.weight_hh_l0.copy_(_reset_first(next(given)).T)
            biases = _reset_first(next(given))
            module.bias_ih_l0.copy_(biases[0])
            module.bias_hh_l0.copy_(biases[1])
    assert next(given, None) is None, "weights are left over"


def _fill_linear(module: nn.Linear, kernel: torch.Tensor, bias: torch.Tensor) -> None:
    if hasattr(module, "flattened"):  # of channels-last pictures
        kernel = kernel.reshape(*module.flattened, -1).permute(2, 0, 1, 3)
    module.weight.copy_(kernel.reshape(module.in_features, module.out_features).T)
    module.bias.copy_(bias.flatten())


class PyTorch(ByHand):
    """A workload in plain PyTorch; pictures come with their channels first, as its users keep them.

    Args:
        workload: the workload.
        given: its data and first weights.
        compiled: whether the module goes through `torch.compile`.
    """

    def __init__(self, workload: Workload, given: Given, compiled: bool) -> None:
        self.pictures = not isinstance(given.x, dict) and given.x.ndim == 4
        x, y = self._first(given.x), self._first(given.y) if given.y.ndim == 4 else given.y
        super().__init__(workload, Given(x, y, given.weights, given.trained))
        self.score = LOSSES[workload.loss]
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        net = workload.torch()
        fill(net, given.weights)
        self.net = net.to(self.device)
        trained = [p for p in self.net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, LEARNING_RATE, (BETA1, BETA2), EPSILON, fused=True)
        self.called = torch.compile(self.net) if compiled else self.net
        self.total = torch.zeros(2, device=self.device)

    def _first(self, x: Any) -> Any:
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if self.pictures else x

    def _training(self, training: bool) -> None:
        if self.net.training is not training:
            self.net.train(training)

    def run(self, x: Any, y: Any) -> Any:
        self._training(True)
        self.optimizer.zero_grad()
        loss, metric = self.score(self.called(self.native(x)), self._target(y))
        loss.backward()
        self.optimizer.step()
        loss = loss.detach()
        self.total += torch.stack([loss, metric])
        return loss

    def _target(self, y: Any) -> Any:
        y = torch.from_numpy(y).to(self.device)
        return y.long() if self.workload.loss == "classes" else y

    @torch.inference_mode()
    def forward(self, x: Any) -> np.ndarray:
        self._training(False)
        return self.called(self.native(x)).numpy(force=True)

    def begin(self) -> None:
        self.total.zero_()

    def sums(self) -> tuple[float, float]:
        loss, metric = self.total.tolist()
        return loss, metric

    def native(self, x: Any) -> Any:
        if isinstance(x, dict):
            return {name: torch.from_numpy(v).to(self.device) for name, v in x.items()}
        return torch.from_numpy(x).to(self.device)

    def eager(self, x: Any) -> None:
        self._training(False)
        self.net(x)
        if self.device == "cuda":
            torch.cuda.synchronize()
