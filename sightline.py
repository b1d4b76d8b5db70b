"""The `sightline` command: from a Keras model to a camera on a Jetson, with proof at every step."""

import click

from edge.errors import SightlineError
from edge.tables import resolve

COMMANDS = {
    "train": ("train.commands:train", "Train a recipe."),
    "sanity": ("train.commands:sanity", "The checks before a training: first loss, layers, gradient."),
    "describe": ("train.commands:describe", "Layers of a model: shapes, parameters, MACs, receptive field."),
    "seeds": ("train.seeds:seeds", "Mean and spread of one recipe trained from several seeds."),
    "search": ("train.search.command:search", "Search a recipe's learning rate, decay and more."),
    "export": ("export.commands:export", "A Keras model to a proven bundle."),
    "evaluate": ("train.evaluate_command:evaluate", "Of a model or a bundle: top-1, or AP50 of faces."),
    "baselines": ("train.baselines_command:baselines", "Five kinds of classifier on pixels and on features."),
    "ensemble": ("train.baselines_command:ensemble", "Top-1 of several classifiers, and of all together."),
    "predict": ("edge.predict:predict", "Results for pictures or a video, one JSON object a line."),
    "build": ("export.build:build", "The TensorRT plan of a bundle, for this very device."),
    "run": ("edge.run:run", "Stream a source through a bundle."),
    "profile": ("edge.profile:profile", "Latency by stage, with intervals; compare two runs, keep a budget."),
    "enroll": ("edge.enroll:enroll", "Teach a new class from a few pictures."),
    "events": ("edge.events:events", "What a stream wrote into its database of events."),
    "doctor": ("edge.doctor:doctor", "What this machine can run, and what is missing."),
}


class LazyGroup(click.Group):  # imports a subcommand when it is used, so that `--help` stays quick
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return resolve(COMMANDS[cmd_name][0]) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


cli = click.version_option(package_name="sightline")(LazyGroup("sightline", help=__doc__))


def main() -> None:
    """Run the command; a user's mistake ends in one message and its exit code, never a traceback."""
    try:
        raise SystemExit(cli.main(standalone_mode=False))
    except click.ClickException as error:
        message, code = f"Error: {error.format_message()}", 2
    except SightlineError as error:
        message, code = f"Error: {error}", error.exit_code
    except (click.Abort, KeyboardInterrupt):
        message, code = "Stopped.", 2
    click.echo(message, err=True)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
