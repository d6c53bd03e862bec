"""What changes in the gateway while it runs: the canaries' shares, and the key that TorchServe asks of it.

It is one file, ``run/gateway/live/live.conf``, which ``gateway/nginx.conf.template`` includes;
``serving/gateway_reload.py`` has nginx take it up. Needs nothing but the standard library: the gateway's image has no
more.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

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
    text = _TEMPLATE.format(
        splits="".join(
            f'split_clients $request_id $drawn_{number} {{ {canary.percent:.2f}% "/{canary.version}"; * ""; }}\n'
            for number, (_, canary) in enumerate(canaries)
        ),
        shares="".join(f'    "/{model}" $drawn_{number};\n' for number, (model, _) in enumerate(canaries)),
        key=f'proxy_set_header Authorization "Bearer {key}";\n' if key else "",
    )
    # The status server tells it, so that one can see which file nginx has taken up.
    return text + f'map "" $live_digest {{ default {digest(text)}; }}\n'


def digest(text: str) -> str:
    """What tells one text from any other."""
    return hashlib.sha256(text.encode()).hexdigest()


def taken_up(text: str) -> str:
    """What the status server says when nginx has taken up this text of ``render``."""
    return digest(text[: text.rindex("map ")])


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
    path, fresh = folder / NAME, folder / f".{NAME}.new"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.read_text() == text:
            return False
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        fresh.replace(path)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise RolloutError(f"{path} cannot be written: {error.strerror or error}") from error
    return True
