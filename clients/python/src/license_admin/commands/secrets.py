"""`secrets`: makes the secrets of a new cluster on this PC, ready to paste into each host."""

from __future__ import annotations

from pathlib import Path

import click

from license_admin import deployment, files
from license_admin.session import Session, connected


@click.command("secrets")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME[=URL]",
    default=("railway", "render", "fly"),
    show_default=True,
    help="A host, in the order of your program's list; may be repeated. Like railway=https://my-app.up.railway.app",
)
@click.option("--product", default="my-product", show_default=True, help="The product's code in the example.")
@click.option("--out", type=click.Path(path_type=Path), help="Write to this new file instead of the terminal.")
@connected
def secrets(session: Session, hosts: tuple[str, ...], product: str, out: Path | None) -> None:
    """Make new secrets: a block for each host, the public keys, an AutoHotkey example, and a spare key to keep offline.

    They are made on this computer and sent nowhere. Make them once: other secrets are another cluster.
    """
    found = [deployment.host_in(text) for text in hosts]
    made = deployment.generate()
    text = deployment.render(made, found, product)
    if out is not None:
        with files.new_private_file(out) as opened:
            opened.write(text)
            files.flush(opened)
        note = f"Written to {out}, readable by you alone. The last block belongs offline: cut it out."
        session.out.done(note, {"file": str(out)})
    elif session.out.as_json:
        session.out.item(deployment.members(made, found))
    else:
        click.echo(text, nl=False)
