"""A damaged, missing, full, or read-only model store: the live version continues, and commands report the reason."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.settings import ROOT
from tests.support import disks, scenes
from tests.support.place import Place
from tests.support.scenes import Scene


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(byte ^ 0xFF for byte in content[middle : middle + 64])
    path.write_bytes(content)


def _other_version(path: Path) -> None:
    other = scenes.variant(path, path.parent / "elsewhere", "9.9")
    other.replace(path)


def _text_file(path: Path) -> None:
    path.write_text("not an archive\n")


def _unlist(path: Path) -> None:
    index = path.parent / "index.json"
    entries = json.loads(index.read_text())
    del entries[path.name]
    index.write_text(json.dumps(entries))


def _remove_store(path: Path) -> None:
    shutil.rmtree(path.parent)


# The damage to the archive, and the error messages of a restart and a deploy.
DAMAGE: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "truncated": (_truncate, "is not what was packed", "is not what was packed"),
    "corrupt": (_corrupt, "is not what was packed", "is not what was packed"),
    "of another version": (_other_version, "is not what was packed", "is not what was packed"),
    "not an archive": (_text_file, "is not what was packed", "is not what was packed"),
    "not in the index": (_unlist, "does not list", "does not list fashion_mlp 1.1"),
    "gone with its store": (_remove_store, "holds no archive", "holds no archive"),
}


def _assert_serving(scene: Scene, load: scenes.Load) -> None:
    """The live version answers, also from a new worker."""
    victim = scene.workers()[0]
    load.event("kill -9 of a worker")
    victim.kill()
    scene.await_replaced(victim)
    assert scene.place.run("status").returncode == 0


def test_damaged_archives_are_refused_and_the_live_version_continues(shared_scene):
    scene = shared_scene
    store = scene.place.settings.model_store
    kept = scene.folder / "kept"
    shutil.copytree(store, kept)
    new = scenes.variant(scene.archives[0], kept, "1.1", sharpness=0.5)
    # The load reads the right answers from an intact copy of the archive.
    scene = Scene(scene.place, [kept / scene.archives[0].name], scene.folder, scene.rate, 0)
    load = scene.load(600)
    before = scene.place.state()["processes"]
    messages = {}
    try:
        for name, (damage, *expected) in DAMAGE.items():
            commands = (scene.archives[0].name, ["restart"]), (new.name, ["deploy", scenes.MODEL, "1.1"])
            for (file, command), reason in zip(commands, expected, strict=True):
                shutil.rmtree(store, ignore_errors=True)
                shutil.copytree(kept, store)
                damage(store / file)
                load.event(name)
                refused = scene.place.run(*command)
                assert refused.returncode == 1, (name, command, refused.stdout)
                assert refused.stderr.startswith("error: "), refused.stderr
                assert refused.stderr.count("\n") == 1, refused.stderr
                messages[f"{name}, {command[0]}"] = refused.stderr.strip().replace(str(store), "model_store")
                assert reason in refused.stderr, (name, command, refused.stderr)
                assert [model.version for model in scene.management.models()] == ["1.0"]
            if scenes.FULL:
                _assert_serving(scene, load)
        _assert_serving(scene, load)
        assert scene.place.state()["processes"] == before
    finally:
        load.stop()
        result = load.result()
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(kept, store)
    scenes.keep("store", "Archives that are damaged, unlisted, or missing", result, said=messages)
    assert scenes.failed(result) == {}


def _archive(store: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "models", "archive", scenes.MODEL],
        cwd=ROOT,
        env={**os.environ, "FASHION_MODEL_STORE": str(store)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("space", ["none", "some", "enough, but read-only"])
def test_archiving_on_a_full_disk_leaves_the_store_unchanged(tmp_path, space):
    with disks.small(tmp_path / "store", "28m") as store:
        old = scenes.variant(scenes.source(), store)
        # Its content differs from that of a new archive.
        before = {path.name: path.read_bytes() for path in store.iterdir()}
        if space == "enough, but read-only":
            with disks.read_only(store):
                failed = _archive(store)
        else:
            filling = disks.fill(store)
            if space == "some":
                os.truncate(filling, filling.stat().st_size - 4 * 2**20)
            failed = _archive(store)
            filling.unlink()
        assert failed.returncode == 1, failed.stdout
        assert failed.stderr.splitlines()[-1].startswith("error: "), failed.stderr
        assert "Traceback" not in failed.stderr
        assert {path.name: path.read_bytes() for path in store.iterdir()} == before
        assert zipfile.ZipFile(old).testzip() is None
        assert _archive(store).returncode == 0


@contextlib.contextmanager
def _running_on_a_disk(place: Place, folder: Path, size: str) -> Iterator[None]:
    """Run the service with a small disk as one of its folders, and stop it before the disk is unmounted."""
    with disks.small(folder, size):
        place.start()
        try:
            yield
        finally:
            stopped = place.run("stop")
        assert stopped.returncode == 0, stopped.stderr


def test_deploying_on_a_full_disk_leaves_the_live_version(prepared, tmp_path, rate):
    place, live = prepared
    with _running_on_a_disk(place, place.settings.run, "2m"):
        scenes.variant(live, place.settings.model_store, "1.1", sharpness=0.5)
        scene = Scene(place, [live], tmp_path, rate(place, [live]), 0)
        load = scene.load(600)
        filling = disks.fill(place.settings.run)
        load.event("no space for the state")
        refused = place.run("deploy", scenes.MODEL, "1.1", "--grace", "0")
        load.stop()
        result = load.result()
        assert refused.returncode == 1, refused.stdout
        assert "live.json cannot be written" in refused.stderr
        assert [model.version for model in scene.management.models()] == ["1.0"]
        assert scenes.failed(result) == {}
        filling.unlink()
        assert place.run("deploy", scenes.MODEL, "1.1", "--grace", "0").returncode == 0


def test_logging_on_a_full_disk_loses_no_request(prepared, tmp_path, rate):
    place, live = prepared
    with _running_on_a_disk(place, place.settings.logs, "4m"):
        scene = Scene(place, [live], tmp_path, rate(place, [live]), 0)
        load = scene.load(scene.length(16))
        load.settle()
        disks.fill(place.settings.logs)
        load.event("no space for logs")
        _assert_serving(scene, load)
        result = load.finish()
        scenes.keep("logs-full", "The disk of the logs is full", result)
        assert scenes.failed(result) == {}
