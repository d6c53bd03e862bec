"""New versions go live, or do not, without a request lost: deploy, rollback, canary, promote, abort.

    deploy    archive whole, digest right, accurate enough ─► registered beside the live version ─► workers READY
                  ─► the known answers right ─► default version switched ─► old version idle for the grace time
                  ─► old version unregistered
    rollback  the same with the version that was live before, without asking how accurate it is
    canary    the same up to the known answers; then the gateway sends it a share of the requests
    promote   the canary becomes the default version, the split ends, the old version is drained and unregistered
    abort     the split ends, the canary is drained and unregistered

A step that fails leaves the live version as it was, unregisters what was registered, and raises. The supervisor runs
one rollout at a time (``serving/control.py``). What TorchServe does, and why this order (0.12.0): a version that is
unregistered never answers what is in its queue, so it gets no new requests first and is given time; a version that is
registered becomes the default only if the model had none.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from serving import archives, live, model_index, processes, readiness
from serving.archives import Archive
from serving.errors import RolloutError, ServingError
from serving.live import Canary, Live
from serving.management import Management
from serving.model_index import Listed
from serving.tokens import Token

# By how much a new version may be less accurate than the live one. On 10,000 test images the standard error of an
# accuracy of 0.9 is 0.003: half a percentage point is less than twice that.
MARGIN = 0.005
# As many known answers as training packs.
GOLDEN = 200
# Seconds that a version must have had nothing in its queue before it is unregistered: batches take milliseconds, the
# largest request of 8192 images under two seconds.
GRACE = 5.0
# Seconds after which a version that is still asked for by name is unregistered nevertheless.
_LONGEST_DRAIN = 60.0

Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Target:
    """The service that a rollout changes.

    Attributes:
        management: its management API.
        inference: URL of its inference API.
        token: gives the inference API's bearer token, if it asks for one.
        model_store: where the archives are.
        state: folder of ``live.json``.
        workers_log: what its workers print.
        start_timeout: seconds that workers may take to be ready.
        grace: seconds that a version must be idle before it is unregistered.
        split: brings the canaries' shares to the gateway and returns when they hold.
    """

    management: Management
    inference: str
    token: Token
    model_store: Path
    state: Path
    workers_log: Path
    start_timeout: float
    grace: float
    split: Callable[[Mapping[str, Live]], None]


def deploy(target: Target, model: str, version: str, report: Report) -> None:
    """Make a version live.

    Raises:
        ServingError: it may not go live, or did not; the message says which step failed and why, and the live version
            is as it was.
    """
    state, before = _state(target, model)
    if before:
        _refuse_during_canary(model, before)
        _refuse_again(model, version, before)
    archive = _checked(target, model, version, before, report)
    _bring_up(target, archive, report)
    _switch(target, state, model, before, before.followed_by(version) if before else Live(version), report)
    if before:
        _retire(target, model, before.version, report)


def rollback(target: Target, model: str, report: Report) -> str:
    """Make the version live that was live before; the version that this is.

    Raises:
        ServingError: as for ``deploy``; or there was none before.
    """
    state, before = _known(target, model)
    _refuse_during_canary(model, before)
    if not before.previous:
        raise RolloutError(f"no version of {model} was live before {before.version}: there is none to go back to")
    version = before.previous[0]
    archive = archives.read_listed(_entry(target, model, version))
    _bring_up(target, archive, report)
    _switch(target, state, model, before, Live(version, before.previous[1:]), report)
    _retire(target, model, before.version, report)
    return version


def canary(target: Target, model: str, version: str, percent: float, report: Report) -> None:
    """Give a version a share of the requests that ask for none; for the version that has one already, another share.

    Args:
        target: where.
        model, version: the version on trial.
        percent: its share, above 0 and at most 100.
        report: told of each step.

    Raises:
        ServingError: as for ``deploy``; or there is another canary.
    """
    if not 0 < percent <= 100:
        raise RolloutError(f"{percent:g} is no share: a canary gets more than 0 and at most 100 percent")
    state, before = _known(target, model)
    _refuse_again(model, version, before)
    after = dataclasses.replace(before, canary=Canary(version, percent))
    if before.canary:
        if before.canary.version != version:
            _refuse_during_canary(model, before)
        _share(target, state, model, before, after, report)
        return
    archive = _checked(target, model, version, before, report)
    _bring_up(target, archive, report)
    try:
        _share(target, state, model, before, after, report)
    except BaseException:
        _drop(target, model, version)
        raise


def promote(target: Target, model: str, report: Report) -> str:
    """Make the canary the live version; the version that this is.

    Raises:
        ServingError: there is no canary, or a step failed and everything is as it was.
    """
    state, before = _known(target, model)
    trial = _trial(model, before)
    running = target.management.describe(model, trial.version)
    if running is None or not running.ready:
        raise RolloutError(f"{model} {trial.version} has workers that are not ready")
    after = before.followed_by(trial.version)
    _switch(target, state, model, before, after, report)
    # Until this is done a share goes to the same version by another way.
    target.split({**state, model: after})
    _retire(target, model, before.version, report)
    return trial.version


def abort(target: Target, model: str, report: Report) -> str:
    """End the canary; the version that it was.

    Raises:
        ServingError: there is none, or a step failed; the canary keeps its share then.
    """
    state, before = _known(target, model)
    trial = _trial(model, before)
    _share(target, state, model, before, dataclasses.replace(before, canary=None), report)
    _retire(target, model, trial.version, report)
    return trial.version


def _state(target: Target, model: str) -> tuple[dict[str, Live], Live | None]:
    """The whole state, and the model's, after comparing it with what runs."""
    state = live.read(target.state)
    running = target.management.describe(model)
    if running is None:
        if model in state:
            raise RolloutError(
                f"{model} is live by {target.state / live.NAME}, but does not run; start the service again"
            )
        return state, None
    known = state.get(model, Live(running.version))
    if running.version != known.version:
        raise RolloutError(
            f"{model} {running.version} answers, but by {target.state / live.NAME} {known.version} is live: somebody "
            "changed one of them by hand; start the service again, or write into the file what runs"
        )
    return state, known


def _known(target: Target, model: str) -> tuple[dict[str, Live], Live]:
    state, known = _state(target, model)
    if known is None:
        raise RolloutError(f"there is no model {model} in the service")
    return state, known


def _refuse_again(model: str, version: str, before: Live) -> None:
    if version == before.version:
        raise RolloutError(f"{model} {version} is live already; an archive packed again is taken up by: make restart")


def _refuse_during_canary(model: str, before: Live) -> None:
    if before.canary:
        raise RolloutError(
            f"{model} {before.canary.version} is a canary with {before.canary.percent:g} % of the requests; "
            f"end that first: make promote MODEL={model}, or make abort MODEL={model}"
        )


def _trial(model: str, before: Live) -> Canary:
    if before.canary is None:
        raise RolloutError(f"{model} has no canary")
    return before.canary


def _entry(target: Target, model: str, version: str) -> Listed:
    for entry in model_index.read(target.model_store):
        if (entry.model, entry.version) == (model, version):
            return entry
    raise RolloutError(
        f"{target.model_store / model_index.NAME} lists no {model} {version}; "
        f"run: make archive MODEL={model} VERSION={version}"
    )


def _checked(target: Target, model: str, version: str, before: Live | None, report: Report) -> Archive:
    """The archive, whole and accurate enough to go live."""
    report(f"checking {model} {version}")
    entry = _entry(target, model, version)
    archive = archives.read_listed(entry)
    if archive.golden is None:
        raise RolloutError(f"{entry.path} holds no known answers to compare with; run: make archive")
    accuracy = _accuracy(archive)
    if not accuracy >= entry.accuracy_floor:
        raise RolloutError(
            f"{model} {version} scores {accuracy:.4f}, under the catalog's floor of {entry.accuracy_floor:.4f}"
        )
    if before:
        now = _accuracy(archives.read_listed(_entry(target, model, before.version)))
        if not accuracy >= now - MARGIN:
            raise RolloutError(
                f"{model} {version} scores {accuracy:.4f}, more than {MARGIN:g} less than the {now:.4f} of "
                f"{before.version}, which is live"
            )
    return archive


def _accuracy(archive: Archive) -> float:
    accuracy = archive.signature.scored.get("test_accuracy")
    if not isinstance(accuracy, float):
        raise RolloutError(f"the signature in {archive.path} gives no test_accuracy; train it again")
    return accuracy


def _bring_up(target: Target, archive: Archive, report: Report) -> None:
    """Register a version and see that it answers rightly; what fails is unregistered again."""
    name, version = archive.model, archive.version
    if target.management.describe(name, version):
        report(f"unregistering {name} {version}, left by a rollout that was broken off")
        target.management.unregister(name, version)
    report(f"registering {name} {version}")
    try:
        target.management.register(archive.path.name)
        _wait_for_workers(target, name, version, report)
        if archive.golden:
            report(f"asking {name} {version} for {min(GOLDEN, len(archive.golden.inputs))} known answers")
            readiness.check_prediction(target.inference, archive, archive.golden, GOLDEN, target.token())
    except BaseException:
        # Ctrl-C too.
        _drop(target, name, version)
        raise


def _wait_for_workers(target: Target, model: str, version: str, report: Report) -> None:
    deadline = time.monotonic() + target.start_timeout
    seen: set[int] = set()
    while True:
        running = target.management.describe(model, version)
        if running is None:
            raise RolloutError(f"TorchServe registered no {model} {version}: the archive holds something else")
        if running.ready and running.workers:
            return
        seen |= {worker.pid for worker in running.workers if worker.pid > 0}
        if len(seen) > len(running.workers):
            raise RolloutError(
                f"a worker of {model} {version} ended while it loaded the model; the end of what it printed "
                f"({target.workers_log}):\n{readiness.settled_lines(target.workers_log, running.workers[0].id)}"
            )
        if time.monotonic() > deadline:
            raise RolloutError(f"{model} {version} was not ready after {target.start_timeout:g} s")
        report(f"loading {model} {version}")
        time.sleep(processes.POLL)


def _switch(
    target: Target, state: Mapping[str, Live], model: str, before: Live | None, after: Live, report: Report
) -> None:
    """Make ``after`` the state, in TorchServe and in the file; both or neither."""
    report(f"switching {model} to {after.version}")
    try:
        # The file first: without room for it no request goes to the new version at all.
        live.write(target.state, {**state, model: after})
        target.management.set_default(model, after.version)
    except BaseException:
        with suppress(ServingError):
            live.write(target.state, {**state, model: before} if before else state)
        with suppress(ServingError):
            if before:
                target.management.set_default(model, before.version)
        if before is None or before.canary is None:
            _drop(target, model, after.version)
        raise


def _share(target: Target, state: Mapping[str, Live], model: str, before: Live, after: Live, report: Report) -> None:
    """Make another share hold, in the gateway and in the file; both or neither."""
    try:
        report("bringing the shares to the gateway")
        target.split({**state, model: after})
        live.write(target.state, {**state, model: after})
    except BaseException:
        with suppress(ServingError):
            live.write(target.state, {**state, model: before})
        with suppress(ServingError):
            target.split({**state, model: before})
        raise


def _drop(target: Target, model: str, version: str) -> None:
    """Unregister what did not go live; that it is not there, or cannot be asked, is no further failure."""
    with suppress(ServingError):
        target.management.unregister(model, version)


def _retire(target: Target, model: str, version: str, report: Report) -> None:
    """Unregister a version that gets no new requests, when it has been idle for the grace time."""
    # It is done: whoever breaks off now is too late.
    with suppress(RolloutError):
        report(f"draining {model} {version}")
    latest = time.monotonic() + _LONGEST_DRAIN
    idle_since = time.monotonic()
    try:
        while time.monotonic() < min(idle_since + target.grace, latest):
            running = target.management.describe(model, version)
            if running is None:
                return
            if running.queued:
                idle_since = time.monotonic()
            time.sleep(processes.POLL)
        target.management.unregister(model, version)
    except ServingError as error:
        raise RolloutError(f"done, but {model} {version}, which nobody asks any more, still runs: {error}") from error
