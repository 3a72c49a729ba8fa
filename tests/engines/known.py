"""What is known to fail on an engine: (engine, name of a case or test) -> reason and link. An unexpected pass fails the run."""

KNOWN: dict[tuple[str, str], str] = {
    ("pytensor", "dtypes:bfloat16"): "PyTensor has no bfloat16 (pytensor/tensor/type.py, dtype_specs_map): values are refused",
}
