"""How masks travel through a layer's call; the rules for ops are in `graph/masks.py`."""

import warnings
from typing import Any

from cornu.core import config, context, tree
from cornu.core.errors import MaskError, MaskWarning, user_line
from cornu.core.spec import Spec
from cornu.graph import masks
from cornu.graph.symbolic import SymbolicTensor, carried, constant
from cornu.layers._arguments import Signature, is_array, signature_of
from cornu.layers._context import current
from cornu.layers._weights import Weights
from cornu.ops._declare import dtype_of, shape_of, to_spec

__all__ = ["Masking"]


class Masking(Weights):
    """The part of a layer that knows masks; see `Layer`."""

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """The mask of the output: by default that of the input."""
        return previous_mask

    def _has_mask_rule(self) -> bool:
        """Whether `compute_mask` is written for this layer."""
        return type(self).compute_mask is not Masking.compute_mask

    def _masks_for(self, signature: Signature, args: Any, kwargs: Any, whole: bool = False) -> dict[str, Any]:
        """The masks `call` asks for and the caller did not give; if `whole`, `None` for those that are not there."""
        if not signature.mask_for:
            return {}
        given = self._by_name(args, kwargs)
        filled: dict[str, Any] = {}
        for name, parameter in signature.mask_for.items():
            if name in given and parameter not in given:
                found = tree.map_structure(masks.mask_of, given[name])
                if any(mask is not None for mask in tree.leaves(found)):
                    filled[parameter] = found
                elif whole:
                    filled[parameter] = None
        return filled

    def _symbolic_mask(self, signature: Signature, node: Any, specs: Any, args: Any, kwargs: Any) -> None:
        """Give the outputs of a recorded call their masks."""
        masked = [tensor for tensor in node.given if tensor.mask is not None]
        custom = self._has_mask_rule()
        if custom or (self.supports_masking and masked):
            inputs = self._first(args, kwargs)
            previous = tree.map_structure(lambda t: getattr(t, "mask", None), inputs)
            if kwargs.get("mask") is not None and not isinstance(kwargs["mask"], bool):
                previous = kwargs["mask"]
            produced = self.compute_mask(inputs, previous)
            if not custom and len(node.outputs) != len(tree.leaves(produced)):
                produced = [masks.combined(tuple(t.mask for t in masked))] * len(node.outputs)
            flat = tree.leaves(produced) if produced is not None else []
            for output, mask in zip(node.outputs, flat, strict=False):
                output.mask = mask if mask is None or type(mask) is SymbolicTensor else constant(mask)
            return
        for output, spec in zip(node.outputs, tree.leaves(specs), strict=True):
            tag = getattr(spec, "mask", None)
            if tag is None:
                continue
            if tag.lost is None and all(type(source) is SymbolicTensor for source in tag.sources):
                output.mask = masks.combined(tag.sources)
            elif tag.lost is None and tag.through is None:
                output.mask = carried(output, to_spec(tag.sources[0]))
            elif tag.lost is None:
                self._warn(
                    f"the output of layer {self.path!r} ({type(self).__name__}) has no mask: one made inside was "
                    "left behind by "
                    f"arithmetic in its `call` ({tag.through!r}; the layer is called at {node.where}); define "
                    "compute_mask, "
                    "compute with layers, or drop the mask (cornu.ops.drop_mask(x))",
                    "a mask handed on by a layer",
                )
            elif not signature.mask_for:
                self._warn_lost(tag.lost, node.where)

    def _mask_outputs(self, signature: Signature, args: Any, kwargs: Any, outputs: Any) -> None:
        """Let masks travel on with values (or with Specs, inside a call that is being recorded)."""
        custom = self._has_mask_rule()
        if not custom and not self.supports_masking:
            self._keep_aligned(signature, args, kwargs, outputs)
            return
        for output in tree.leaves(outputs):
            if type(output) is Spec:
                output.mask = None
        inputs = self._first(args, kwargs)
        previous = tree.map_structure(masks.mask_of, inputs)
        if kwargs.get("mask") is not None and not isinstance(kwargs["mask"], bool):
            previous = kwargs["mask"]
        if not custom and all(mask is None for mask in tree.leaves(previous)):
            return
        produced = self.compute_mask(inputs, previous)
        if produced is None:
            return
        for output, mask in zip(tree.leaves(outputs), tree.leaves(produced), strict=False):
            if mask is not None and masks.mask_of(output) is None:
                masks.set_mask(output, mask)

    def _keep_aligned(self, signature: Signature, args: Any, kwargs: Any, outputs: Any) -> None:
        """Let masks travel through a layer without a rule, if its ops keep their positions."""
        given = [leaf for leaf in tree.leaves([args, kwargs]) if leaf is not None]
        if context.is_abstract():
            behind = next((leaf.mask.through for leaf in given if type(leaf) is Spec and leaf.mask is not None), None)
            for output in tree.leaves(outputs):
                tag = output.mask if type(output) is Spec else None
                if tag is None:
                    continue
                if tag.lost is not None and not signature.mask_for:
                    self._warn_lost(tag.lost, user_line())
                output.mask = None if tag.lost is not None else masks.Tag(tag.sources, None, behind)
            return
        parent = current.get().parent  # type: ignore[union-attr]
        found = [masks.mask_of(leaf) for leaf in given]
        if all(mask is None for mask in found) or getattr(parent and parent.layer, "_function", None) is not None:
            return  # in a graph masks have nodes of their own
        for output, sources in zip(tree.leaves(outputs), self._alignment(args, kwargs, given, found), strict=True):
            if sources and masks.mask_of(output) is None:
                masks.set_mask(output, masks.combined(tuple(found[i] for i in sources)))

    def _alignment(self, args: Any, kwargs: Any, given: list[Any], found: list[Any]) -> list[list[int]]:
        """For each output the arguments whose masks hold for it; worked out on Specs, once for each set of shapes."""
        key = tuple(
            (shape_of(x), dtype_of(x), None if m is None else len(shape_of(m)))
            for x, m in zip(given, found, strict=True)
        )
        known = vars(self).setdefault("_aligned", {})
        if key not in known:
            place = {id(mask): i for i, mask in enumerate(found) if mask is not None}
            tags = {id(x): masks.Tag((m,)) for x, m in zip(given, found, strict=True) if m is not None}

            def spec(leaf: Any) -> Any:
                return Spec(shape_of(leaf), dtype_of(leaf), tags.get(id(leaf))) if is_array(leaf) else leaf

            layers = self._flatten_layers()
            noted = [list(layer._call_losses) for layer in layers]
            token = current.set(None)
            try:
                with context.abstract(), context.bind([], []):
                    specs = self._run(tree.map_structure(spec, args), tree.map_structure(spec, kwargs), recording=True)
            finally:
                current.reset(token)
                for layer, losses in zip(layers, noted, strict=True):
                    layer._call_losses[:] = losses
            kept = [getattr(leaf, "mask", None) for leaf in tree.leaves(specs)]
            known[key] = [
                []
                if tag is None or tag.lost is not None
                else [place[id(source)] for source in tag.sources if id(source) in place]
                for tag in kept
            ]
        result: list[list[int]] = known[key]
        return result

    def _check_left_behind(self, signature: Signature, args: Any, kwargs: Any) -> None:
        """Say that a mask does not come along with a value's own arithmetic in a `call` (only a graph's masks do)."""
        if not context.is_abstract() or not (signature.mask_for or self.supports_masking):
            return
        for leaf in tree.leaves([args, kwargs]):
            tag = leaf.mask if type(leaf) is Spec else None
            if tag is None or tag.lost is not None or tag.through is None:
                continue
            leaf.mask = None
            if signature.mask_for and not any(kwargs.get(name) is not None for name in signature.mask_for.values()):
                self._warn(
                    f"layer {self.path!r} ({type(self).__name__}) gets no mask: its input had one, which "
                    "arithmetic in a `call` "
                    f"({tag.through!r}, before {user_line()}) leaves behind; pass it on (mask=...), compute with "
                    "a layer, or drop it "
                    "(cornu.ops.drop_mask(x))",
                    "a mask handed on by hand",
                )

    def _warn_lost(self, op_name: str, where: str | None) -> None:
        text = (
            f"layer {self.path!r} ({type(self).__name__}) got an input with a mask and loses it in {op_name!r} "
            f"(at {where}); take an "
            "argument `mask` in call, define compute_mask, or pass cornu.ops.drop_mask(x)"
        )
        self._warn(text, "a layer that knows masks")

    def _warn(self, text: str, expected: str) -> None:
        if config.is_strict():
            raise MaskError(text, expected)
        warnings.warn(text, MaskWarning, stacklevel=4)

    def _first(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args[0] if args else next(iter(kwargs.values()), None)

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by the names `call` gives them."""
        names = signature_of(type(self)).names
        if len(args) > len(names):  # call(*inputs)
            names = [*names, *(f"argument_{i}" for i in range(len(names), len(args)))]
        return {**dict(zip(names, args, strict=False)), **kwargs}

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any], recording: bool = False) -> Any:
        """The call on values or Specs; `Layer` has it."""
        raise NotImplementedError
