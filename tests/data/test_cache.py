"""The pixel cache against `runtime.preprocess.load`: the same pixels, once, whatever stops it or comes beside it."""

from __future__ import annotations

import fcntl
import io
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flyweight.data import cache, decoding
from flyweight.data.cache import FixedStore, UnreadableImages, build_fixed, build_ragged, cache_root
from flyweight.data.dataset import Dataset, ImageArray, ImageFiles
from flyweight.errors import DataError, OutputError
from flyweight.files import Lease
from flyweight.runtime.preprocess import Preprocess, decode, load

CASES = {"gray": 1, "colour": 3, "alpha": 4}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def photos(folder: Path, count: int = 10, seed: int = 0) -> Dataset:
    """Photos of many sizes, modes and one EXIF turn, in files."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        height, width = (int(side) for side in rng.integers(20, 90, 2))
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        image = image.convert(("RGB", "L", "RGBA", "P")[index % 4])
        exif = Image.Exif()
        exif[0x0112] = 6
        path = folder / f"{index}.png"
        if not path.exists():  # another process may be reading it
            image.save(path, exif=exif if index == 5 else None)
        paths.append(path)
    return Dataset("photos", ("a", "b"), ImageFiles(folder, tuple(paths)), np.arange(count, dtype=np.int64) % 2)


def everything(dataset: Dataset) -> np.ndarray:
    return np.arange(len(dataset), dtype=np.int64)


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the name of every image that is really decoded."""
    names: list[str] = []

    def counting(source: object, preprocess: Preprocess, *, name: str | None = None) -> np.ndarray:
        names.append(str(name))
        return load(source, preprocess, name=name)

    monkeypatch.setattr(cache, "load", counting)
    return names


@pytest.mark.parametrize("channels", CASES.values(), ids=CASES)
@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
def test_a_fixed_store_holds_exactly_the_pixels_of_load(tmp_path: Path, resize: str, channels: int) -> None:
    dataset = photos(tmp_path / "photos")
    preprocess = Preprocess(image_size=24, channels=channels, resize=resize, mean=(0.3,) * channels)
    indices = np.array([7, 2, 5, 0, 2])
    store = build_fixed(dataset, indices, preprocess)
    expected = np.stack([load(dataset.images.read(int(index)), preprocess) for index in indices])
    assert np.array_equal(store.pixels, expected)
    assert np.array_equal(store.take(np.array([3, 1])), expected[[3, 1]])
    assert store.nbytes == expected.nbytes


@pytest.mark.parametrize("channels", CASES.values(), ids=CASES)
def test_arrays_of_another_size_go_through_the_same_preprocessing(channels: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (6, 30, 40, 3), dtype=np.uint8)
    dataset = Dataset("arrays", ("a", "b"), ImageArray(array, "x"), np.array([0, 1] * 3))
    preprocess = Preprocess(image_size=16, channels=channels)
    store = build_fixed(dataset, everything(dataset), preprocess)
    assert np.array_equal(store.pixels, np.stack([load(image, preprocess) for image in array]))


def test_arrays_at_size_are_wrapped_without_a_copy_or_a_file(own_cache: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 1), dtype=np.uint8)
    dataset = Dataset("arrays", ("a", "b"), ImageArray(array, "x"), np.array([0, 1] * 3))
    preprocess = Preprocess(image_size=16, channels=1)
    store = build_fixed(dataset, np.array([4, 1]), preprocess)
    assert np.shares_memory(store.memory, array)
    assert np.array_equal(store.pixels, np.stack([load(array[4], preprocess), load(array[1], preprocess)]))
    assert not own_cache.exists()


def test_a_ragged_store_keeps_aspect_ratios_and_the_short_side(tmp_path: Path) -> None:
    dataset = photos(tmp_path / "photos")
    store = build_ragged(dataset, everything(dataset), 3, 32)
    for index in range(len(dataset)):
        whole = decode(dataset.images.read(index), 3)
        image, (height, width) = store.image(index), whole.shape[:2]
        if min(height, width) <= 32:
            assert np.array_equal(image, whole)
        else:
            size = (max(32, round(width * 32 / min(height, width))), max(32, round(height * 32 / min(height, width))))
            across = Image.fromarray(whole).resize((size[0], height), Image.Resampling.BILINEAR)
            assert np.array_equal(image, np.asarray(across.resize(size, Image.Resampling.BILINEAR)))
            assert min(image.shape[:2]) == 32


@pytest.mark.parametrize("channels", [1, 4])
def test_a_ragged_store_shrinks_each_channel_by_itself(tmp_path: Path, channels: int) -> None:
    dataset = photos(tmp_path / "photos")
    store = build_ragged(dataset, np.array([2, 3]), channels, 20)
    whole = decode(dataset.images.read(2), channels)
    height, width = store.image(0).shape[:2]
    for channel in range(channels):
        plane = Image.fromarray(np.ascontiguousarray(whole[:, :, channel]))
        across = plane.resize((width, whole.shape[0]), Image.Resampling.BILINEAR)
        expected = np.asarray(across.resize((width, height), Image.Resampling.BILINEAR))
        assert np.array_equal(store.image(0)[:, :, channel], expected)


def test_a_ragged_store_in_memory_holds_the_same_images(tmp_path: Path) -> None:
    dataset = photos(tmp_path / "photos")
    build_ragged(dataset, everything(dataset), 3, 32)
    store = build_ragged(dataset, np.array([8, 1, 4]), 3, 32)
    held = store.in_memory()
    assert held.memory.nbytes == store.nbytes
    assert all(np.array_equal(held.image(index), store.image(index)) for index in range(3))


def test_what_is_stored_is_not_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, preprocess = photos(tmp_path / "photos"), Preprocess(image_size=24)
    build_fixed(dataset, np.array([0, 1, 2, 3]), preprocess)
    decoded = count_decoded(monkeypatch)
    build_fixed(dataset, np.array([1, 2, 3, 4]), preprocess)
    assert decoded == ["4.png"]


def test_mean_and_std_share_one_store_but_another_size_or_content_does_not(tmp_path: Path, own_cache: Path) -> None:
    dataset = photos(tmp_path / "photos")
    build_fixed(dataset, everything(dataset), Preprocess(image_size=24))
    build_fixed(dataset, everything(dataset), Preprocess(image_size=24, mean=(0.1,) * 3, std=(0.2,) * 3))
    assert len([path for path in (own_cache / "pixels").iterdir() if path.is_dir()]) == 1
    build_fixed(dataset, everything(dataset), Preprocess(image_size=25))
    build_fixed(photos(tmp_path / "others", seed=1), everything(dataset), Preprocess(image_size=24))
    assert len([path for path in (own_cache / "pixels").iterdir() if path.is_dir()]) == 3


def test_a_stored_pixel_cannot_be_changed_by_its_reader(tmp_path: Path) -> None:
    dataset = photos(tmp_path / "photos")
    store = build_fixed(dataset, everything(dataset), Preprocess(image_size=24))
    with pytest.raises(ValueError, match="read-only"):
        store.memory[0] = 0


@pytest.mark.parametrize("kind", ["fixed", "ragged"])
def test_unreadable_images_are_all_named_and_the_rest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    dataset = photos(tmp_path / "photos")
    for index in (3, 7):
        path = Path(dataset.images.read(index))
        path.write_bytes(path.read_bytes()[:60])
    indices = everything(dataset)
    with pytest.raises(UnreadableImages, match=r"2 of 10 images cannot be read: .*3\.png.*7\.png") as caught:
        build_fixed(dataset, indices, Preprocess(image_size=24)) if kind == "fixed" else build_ragged(
            dataset, indices, 3, 24
        )
    assert set(caught.value.reasons) == {"3.png", "7.png"}
    assert pickle.loads(pickle.dumps(caught.value)).reasons == caught.value.reasons
    assert len(dataset.without(caught.value.reasons)) == 8
    good = np.array([index for index in range(10) if index not in (3, 7)])
    if kind == "fixed":
        decoded = count_decoded(monkeypatch)
        build_fixed(dataset, good, Preprocess(image_size=24))
        assert decoded == []
    else:
        assert np.array_equal(build_ragged(dataset, good, 3, 500).image(0), decode(dataset.images.read(0), 3))


def test_progress_counts_the_missing_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, seen = photos(tmp_path / "photos"), []
    monkeypatch.setattr(decoding, "_TASK", 2)
    build_fixed(dataset, np.array([0, 1]), Preprocess(image_size=24))
    build_fixed(dataset, everything(dataset), Preprocess(image_size=24), progress=lambda *done: seen.append(done))
    assert seen == [(8, 8)]


CHUNK = 32  # images whose flags are set together, one after the other

BUILD = """
import sys, time
from pathlib import Path
import numpy as np
from flyweight.data import cache
from flyweight.data.cache import build_fixed, build_ragged
from tests_dataset import photos
cache._COMMIT_BYTES = 1
slow = float(sys.argv[3])
for name in ("load", "decode"):
    def slowly(*args, real=getattr(cache, name), **named):
        time.sleep(slow)
        return real(*args, **named)
    setattr(cache, name, slowly)
dataset = photos(Path(sys.argv[1]), 400)
print("ready", flush=True)
if sys.argv[2] == "fixed":
    build_fixed(dataset, np.arange(400), cache.Preprocess(image_size=24))
else:
    build_ragged(dataset, np.arange(400), 3, 24)
print("done", flush=True)
"""


def start_build(tmp_path: Path, kind: str, slow: float) -> subprocess.Popen[str]:
    (tmp_path / "tests_dataset.py").write_text(Path(__file__).read_text())
    script = tmp_path / "build.py"
    script.write_text(BUILD)
    command = [sys.executable, str(script), str(tmp_path / "photos"), kind, str(slow)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})


def wait_for_more(folder: Path, than: int) -> int:
    """Return how many bytes of flags or places are set, once they are more than `than`."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        found = sum(path.read_bytes().count(1) for path in folder.glob("*/*") if path.name in {"flags", "places"})
        if found > than:
            return found
        time.sleep(0.005)
    raise AssertionError("nothing was committed")


@pytest.mark.parametrize("kind", ["fixed", "ragged"])
def test_a_build_killed_at_any_moment_goes_on_and_ends_with_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    dataset = photos(tmp_path / "photos", 400)
    committed = 0
    for seconds in (0.0, 0.03):
        process = start_build(tmp_path, kind, slow=0.004)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        committed = wait_for_more(tmp_path / "cache" / "pixels", than=committed + CHUNK - 1)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    if kind == "fixed":
        decoded = count_decoded(monkeypatch)
        store = build_fixed(dataset, everything(dataset), Preprocess(image_size=24))
        expected = np.stack([load(dataset.images.read(index), Preprocess(image_size=24)) for index in range(400)])
        assert np.array_equal(store.pixels, expected)
        assert 0 < len(decoded) <= 400 - 2 * CHUNK  # two chunks at least were kept
    else:
        ragged = build_ragged(dataset, everything(dataset), 3, 24)
        for index in range(400):
            whole = cache.shrink(decode(dataset.images.read(index), 3), 24)
            assert np.array_equal(ragged.image(index), whole)


def test_two_processes_that_build_one_store_share_the_work(tmp_path: Path) -> None:
    photos(tmp_path / "photos", 400)
    processes = [start_build(tmp_path, "ragged", slow=0.001) for _ in range(2)]
    assert [process.communicate(timeout=100)[0] for process in processes] == ["ready\ndone\n"] * 2
    assert [process.returncode for process in processes] == [0, 0]
    folder = next(path for path in (tmp_path / "cache" / "pixels").iterdir() if path.is_dir())
    dataset = photos(tmp_path / "photos", 400)
    store = build_ragged(dataset, everything(dataset), 3, 24)
    assert (folder / "pixels").stat().st_size == store.nbytes  # nothing was appended twice


def test_a_store_that_is_open_does_not_keep_another_part_from_being_filled(tmp_path: Path) -> None:
    dataset, preprocess = photos(tmp_path / "photos"), Preprocess(image_size=24)
    train = build_fixed(dataset, np.array([0, 1, 2]), preprocess)
    val = build_fixed(dataset, np.array([3, 4]), preprocess)  # the same file; it would hang here
    assert np.array_equal(train.pixels[1], load(dataset.images.read(1), preprocess))
    assert np.array_equal(val.pixels[1], load(dataset.images.read(4), preprocess))


def test_the_oldest_stores_go_when_the_limit_is_passed_but_never_one_in_use(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = photos(tmp_path / "photos")
    kept = build_fixed(dataset, everything(dataset), Preprocess(image_size=40))
    build_fixed(dataset, everything(dataset), Preprocess(image_size=41))
    monkeypatch.setenv("FLYWEIGHT_CACHE_GB", "0.000001")
    latest = build_fixed(dataset, everything(dataset), Preprocess(image_size=42))
    left = {path for path in (own_cache / "pixels").iterdir() if path.is_dir()}
    assert left == {Path(str(store.memory.filename)).parent for store in (kept, latest)}
    assert np.array_equal(kept.pixels[0], load(dataset.images.read(0), Preprocess(image_size=40)))
    del kept
    build_fixed(dataset, everything(dataset), Preprocess(image_size=43))
    assert len([path for path in (own_cache / "pixels").iterdir() if path.is_dir()]) == 2


def test_a_lease_lets_go_when_its_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "x.use"
    child = multiprocessing.get_context("spawn").Process(target=_hold, args=(path,))
    child.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "held").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(BlockingIOError):
        Lease(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    child.kill()
    child.join()
    Lease(path, fcntl.LOCK_EX | fcntl.LOCK_NB).close()


def _hold(path: Path) -> None:
    lease = Lease(path, fcntl.LOCK_SH)
    (path.parent / "held").touch()
    time.sleep(600)
    lease.close()


@pytest.mark.parametrize("value", ["0", "-1", "many", "nan"])
def test_an_impossible_limit_is_refused_with_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    dataset = photos(tmp_path / "photos")
    monkeypatch.setenv("FLYWEIGHT_CACHE_GB", value)
    with pytest.raises(DataError, match=f"FLYWEIGHT_CACHE_GB is '{value}'"):
        build_fixed(dataset, everything(dataset), Preprocess(image_size=24))


@pytest.mark.parametrize("kind", ["fixed", "ragged"])
def test_a_full_disk_is_an_output_error_and_the_work_done_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    dataset = photos(tmp_path / "photos", 60)
    monkeypatch.setattr(cache, "_COMMIT_BYTES", 1)
    indices = everything(dataset)

    def build() -> object:
        if kind == "fixed":
            return build_fixed(dataset, indices, Preprocess(image_size=24)).pixels.copy()
        return build_ragged(dataset, indices, 3, 24).in_memory().memory

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    dataset.hashes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match=r"(?s)the disk is full.*FLYWEIGHT_CACHE"):
            build()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    again = build()
    monkeypatch.setenv("FLYWEIGHT_CACHE", str(tmp_path / "elsewhere"))
    assert np.array_equal(again, build())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_cache_is_an_output_error(tmp_path: Path, own_cache: Path) -> None:
    own_cache.mkdir(mode=0o500)
    dataset = photos(tmp_path / "photos")
    with pytest.raises(OutputError, match="FLYWEIGHT_CACHE"):
        build_fixed(dataset, everything(dataset), Preprocess(image_size=24))


def test_a_file_in_place_of_the_cache_folder_is_an_output_error(tmp_path: Path, own_cache: Path) -> None:
    own_cache.write_bytes(b"")
    dataset = photos(tmp_path / "photos")
    with pytest.raises(OutputError, match="FLYWEIGHT_CACHE"):
        build_fixed(dataset, everything(dataset), Preprocess(image_size=24))


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    assert cache_root() == own_cache
    monkeypatch.delenv("FLYWEIGHT_CACHE")
    assert cache_root() == Path.home() / ".cache" / "flyweight"


def test_the_cache_imports_no_torch() -> None:
    code = "import sys, flyweight.data.cache, flyweight.data.policy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif("FLYWEIGHT_DATA" not in os.environ, reason="FLYWEIGHT_DATA is not set: no real images")
def test_real_png_files_are_stored_as_pillow_reads_them() -> None:
    root = Path(os.environ["FLYWEIGHT_DATA"]) / "cifar10"
    paths = tuple(sorted(root.rglob("*.png"))[:200])
    if not paths:
        pytest.skip(f"no PNG files in {root}")
    dataset = Dataset("cifar10", ("a", "b"), ImageFiles(root, paths), np.arange(len(paths)) % 2)
    store = build_fixed(dataset, everything(dataset), Preprocess(image_size=32))
    expected = [np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB")) for path in paths]
    assert isinstance(store, FixedStore)
    assert np.array_equal(store.pixels, np.stack(expected))
