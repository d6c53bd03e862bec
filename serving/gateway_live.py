"""What changes in the gateway while it runs: the canaries' shares, and the key that TorchServe asks of it.

It is one file, ``run/gateway/live/live.conf``, which ``gateway/nginx/main.conf.template`` includes;
``serving/gateway_reload.py`` has nginx take it up.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from serving import files
from serving.errors import RolloutError
from serving.live import Live

NAME = "live.conf"

_TEMPLATE = """\
{splits}map "$version/$model" $at_version {{
    default "";
    "~^(?<asked>[^/]+)/" /$asked;
{shares}}}
{key}"""


def render(state: Mapping[str, Live], key: str | None) -> str:
    """The file's text.

    Args:
        state: what is live.
        key: the bearer token that TorchServe's inference API asks for, if it does.
    """
    canaries = [(model, live.canary) for model, live in sorted(state.items()) if live.canary]
    return _TEMPLATE.format(
        splits="".join(
            f'split_clients $request_id $drawn_{number} {{ {canary.percent:.2f}% "/{canary.version}"; * ""; }}\n'
            for number, (_, canary) in enumerate(canaries)
        ),
        shares="".join(f'    "/{model}" $drawn_{number};\n' for number, (model, _) in enumerate(canaries)),
        key=f'proxy_set_header Authorization "Bearer {key}";\n' if key else "",
    )


def write(folder: Path, text: str) -> bool:
    """Write the file, whole or not at all, for its owner's eyes alone.

    Args:
        folder: where; made when needed.
        text: of ``render``.

    Returns:
        Whether it has changed.

    Raises:
        RolloutError: it cannot be written; it is as it was.
    """
    path = folder / NAME
    try:
        if path.exists() and path.read_text() == text:
            return False
        files.write_atomically(path, text, mode=0o600)
    except OSError as error:
        raise RolloutError(f"{path} cannot be written: {error.strerror or error}") from error
    return True
