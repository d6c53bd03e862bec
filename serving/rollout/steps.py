"""The steps of a rollout, none of which loses a request: deploy, rollback, canary, promote, abort.

    deploy    check digest, content, accuracy ─► register beside the live version ─► wait for READY workers
                  ─► golden check ─► switch the default version ─► wait until the old version is idle ─► unregister it
    rollback  the same with the previous version, without a check of its accuracy
    canary    the same up to the golden check; then the gateway sends a share of the requests to the version
    promote   switch the default version to the canary, end its share, drain and unregister the old version
    abort     end the canary's share, drain and unregister the canary

If a step fails, the live version stays as it was, the new version is unregistered, and the step's error is raised. The
supervisor runs one rollout at a time (``serving/supervisor/control.py``).

Why this order (TorchServe 0.12.0): unregistering a version discards its queue. So its traffic must stop and its queue
drain first. A newly registered version becomes the default only if the model had none.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

from serving import Report, polling
from serving.errors import RolloutError, ServingError
from serving.gateway import reload
from serving.settings import Settings
from serving.store import archives, index, live
from serving.store.archives import Archive
from serving.store.index import Listed
from serving.store.live import Canary, Live
from serving.torchserve import golden_check, management
from serving.torchserve.readiness import LoadingWorkers

# By how much a new version's test accuracy may be below that of the live version. On 10,000 test images the standard
# error of an accuracy of 0.9 is 0.003, and the margin is less than twice that.
ACCURACY_MARGIN = 0.005
# A version is unregistered when its queue has been empty for this long. Batches take milliseconds, and the largest
# request (10,000 images) less than 2 s.
GRACE_S = 5.0
# A version whose queue never stays empty, because callers request it by number, is unregistered after this long.
_DRAIN_TIMEOUT_S = 60.0


class Rollout:
    """One rollout of a model. Each public method is a command and returns its result in one line.

    Args:
        settings: of the service.
        model: the model's name.
        grace: seconds for which a version must be idle before it is unregistered.
        report: receives the progress; raises ``RolloutError`` if the client has interrupted the command.

    Raises:
        ServingError: no rollout is possible here, or TorchServe's default version differs from ``live.json``.
    """

    def __init__(self, settings: Settings, model: str, grace: float, report: Report) -> None:
        if shutil.which("kill") is None:
            raise RolloutError("the program kill is missing, which TorchServe needs; on Debian: apt-get install procps")
        self._settings = settings
        self._model = model
        self._grace = grace
        self._report = report
        self._management = management.of_service(settings)
        self._state = live.read(settings.run)
        running = self._management.describe(model)
        if running:
            self._state.setdefault(model, Live(running.version))
        self._before = self._state.get(model)
        if self._before is None:
            return
        path = settings.run / live.NAME
        if running is None:
            raise RolloutError(f"{path} lists {model}, but TorchServe does not serve it; run: make restart")
        if running.version != self._before.version:
            raise RolloutError(
                f"TorchServe serves {model} {running.version}, but {path} lists {self._before.version}: one of them "
                f"was changed by hand; run make restart, or write {running.version} into the file"
            )

    def deploy(self, version: str) -> str:
        """Make a version live.

        Raises:
            ServingError: a check or a step failed, which the message names; the live version is unchanged.
        """
        before = self._before
        if before:
            self._refuse_during_canary(before)
            self._refuse_live(version, before)
        archive = self._checked(version)
        self._bring_up(archive, partial(self._switch, before.followed_by(version) if before else Live(version)))
        if before:
            self._retire(before.version)
        return f"{self._model} {version} is live"

    def rollback(self) -> str:
        """Return to the version that was live before.

        Raises:
            ServingError: as for ``deploy``; or there is no previous version.
        """
        before = self._known()
        self._refuse_during_canary(before)
        if not before.previous:
            raise RolloutError(f"no version of {self._model} was live before {before.version}: nothing to roll back to")
        version = before.previous[0]
        archive = archives.read_listed(self._entry(version))
        self._bring_up(archive, partial(self._switch, Live(version, before.previous[1:])))
        self._retire(before.version)
        return f"{self._model} {version} is live"

    def canary(self, version: str, percent: float) -> str:
        """Send a version a share of the requests that name no version; or change the share of the current canary.

        Args:
            version: the canary's version.
            percent: the share, above 0 and at most 100.

        Raises:
            ServingError: as for ``deploy``; or there is another canary.
        """
        before = self._known()
        self._refuse_live(version, before)
        if before.canary and before.canary.version != version:
            self._refuse_during_canary(before)
        after = dataclasses.replace(before, canary=Canary(version, percent))
        if before.canary:
            self._share(after)
        else:
            self._bring_up(self._checked(version), partial(self._share, after))
        return f"{self._model} {version} gets {percent:g} % of the requests that name no version"

    def promote(self) -> str:
        """Make the canary the live version.

        Raises:
            ServingError: there is no canary, or a step failed; nothing has changed.
        """
        before = self._known()
        canary = self._canary_version(before)
        running = self._management.describe(self._model, canary)
        if running is None or not running.ready:
            raise RolloutError(f"the canary {self._model} {canary} is not ready: not all of its workers are")
        after = before.followed_by(canary)
        self._switch(after)
        self._retire(before.version)
        return f"{self._model} {canary} is live"

    def abort(self) -> str:
        """End the canary.

        Raises:
            ServingError: there is no canary, or a step failed; then the canary keeps its share.
        """
        before = self._known()
        canary = self._canary_version(before)
        self._share(dataclasses.replace(before, canary=None))
        self._retire(canary)
        return f"{self._model} {canary} is no longer a canary"

    def _known(self) -> Live:
        if self._before is None:
            raise RolloutError(f"the service has no model {self._model}; see: make status")
        return self._before

    def _refuse_live(self, version: str, before: Live) -> None:
        if version == before.version:
            raise RolloutError(
                f"{self._model} {version} is already live; to load a repacked archive, run: make restart"
            )

    def _refuse_during_canary(self, before: Live) -> None:
        if canary := before.canary:
            raise RolloutError(
                f"{self._model} {canary.version} is a canary with {canary.percent:g} % of the requests; "
                f"end it first: make promote MODEL={self._model}, or make abort MODEL={self._model}"
            )

    def _canary_version(self, before: Live) -> str:
        if before.canary is None:
            raise RolloutError(f"{self._model} has no canary")
        return before.canary.version

    def _entry(self, version: str) -> Listed:
        for entry in index.read(self._settings.model_store, self._settings.store_key):
            if (entry.model, entry.version) == (self._model, version):
                return entry
        raise RolloutError(
            f"{self._settings.model_store / index.NAME} does not list {self._model} {version}; "
            f"run: make archive MODEL={self._model} VERSION={version}"
        )

    def _checked(self, version: str) -> Archive:
        """The archive, after checks of its content and accuracy."""
        who = f"{self._model} {version}"
        self._report(f"checking {who}")
        entry = self._entry(version)
        archive = accepted(entry)
        accuracy = _accuracy(archive)
        if accuracy is not None and self._before:
            live_accuracy = _accuracy(archives.read_listed(self._entry(self._before.version)))
            if live_accuracy is not None and not accuracy >= live_accuracy - ACCURACY_MARGIN:
                raise RolloutError(
                    f"{who} has a test accuracy of {accuracy:.4f}, more than {ACCURACY_MARGIN:g} below the "
                    f"{live_accuracy:.4f} of the live version {self._before.version}"
                )
        return archive

    def _bring_up(self, archive: Archive, change: Callable[[], None]) -> None:
        """Register a version, check its predictions, and make the change. If a step fails, unregister the version."""
        version, who = archive.version, f"{self._model} {archive.version}"
        unregister = partial(self._management.unregister, self._model, version)
        with self._undo_by(unregister):
            if self._management.describe(self._model, version):
                self._report(f"unregistering {who}, left by an interrupted rollout")
                unregister()
            self._report(f"registering {who}")
            self._management.register(archive)
            self._wait_for_workers(version)
            if archive.golden:
                self._report(f"checking {len(archive.golden.inputs)} golden examples of {who}")
                golden_check.run(self._settings, archive)
        # A change that fails late may have sent requests to the version. They must be answered first.
        with self._undo_by(partial(self._retire, version)):
            change()

    def _wait_for_workers(self, version: str) -> None:
        who, timeout = f"{self._model} {version}", self._settings.start_timeout
        loading = LoadingWorkers(self._settings.log("workers.log"))
        deadline = time.monotonic() + timeout
        while True:
            running = self._management.describe(self._model, version)
            if running is None:
                raise RolloutError(f"TorchServe does not list {who} after its registration")
            if running.ready:
                return
            loading.check([running])
            if time.monotonic() > deadline:
                raise RolloutError(f"{who} was not ready after {timeout:g} s")
            self._report(f"loading {who}")
            time.sleep(polling.INTERVAL_S)

    def _switch(self, after: Live) -> None:
        """Make ``after`` the state in TorchServe and in the file: in both or neither."""
        self._report(f"switching {self._model} to {after.version}")
        state = {**self._state, self._model: after}
        undo = [partial(live.write, self._settings.run, self._state)]
        if self._before:
            undo.append(partial(self._management.set_default, self._model, self._before.version))
            undo.append(partial(self._split, self._state))
        with self._undo_by(*undo):
            # The file first: if it cannot be written, the new version gets no request at all.
            live.write(self._settings.run, state)
            self._management.set_default(self._model, after.version)
            # A canary's share ends only now. Until then the gateway names its version explicitly.
            self._split(state)

    def _share(self, after: Live) -> None:
        """Set the canary's share in the gateway and in the file: in both or neither."""
        state = {**self._state, self._model: after}
        with self._undo_by(partial(live.write, self._settings.run, self._state), partial(self._split, self._state)):
            self._report("reloading the gateway with the new share")
            self._split(state)
            live.write(self._settings.run, state)

    def _split(self, state: Mapping[str, Live]) -> None:
        """Reload the gateway, if the canaries' shares or the registrations without batches have changed."""
        if not reload.apply(self._settings, state, self._management.unbatched()):
            raise RolloutError("the gateway is not running; see: make status")

    @contextmanager
    def _undo_by(self, *steps: Callable[[], None]) -> Iterator[None]:
        """Run these steps if the body fails or is interrupted. Their own errors are ignored."""
        try:
            yield
        except BaseException:
            for step in steps:
                with suppress(ServingError):
                    step()
            raise

    def _retire(self, version: str) -> None:
        """Unregister a version that gets no new requests, once it has been idle for the grace time."""
        who = f"{self._model} {version}"
        # The change is done, so it is too late for an interrupt.
        with suppress(RolloutError):
            self._report(f"draining {who}")
        idle_since = time.monotonic()
        latest = idle_since + _DRAIN_TIMEOUT_S
        try:
            while time.monotonic() < min(idle_since + self._grace, latest):
                running = self._management.describe(self._model, version)
                if running is None:
                    return
                if running.queued:
                    idle_since = time.monotonic()
                time.sleep(polling.INTERVAL_S)
            self._management.unregister(self._model, version)
        except ServingError as error:
            raise RolloutError(
                f"done, but {who}, which gets no more requests, was not unregistered: {error}"
            ) from error


def accepted(entry: Listed) -> Archive:
    """Read an archive that may go live: its digest and content are right, and its accuracy reaches the catalog's floor.

    Raises:
        ServingError: a check failed, which the message names.
    """
    archive = archives.read_listed(entry)
    if archive.golden is None:
        raise RolloutError(f"{entry.path} has no golden examples to check; run: make archive")
    accuracy, floor = _accuracy(archive), entry.accuracy_floor
    if accuracy is not None and not accuracy >= floor:
        raise RolloutError(
            f"{entry.model} {entry.version} has a test accuracy of {accuracy:.4f}, the catalog requires {floor:.4f}"
        )
    return archive


def _accuracy(archive: Archive) -> float | None:
    """The test accuracy; ``None`` for a model that returns numbers."""
    if archive.signature.output.activation == "none":
        return None
    accuracy = archive.signature.scored.get("test_accuracy")
    if not isinstance(accuracy, float):
        raise RolloutError(f"the signature in {archive.path} has no test_accuracy; train the model again")
    return accuracy
