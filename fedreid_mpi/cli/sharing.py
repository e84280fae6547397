"""The option of commands that write files: who else may read them."""

import click

from fedreid_mpi.storage.access import share_with_group


def _share(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        share_with_group()


SHARED = click.option(
    "--share-with-group",
    is_flag=True,
    expose_value=False,
    envvar="FEDREID_SHARE_WITH_GROUP",
    callback=_share,
    help="Let the group read what is written (files 0640, folders 0750). Without it nobody else can (0600, "
    "0700).  [env: FEDREID_SHARE_WITH_GROUP]",
)
