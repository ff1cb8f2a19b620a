"""The command line ``qerror``: optimal scales, errors and formats as tables or JSON."""

__all__ = ["main"]


def main() -> None:
    """Run the command line on the arguments of the process."""
    from .commands import qerror_command

    qerror_command(prog_name="qerror")
