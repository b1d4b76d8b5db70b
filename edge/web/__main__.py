"""`python -m edge.web token FILE` and `python -m edge.web password FILE`: write the hash of a secret."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from edge.errors import InputError
from edge.files import whole_file
from edge.web.credentials import LONGEST_SECRET, SHORTEST_PASSWORD, SecretHash

FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(help=__doc__)
def main() -> None: ...


@main.command()
@click.argument("file", type=FILE)
def token(file: Path) -> None:
    """Make a token, print it once, and write its hash to FILE."""
    made = secrets.token_urlsafe(32)
    write_hash(file, made)
    click.echo(made)


@main.command()
@click.argument("file", type=FILE)
@click.password_option()
def password(file: Path, password: str) -> None:
    """Ask for a password and write its hash to FILE."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_SECRET:
        raise click.UsageError(f"A password has {SHORTEST_PASSWORD} to {LONGEST_SECRET} characters.")
    write_hash(file, password)


def write_hash(file: Path, secret: str) -> None:
    """Write the hash of a secret, for the owner's eyes only; raises InputError where it cannot."""
    try:
        with whole_file(file) as temporary:
            temporary.write_text(SecretHash.of(secret).line() + "\n", encoding="ascii")
        os.chmod(file, 0o600)
    except OSError as error:
        raise InputError(f"Cannot write {file}: {error.strerror}.") from error


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(error.exit_code) from None
