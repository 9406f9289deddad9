"""Parsing, dispatch, and errors in one line."""

from __future__ import annotations

import argparse
import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import NoReturn

import edge_fg
from edge_fg.errors import EdgeFGError, MissingDependencyError, import_optional
from edge_fg.printing import first_line, message, printable_lines, shortage
from edge_fg_tools.cli.command import GROUP, Command
from edge_fg_tools.cli.process import ended_as_interrupted, own_standard_output

_INTERRUPTED = 128 + signal.SIGINT
_EPILOG = """edge-fg COMMAND --help tells the options of a command, with an example.

exit codes: 0 done, 1 a failure named in one line on standard error, 2 wrong usage,
3 an accuracy budget was not met, or a model is right only by chance (no bundle is written, but
  build --keep-best keeps the best that missed the budget)

completion by the shell: pip install 'edge-fg[complete]', then in bash or zsh
  eval "$(register-python-argcomplete edge-fg)\""""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    _prepare_streams()
    try:
        parser = make_parser()
        if "_ARGCOMPLETE" in os.environ:
            _complete(parser)
        parsed = parser.parse_args(arguments)
    except EdgeFGError as error:
        _print_error(str(error))
        return error.exit_code
    _log_to_stderr(logging.INFO if parsed.verbose else logging.WARNING)
    try:
        with own_standard_output() as parsed.stdout, ended_as_interrupted():
            code: int = parsed.execute(parsed)
    except EdgeFGError as error:
        _print_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _print_error("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        return 1  # the reader of our output has ended
    except OSError as error:
        _print_error(shortage(error) or f"the operating system refused: {first_line(error)}")
        return 1
    except Exception as error:  # noqa: BLE001  a defect of ours: one line too
        if (lacking := shortage(error)) is not None:
            _print_error(lacking)
            return 1
        if os.environ.get("EDGE_FG_DEBUG"):
            print(printable_lines(traceback.format_exc()), file=sys.stderr)
        _print_error(
            f"internal error, {type(error).__name__}: {' '.join(str(error).split())} "
            "(set EDGE_FG_DEBUG=1 for the details and report them)"
        )
        return 1
    return code


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks how a command line may go on, and end the program."""
    argcomplete = import_optional("argcomplete", "argcomplete", "complete", "complete commands")
    argcomplete.autocomplete(parser)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Says of every option whether it is required, or else its default."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if not action.option_strings or action.default == argparse.SUPPRESS or "default:" in text:
            return text
        if action.required:
            return f"{text}; required"
        return f"{text}; default: {'off' if action.nargs == 0 else '%(default)s'}"


class _Parser(argparse.ArgumentParser):
    """Escapes what it quotes of a command line: a shell's `*` may have given a file's name."""

    def error(self, text: str) -> NoReturn:
        """Say what is wrong, and end the program."""
        super().error(message(text))


def _prepare_streams() -> None:
    """Escape names that the terminal can't show, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    found = entry_points(group=GROUP)
    if not found:
        raise EdgeFGError("this installation of edge-fg lists no commands: install it again")
    parser = _Parser(
        prog="edge-fg",
        description="Fine-grained image recognition on edge devices.",
        epilog=_EPILOG,
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"edge-fg {edge_fg.__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what is chosen and why")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for entry in found:
        command = _load(entry)
        chosen = commands.add_parser(
            entry.name,
            help=command.summary,
            description=f"{command.summary[:1].upper()}{command.summary[1:]}.",
            epilog=command.example and f"example:\n  {command.example}",
            formatter_class=_Help,
        )
        command.add_arguments(chosen)
        chosen.set_defaults(execute=partial(_execute, entry.name, command))
    return parser


def _load(entry: EntryPoint) -> Command:
    """Import a command; one that can't be imported says why when it is called."""
    try:
        command: Command = entry.load()
    except Exception as error:  # noqa: BLE001  a command of another package may fail in any way
        reason = f"edge-fg {entry.name} can't be loaded: {shortage(error) or first_line(error)}"

        def refuse(_arguments: argparse.Namespace) -> int:
            raise EdgeFGError(reason)

        def take_any(parser: argparse.ArgumentParser) -> None:
            parser.add_argument("arguments", nargs=argparse.REMAINDER)

        return Command("can't be loaded here", take_any, refuse)
    return command


def _execute(name: str, command: Command, arguments: argparse.Namespace) -> int:
    try:
        return command.execute(arguments)
    except ModuleNotFoundError as error:
        package = str(error.name)
        if package.startswith("edge_fg"):
            raise
        raise MissingDependencyError(package, command.extra, f"run edge-fg {name}") from error


def _log_to_stderr(level: int) -> None:
    logger = logging.getLogger("edge_fg")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("edge-fg: %(message)s"))
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(level)


def _print_error(text: str) -> None:
    print(f"edge-fg: {message(text)}", file=sys.stderr)
