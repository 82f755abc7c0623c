"""The command line: ``fastelbo COMMAND`` or ``python -m fastelbo COMMAND``.

A command is a module of this folder with ``add_arguments(parser)`` and ``run(args)``, which returns
the exit code; only the one that runs is imported.
"""

import argparse
import importlib
import os
import sys

COMMANDS = {
    "info": "what this installation is and what it runs on",
    "bench": "how fast it is, next to NumPy, PyTorch, Numba and JAX",
    "parity": "how exact it is: every function against its reference",
    "demo": "train a VAE on handwritten digits and draw what it learnt",
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; how to use it is what --help is for."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv=None):
    """Run a command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = _Parser(prog="fastelbo", description="Variational-inference objectives on CPUs.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    modules = {}
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
        if argv[:1] == [name]:
            modules[name] = importlib.import_module(f"fastelbo._cli.{name}")
            modules[name].add_arguments(command)
    args = parser.parse_args(argv)
    if args.version:
        from fastelbo import __version__

        print(f"fastelbo {__version__}")
        return 0
    if args.command is None:
        parser.print_help()
        return 2
    try:
        return modules[args.command].run(args)
    except KeyboardInterrupt:
        print(f"\nfastelbo {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
