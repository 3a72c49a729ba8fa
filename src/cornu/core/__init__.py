"""What everything rests on: errors, dtypes, dims, specs, trees, the registry, config, variables.

Knows no op, no engine.
"""
