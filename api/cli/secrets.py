"""`flask secrets`: prints new secrets ready to paste into every node, its clients and a drawer.

It needs neither settings nor an app: it is what one runs when the settings are still missing.
"""

from __future__ import annotations

import json
import secrets as random_secrets
from pathlib import Path

import click

from api.config.secret_files import GeneratedSecrets, generate_secrets, one_line_pem, write_private


@click.command("secrets")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write to this new file (mode 0600) instead of the terminal."
)
@click.option("--dotenv", is_flag=True, help="Write a .env for compose.yaml: settings alone, without a spare key.")
def secrets(out: Path | None, dotenv: bool) -> None:
    """Make new secrets: for all nodes, for the clients, and a spare signing key to keep offline."""
    made = generate_secrets()
    text = render_dotenv(made) if dotenv else render(made)
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        write_private(out, text)
    except FileExistsError:
        raise click.ClickException(f"{out} exists already and is left as it is; name a new file") from None
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written: {error.strerror}") from None
    offline = "" if dotenv else " The last block belongs offline: cut it out."
    click.echo(f"Written to {out}, readable by you alone.{offline}")


def render(made: GeneratedSecrets) -> str:
    """The blocks to paste, ASCII, each under a heading that begins with `#`."""
    settings = [f"{name}={value}" for name, value in made.settings().items()]
    public = [json.dumps(key.public_jwk, separators=(",", ":")) for key in (made.signing_key, made.spare_signing_key)]
    blocks = [
        ["# 1. Every node: the same four settings on each of them.", *settings],
        ["# 2. Clients: pin both public keys (they are no secret), the current one and the spare.", *public],
        [
            "# 3. KEEP OFFLINE, on no node: the spare's private key. Should the first be lost or leak,",
            "#    this becomes SIGNING_KEY, and programs already shipped go on working.",
            f"SPARE_SIGNING_KEY={one_line_pem(made.spare_signing_key)}",
        ],
    ]
    return "\n".join("\n".join(block) + "\n" for block in blocks)


def render_dotenv(made: GeneratedSecrets) -> str:
    """The `.env` beside compose.yaml: the four settings and the database's password; the public key as a comment."""
    password = random_secrets.token_urlsafe(24)
    settings = [f"{name}={value}" for name, value in made.settings().items()]
    public = json.dumps(made.signing_key.public_jwk, separators=(",", ":"))
    lines = [
        "# The secrets of the cluster in compose.yaml. Keep this file to yourself; git and the image leave it out.",
        *settings,
        f"POSTGRES_PASSWORD={password}",
        f"# The public key to pin in your program: {public}",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    secrets()
