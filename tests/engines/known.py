"""What is known to fail on an engine: (engine, name of a case or test) -> reason and link. An unexpected pass fails the run."""

_NO_BFLOAT16 = "PyTensor has no bfloat16 (pytensor/tensor/type.py, dtype_specs_map): values are refused"

# A case of the table is "dtypes:bfloat16"; a test of the long sweep is its name, without the engine among its parameters.
KNOWN: dict[tuple[str, str], str] = {
    ("pytensor", "dtypes:bfloat16"): _NO_BFLOAT16,
    ("pytensor", "test_gradients_pass_casts"): _NO_BFLOAT16,
    ("pytensor", "test_mixed_precision_and_masks"): _NO_BFLOAT16,
    ("pytensor", "test_dtypes[bfloat16]"): _NO_BFLOAT16,
    (
        "pytensor",
        "test_half_widths_are_computed_in_float32[mixed_bfloat16-BatchNormalization-arguments4]",
    ): _NO_BFLOAT16,
}

# What ends the process, so that it cannot be expected to fail: (engine, "second:" and an op) -> reason.
_XLA = "XLA aborts: hlo_instruction.cc, Invalid binary instruction opcode map (PyTensor's JAX linker, jaxlib 0.10)"
CRASHES: dict[tuple[str, str], str] = {("pytensor", "second:lstm"): _XLA, ("pytensor", "second:gru"): _XLA}
