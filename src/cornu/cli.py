"""The command `cornu`."""

import argparse
import json
from collections.abc import Sequence

import cornu
from cornu.inspect import doctor

__all__ = ["main"]


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise ValueError(text)
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cornu", description="Cornu: one model, any engine.")
    parser.add_argument("--version", action="version", version=f"cornu {cornu.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "doctor", help="engines, devices, threads, extras: what is there, and how to get what is missing"
    )
    command.add_argument("--json", action="store_true", help="print plain data for other programs")
    command.add_argument("--quick", action="store_true", help="import no engine: versions only, no devices")
    command.add_argument(
        "--timeout", type=_seconds, default=60.0, metavar="SECONDS", help="how long an engine may take to answer (60)"
    )
    command.set_defaults(run=_doctor)
    return parser


def _doctor(options: argparse.Namespace) -> int:
    found = doctor.examine(not options.quick, options.timeout)
    print(json.dumps(found, indent=2) if options.json else doctor.render(found))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: what follows `cornu` on the command line; by default those of this process.

    Returns:
        the exit code.

    Example:
        >>> import contextlib, io
        >>> with contextlib.redirect_stdout(io.StringIO()) as text:
        ...     code = main(["doctor", "--quick"])
        >>> code, "Engines" in text.getvalue()
        (0, True)
    """
    options = _parser().parse_args(arguments)
    code: int = options.run(options)
    return code
