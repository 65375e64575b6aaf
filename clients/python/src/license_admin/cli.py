"""The command line: the commands put together, and errors as sentences with an exit status each."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from license_admin import config
from license_admin.commands import access, catalogue, cluster, configure, licenses, machines, secrets, transfer
from license_admin.errors import EXIT_STATUSES, AdminError, NotAllowed, NotOne
from license_admin.output import Output, fit_streams, print_json
from license_admin.session import Start, connection_options, split
from license_client.version import __version__

_ABOUT = f"""What a vendor does with the license servers, over HTTPS.

It asks the servers in their order: where one does not answer, the next is asked, and nothing is done twice. Servers and
token come from options, then from {config.SERVERS} and {config.TOKEN}, then from the file that
`license-admin configure` writes.

\b
exit status:
""" + "\n".join(f"  {status:>3}  {meaning}" for status, meaning in EXIT_STATUSES.items())

_INTERRUPTED, _REFUSED = 130, 1


@click.group("license-admin", help=_ABOUT, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="license-admin %(version)s")
@connection_options
@click.pass_context
def program(context: click.Context, /, **values: object) -> None:
    start = context.ensure_object(Start)
    start.given, start.as_json, start.verbose = split(dict(values))


#: A new command is one more here.
COMMANDS: tuple[click.Command, ...] = (
    catalogue.group_of(catalogue.PRODUCT),
    catalogue.group_of(catalogue.POLICY),
    licenses.licenses,
    machines.machines,
    transfer.import_,
    transfer.export,
    cluster.stats,
    cluster.nodes,
    cluster.switchover,
    cluster.events,
    cluster.findings,
    access.tokens,
    access.keys,
    secrets.secrets,
    configure.configure,
)
for _command in COMMANDS:
    program.add_command(_command)


def main(arguments: Sequence[str] | None = None, start: Start | None = None) -> int:
    """Runs one command; gives its exit status. `start`: what tests replace."""
    fit_streams()
    given = start or Start()
    as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    try:
        program.main(None if arguments is None else list(arguments), "license-admin", standalone_mode=False, obj=given)
    except AdminError as error:
        _show(error, as_json)
        return error.exit_status
    except click.Abort:
        print("license-admin: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except BrokenPipeError:
        return _REFUSED  # who reads the output has seen enough
    return 0


def _show(error: AdminError, as_json: bool) -> None:
    if as_json:
        print_json(error.members(), file=sys.stderr)
        return
    print(f"license-admin: {error}", file=sys.stderr)
    if isinstance(error, NotAllowed) and error.problem.get("scope"):
        print(f"The token has not the scope {error.problem['scope']}: ask for one that has.", file=sys.stderr)
    if isinstance(error, NotOne) and error.candidates:
        first = error.candidates[0]
        columns = [name for name in (*licenses.COLUMNS, "code", "kid", "fingerprint", "scopes") if name in first]
        Output(as_json=False).items(error.candidates, columns)
