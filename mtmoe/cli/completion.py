"""`mtmoe completion`: the Tab key completes commands, options and files."""

from __future__ import annotations

import argparse
import sys

from mtmoe.errors import ConfigError

SHELLS = ("bash", "zsh", "tcsh")
OF_FILES = ("FILE", "CKPT", "CHECKPOINT", "MODEL", "PNG")  # metavars whose values are files
OF_FOLDERS = ("FOLDER",)
EXAMPLES = """\
examples:
  bash:  mtmoe completion bash > ~/.local/share/bash-completion/completions/mtmoe
  zsh:   mtmoe completion zsh > ~/.zfunc/_mtmoe      with fpath=(~/.zfunc $fpath) before compinit
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The argument of the command."""
    parser.epilog, parser.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to complete")


def run(args: argparse.Namespace) -> None:
    """Write the shell's script to standard output.

    Raises:
        ConfigError: the library that writes it is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise ConfigError("shtab must be installed, but is not. Run `pip install shtab`.") from None
    from mtmoe.cli.main import COMMANDS, build_parser

    parser = build_parser(COMMANDS)
    _complete_files(parser, shtab.FILE, shtab.DIRECTORY)
    sys.stdout.write(shtab.complete(parser, shell=args.shell) + "\n")


def _complete_files(parser: argparse.ArgumentParser, file: object, folder: object) -> None:
    """Mark, in shtab's way, the arguments whose values are files or folders."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, file, folder)
        if action.metavar in OF_FILES:
            vars(action)["complete"] = file
        elif action.metavar in OF_FOLDERS:
            vars(action)["complete"] = folder
