"""A command that is a group too: ``bench-repo WORKLOAD.yaml`` beside ``bench-repo compare A B``.

One of the group's commands is the default: what does not begin with the name of another one is for it. The group's own
``--help`` shows the default's arguments and options, and the other commands below them.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

_HELPING = f"{__name__}.helping"


class DefaultCommandGroup(TyperGroup):
    """The first command that was added is the default; it is run without its name.

    ``bench-repo ./compare`` reaches a file that has the name of a command.
    """

    @property
    def default(self) -> Any:
        """The command for everything that names none."""
        return next(iter(self.commands.values()))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As it is, where the first word is a command or asks for help; else with the default's name in front."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [str(self.default.name), *args]
        return list(super().parse_args(ctx, args))

    def get_params(self, ctx: Any) -> list[Any]:
        """Those of the default command, for help; to parse, the group's own: ``--help`` alone."""
        return list(self.default.get_params(ctx) if ctx.meta.get(_HELPING) else super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """With the arguments and options of the default command."""
        ctx.meta[_HELPING] = True
        super().format_help(ctx, formatter)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The default's, and that there are commands."""
        return [*self.default.collect_usage_pieces(ctx), "|", "COMMAND ..."]
