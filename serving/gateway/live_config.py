"""The part of nginx's configuration that changes while it runs: ``run/gateway/live/live.conf``.

It holds the canaries' shares, the models with a registration without batches, and the token that TorchServe requires.
``nginx/main.conf.template`` includes it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from serving import files
from serving.errors import RolloutError
from serving.settings import Settings
from serving.store.live import Live
from serving.torchserve.management import UNBATCHED

_TEMPLATE = """\
{splits}map "$version/$model" $at_version {{
    default "";
    "~^(?<asked>[^/]+)/" /$asked;
{shares}}}
# A model's only request in flight waits for no batch (serving/torchserve/management.py).
map "$alone $model" $unbatched {{
    default "";
{lone}}}
{token}"""


def live_file(settings: Settings) -> Path:
    """The file's path."""
    return settings.run / "gateway" / "live" / "live.conf"


def render(state: Mapping[str, Live], unbatched: Collection[str], headers: Mapping[str, str]) -> str:
    """The file's text.

    Args:
        state: the live versions and canaries of each model.
        unbatched: the models whose live version is also registered without batches.
        headers: the token's header for TorchServe's inference API; empty without tokens.
    """
    splits = shares = ""
    canaries = ((model, live.canary) for model, live in sorted(state.items()) if live.canary)
    for number, (model, canary) in enumerate(canaries):
        splits += f'split_clients $request_id $drawn_{number} {{ {canary.percent:.2f}% "/{canary.version}"; * ""; }}\n'
        shares += f'    "/{model}" $drawn_{number};\n'
    lone = "".join(f'    "alone {model}" {UNBATCHED};\n' for model in sorted(unbatched))
    token = "".join(f'proxy_set_header {name} "{value}";\n' for name, value in headers.items())
    return _TEMPLATE.format(splits=splits, shares=shares, lone=lone, token=token)


def write(path: Path, text: str) -> bool:
    """Write the file atomically, readable by its owner only.

    Returns:
        Whether the text differs from the file's previous content.

    Raises:
        RolloutError: the file cannot be written; its content is unchanged.
    """
    try:
        if path.exists() and path.read_text() == text:
            return False
        files.write_atomically(path, text, mode=0o600)
    except OSError as error:
        raise RolloutError(f"{path} cannot be written: {error.strerror or error}") from error
    return True
