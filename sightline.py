"""The `sightline` command: from a Keras model to a camera on a Jetson, with proof at every step."""

import click

from edge.errors import SightlineError
from edge.tables import resolve

COMMANDS = {
    "train": ("train.commands:train", "Train a recipe."),
    "sanity": ("train.commands:sanity", "Check a recipe before a training: first loss, layers, gradient."),
    "describe": ("train.commands:describe", "Show a model's layers: shapes, MACs, receptive field."),
    "seeds": ("train.seeds:seeds", "Compare trainings of one recipe from several seeds."),
    "search": ("train.search.command:search", "Search a recipe's learning rate, decay and more."),
    "export": ("export.commands:export", "Turn a Keras model into a proven bundle."),
    "evaluate": ("train.evaluate_command:evaluate", "Measure a model or bundle: top-1, or AP50 of faces."),
    "baselines": ("train.baselines_command:baselines", "Compare five kinds of classifier."),
    "ensemble": ("train.baselines_command:ensemble", "Measure classifiers, and all together."),
    "predict": ("edge.predict:predict", "Write what is in pictures or a video, one JSON object a line."),
    "build": ("export.build:build", "Build a bundle's TensorRT plan, for this very device."),
    "run": ("edge.run:run", "Stream cameras or files through models."),
    "profile": ("edge.profile:profile", "Measure latency by stage; compare two runs, keep a budget."),
    "enroll": ("edge.enroll:enroll", "Teach a new class from a few pictures."),
    "events": ("edge.events:events", "Print what a stream wrote into its database of events."),
    "doctor": ("edge.doctor:doctor", "Say what this machine can run, and what is missing."),
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
cli.context_settings["help_option_names"] = ["-h", "--help"]


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
