"""`value_and_grad`: one form of gradient on every engine."""

from collections.abc import Callable
from typing import Any

from cornu.autodiff.tape import tape_value_and_grad
from cornu.core import context, tree
from cornu.core.errors import ArgumentError, ShapeError
from cornu.core.variable import Variable, check_trainable_dtype, read_all
from cornu.ops._declare import shape_of

__all__ = ["value_and_grad"]


def value_and_grad(function: Callable[..., Any], variables: Any, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives a value and its gradient for some variables.

    Args:
        function: computes a scalar from its arguments and from variables it reads, or `(scalar, rest)` if `has_aux`.
        variables: a structure of variables.
        has_aux: whether `function` gives more than the scalar.

    Returns:
        function of the same arguments that gives `(value, gradients)`, or `((value, rest), gradients)`; `gradients`
        has the structure of `variables`. What `function` assigns to variables stays assigned. It may be nested, for
        gradients of gradients.

    Raises:
        ShapeError: if the value is no scalar.
        DtypeError: if a variable holds no floats.

    Example:
        >>> import cornu
        >>> w = cornu.Variable(3.0)
        >>> value, gradient = cornu.value_and_grad(lambda x: w * w * x, w)(2.0)
        >>> float(value), float(gradient)
        (18.0, 12.0)
    """
    watched = tree.leaves(variables)
    for variable in watched:
        if not isinstance(variable, Variable):
            raise ArgumentError(f"value_and_grad got {variable!r:.80} among its variables", "a structure of Variables")
        check_trainable_dtype(variable)

    def run(*args: Any, **kwargs: Any) -> Any:
        engine = context.engine_in_force()
        outer = context.bindings.get()
        touched: dict[int, Variable] = {}

        def pure(values: list[Any]) -> tuple[Any, Any]:
            with context.bind(watched, values) as scope:
                result = function(*args, **kwargs)
                value, rest = result if has_aux else (result, None)
                if shape_of(value) != ():
                    raise ShapeError(
                        f"value_and_grad got a value of shape {shape_of(value)}", "a scalar", "reduce it with ops.mean"
                    )
                touched.update(scope.assigned)
                assigned = [scope.values[key] for key in scope.assigned]
            return value, (rest, assigned)

        native = None if context.by_tape.get() else engine.value_and_grad(pure)
        differentiate = native or tape_value_and_grad(pure)
        with context.use_engine(engine):
            (value, (rest, assigned)), gradients = differentiate(read_all(watched))
        for variable, new in zip(touched.values(), assigned, strict=True):
            if outer is not None:
                outer.values[id(variable)] = new
                outer.assigned[id(variable)] = variable
            elif variable.holder is not None:
                variable.holder.write(variable, new)
            else:
                variable.set_value(new)
        packed = tree.pack(variables, gradients)
        return ((value, rest) if has_aux else value), packed

    return run
