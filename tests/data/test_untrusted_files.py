"""Somebody else's folder, pictures and recordings: no program starts, nothing outside is read, nothing grows without bound."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from repository import REPOSITORY
from tunewright.data.audio.decode import RATE, read_audio, sound_size
from tunewright.data.image.decode import FORMATS, read_header, read_picture
from tunewright.data.image.resize_crop import Framing
from tunewright.data.manifest import Column, Rejects
from tunewright.data.sources.images import decode, pictures_at_once, read_images
from tunewright.data.sources.open import open_source
from tunewright.data.sources.parquet import read_parquet
from tunewright.data.sources.speech import read_speech
from tunewright.errors import DataError
from tunewright.limits import PICTURE_PIXELS, SOUND_RATE, SOUND_SAMPLES, SOUND_SECONDS
from tunewright.pipeline.environment import describe_environment
from tunewright.pipeline.git_commit import git_commit
from tunewright.recipe.schema import Data

COMMIT = "1c46dec42be66832698ae2f9827cc4f46ccf7f30"


def fake_program(folder: Path, name: str) -> Path:
    """A program in `folder` that leaves a trace, which is returned."""
    trace = folder / f"{name}-ran"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho $0 $@ >> '{trace}'\n")
    (folder / name).chmod(0o755)
    return trace


def git(folder: Path, *words: str) -> str:
    settings = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", "-C", str(folder), *settings, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def repository(folder: Path) -> Path:
    """With one commit, by git itself."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("task: classification\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return folder


def written(folder: Path, head: str, **files: str) -> Path:
    """A repository without git's help: HEAD, and files by their names with __ for /."""
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text(head)
    for name, text in files.items():
        path = folder / ".git" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize("layout", ["monitor", "bare", "filter", "include"])
def test_a_folder_s_own_configuration_of_git_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    folder, trace = tmp_path / "unpacked", fake_program(tmp_path / "tools", "program")
    program = trace.with_name("program")
    settings = {
        "monitor": f"[core]\n fsmonitor = {program}\n hooksPath = {program.parent}\n",
        "bare": f"[core]\n bare = false\n worktree = {folder}\n fsmonitor = {program}\n",
        "filter": f'[filter "x"]\n clean = {program}\n smudge = {program}\n process = {program}\n',
        "include": f"[include]\n path = {tmp_path / 'more'}\n",
    }[layout]
    (tmp_path / "more").write_text(f"[core]\n fsmonitor = {program}\n")
    repository(folder)
    commit = git(folder, "rev-parse", "HEAD")
    (folder / ".gitattributes").write_text("* filter=x\n")
    with (folder / ".git" / "config").open("a") as file:
        file.write(settings)
    (folder / "recipe.yaml").write_text("task: regression\n")
    if layout == "bare":
        for entry in (folder / ".git").iterdir():
            shutil.move(entry, folder)
        (folder / ".git").rmdir()
    asked = fake_program(tmp_path / "tools", "git")
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:{os.environ['PATH']}")
    assert describe_environment(folder, []).git_commit == (None if layout == "bare" else commit)
    assert not trace.exists() and not asked.exists()


def test_the_commit_is_what_git_says(tmp_path: Path) -> None:
    folder = repository(tmp_path / "main")
    commit = git(folder, "rev-parse", "HEAD")
    (folder / "below").mkdir()
    assert git_commit(folder) == git_commit(folder / "below") == commit
    git(folder, "worktree", "add", "-q", "-b", "side/branch", str(tmp_path / "worktree"))
    (tmp_path / "worktree" / "more").write_text("x")
    git(tmp_path / "worktree", "add", ".")
    git(tmp_path / "worktree", "commit", "-q", "-m", "two")
    assert git_commit(tmp_path / "worktree") == git(tmp_path / "worktree", "rev-parse", "HEAD") != commit
    git(folder, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "worktree"), "module")
    assert git_commit(folder / "module") == git_commit(tmp_path / "worktree")
    git(folder, "pack-refs", "--all")
    assert git_commit(folder) == commit and not (folder / ".git" / "refs" / "heads" / "main").exists()
    git(folder, "checkout", "-q", "--detach")
    assert git_commit(folder) == commit
    assert git_commit(tmp_path) is None


@pytest.mark.parametrize(
    "head",
    [
        "ref: refs/heads/../../../secret",
        "ref: /etc/passwd",
        "ref: ../secret",
        "ref: refs/heads/link",
        "ref: refs/out/x",
        "ref: refs/heads/none",
        "ref: refs/heads/circle",
        "ref: refs/pipe",
        "no commit",
        "",
        "0" * 41,
        "x" * 10_000,
    ],
)
def test_an_odd_ref_is_not_followed_out_of_the_repository(tmp_path: Path, head: str) -> None:
    (tmp_path / "outside").mkdir()
    for name in ("secret", "outside/x"):
        (tmp_path / name).write_text(COMMIT)
    folder = written(tmp_path / "r", head, refs__heads__circle="ref: refs/heads/circle", **{"packed-refs": "^x\n\0\n"})
    (folder / ".git" / "refs" / "heads" / "link").symlink_to(tmp_path / "secret")
    (folder / ".git" / "refs" / "out").symlink_to(tmp_path / "outside")
    os.mkfifo(folder / ".git" / "refs" / "pipe")
    assert git_commit(folder) is None


def test_a_git_file_is_followed_to_a_folder_that_names_it_back(tmp_path: Path) -> None:
    other = written(tmp_path / "other", COMMIT)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / ".git").write_text(f"gitdir: {other / '.git'}\n")
    assert git_commit(other) == COMMIT and git_commit(tmp_path / "r") is None
    (tmp_path / "r" / ".git").unlink()
    os.mkfifo(tmp_path / "r" / ".git")
    assert git_commit(tmp_path / "r") is None


EVIL = 'open("{trace}", "a").write(__name__)\nraise ImportError("evil")\n'


def test_modules_in_the_working_folder_are_not_imported(tmp_path: Path) -> None:
    for name in ("json", "typer", "torch", "yaml", "numpy", "sitecustomize", "kernels", "sqlite3"):
        (tmp_path / f"{name}.py").write_text(EVIL.format(trace=tmp_path / "ran"))
    done = subprocess.run(
        [sys.executable, "-m", "tunewright", "doctor"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_workers_of_ray_leave_the_working_folder_out(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is no part of the extras")
    (tmp_path / "work").mkdir()
    (tmp_path / "hostile").mkdir()
    (tmp_path / "work" / "looking.py").write_text("import sys\ndef path(shared, piece): return sys.path\n")
    code = "import looking; from tunewright.data.prepare.executor import worked; print(next(worked('ray', looking.path, 0, [1])))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path / "hostile",
        timeout=200,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path / "work")])},
    )
    assert done.returncode == 0 and "looking" not in done.stderr, done.stderr
    assert str(tmp_path / "work") in done.stdout and "hostile" not in done.stdout


def test_every_python_process_that_is_started_leaves_the_working_folder_out() -> None:
    found = [
        (file.name, text)
        for file in (REPOSITORY / "src").rglob("*.py")
        for text in re.findall(r"sys\.executable[^\n]{0,6}", file.read_text())
    ]
    # -I is -P, and the environment is not read either.
    assert found and all(text in ('sys.executable, "-P"', 'sys.executable, "-I"') for _, text in found), found


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n"
FRAMING = Framing(size=(8, 8), scale_to=(8, 8))
STORED = Column(name="image", kind="image", shape=(8, 8, 3), framed=True)


def picture(form: str, size: tuple[int, int] = (8, 8), mode: str = "RGB", **options: object) -> bytes:
    """A file's content."""
    file = io.BytesIO()
    Image.new(mode, size, 3).save(file, format=form, **options)
    return file.getvalue()


def large_png(width: int, height: int) -> bytes:
    """A sound PNG of a few KB for any size: one bit a pixel, all of them 0."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    pack = zlib.compressobj(9)
    rows = b"".join(pack.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + pack.flush()
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", FORMATS)
def test_every_promised_format_is_read(form: str) -> None:
    assert np.asarray(read_picture(picture(form), 3)).shape == (8, 8, 3)


def test_a_picture_s_bytes_start_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = [fake_program(tmp_path / "tools", name) for name in ("gs", "gswin64c", "djpeg", "netpbm")]
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:{os.environ['PATH']}")
    for form in ("EPS", "ICO", "TGA", "PCX", "PDF", "ICNS", "SGI", "XBM"):
        content = EPS if form == "EPS" else picture(form, (16, 16), "1" if form == "XBM" else "RGB")
        found = decode(content, STORED, FRAMING)
        assert isinstance(found, str) and ", ".join(FORMATS) in found, form
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.png").write_bytes(EPS)
    (tmp_path / "photos" / "cat" / "2.png").write_bytes(picture("PNG"))
    table = pa.table({"image": pa.array([EPS, picture("PNG")], pa.binary())})
    pq.write_table(table, tmp_path / "t.parquet")
    for source in (
        read_images(tmp_path / "photos", labelled=True, framing=FRAMING),
        read_parquet(tmp_path / "t.parquet", "parquet", framing=FRAMING),
    ):
        rejects = Rejects()
        assert sum(rows.num_rows for rows in source.parts["all"](rejects)) == 1
        assert "PNG, JPEG" in str(rejects.summary())
    assert not any(trace.exists() for trace in traces)


@pytest.mark.parametrize("size", [(10_000, 10_000), (100_001, 1_000), (30_000, 30_000)])
def test_a_small_file_of_a_huge_picture_is_not_decoded(size: tuple[int, int]) -> None:
    content = large_png(*size)
    assert len(content) < 200_000
    with pytest.raises(ValueError, match=PICTURE_PIXELS.variable):
        read_header(content)
    assert "pixels are more than" in str(decode(content, STORED, FRAMING))


def test_the_person_who_runs_the_machine_can_change_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PICTURE_PIXELS.variable, "99")
    read_header(picture("PNG", (9, 11)))
    with pytest.raises(ValueError, match="more than 99"):
        read_header(picture("PNG", (10, 10)))
    monkeypatch.setenv(PICTURE_PIXELS.variable, "400000000")
    assert read_header(large_png(20_000, 18_000)).grey


def test_a_thin_picture_is_not_scaled_to_a_huge_one() -> None:
    framing = Framing(size=(224, 224), scale_to=224)
    stored = Column(name="image", kind="image", shape=(224, 224, 3), framed=True)
    for size in ((1, 100_000), (100_000, 1)):
        found = decode(picture("PNG", size), stored, framing)
        assert isinstance(found, str) and "pixels are more than" in found


@pytest.mark.parametrize("form", ["TIFF", "GIF", "WEBP", "PNG"])
def test_of_many_frames_the_first_is_read(form: str) -> None:
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), (40 * k, 0, 0)) for k in range(5)]
    frames[0].save(file, format=form, save_all=True, append_images=frames[1:])
    assert np.asarray(read_picture(file.getvalue(), 3)).shape == (8, 8, 3)
    assert len(set(np.asarray(read_picture(file.getvalue(), 3))[..., 0].ravel())) == 1


def test_a_jpeg_of_many_scans_is_refused() -> None:
    content = picture("JPEG", progressive=True)
    read_picture(content, 3)
    scan = content[content.index(b"\xff\xda") : -2]
    with pytest.raises(ValueError, match=r"scans are more than 100"):
        read_picture(content[:-2] + scan * 101 + content[-2:], 3)


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_picture_is_a_message_whatever_pillow_raises(seed: int) -> None:
    draw = np.random.default_rng(seed)
    exif = Image.Exif()
    exif[0x0112] = 6
    for form in FORMATS:
        sound = picture(form, (16, 16), **({"exif": exif} if form in ("JPEG", "PNG", "TIFF", "WEBP") else {}))
        for _ in range(60):
            content = np.frombuffer(sound, np.uint8).copy()
            places = draw.integers(0, len(content), 4)
            content[places] = draw.integers(0, 256, 4)
            cut = content[: draw.integers(1, len(content) + 1)].tobytes()
            for broken in (content.tobytes(), cut):
                found = decode(broken, STORED, FRAMING)
                assert isinstance(found, str) or found.shape == (8, 8, 3)


def test_large_pictures_of_one_size_are_decoded_few_at_a_time() -> None:
    def column(side: int) -> Column:
        return Column(name="image", kind="image", shape=(side, side, 3))

    assert pictures_at_once([column(224)]) == 512
    assert pictures_at_once([column(8_000)]) * 8_000 * 8_000 * 3 <= 2**30
    assert pictures_at_once([column(8_000)] * 9) == 1


def recording(form: str, seconds: float = 1.0, rate: int = RATE, channels: int = 1) -> bytes:
    """A file's content."""
    file = io.BytesIO()
    samples = np.sin(np.arange(int(seconds * rate)) / 9)[:, None] * np.full(channels, 0.3)
    soundfile.write(file, samples, rate, format=form)
    return file.getvalue()


@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3"])
def test_every_promised_kind_of_sound_is_read_as_the_library_does(form: str) -> None:
    content = recording(form, 3, channels=2)
    whole = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)[0].mean(axis=1)
    wanted = np.rint(np.clip(whole, -1, 1) * 32767).astype(np.int16)
    assert bool((read_audio(io.BytesIO(content)) == wanted).all())
    assert abs(sound_size(io.BytesIO(content))[0] - 3) < 0.1


@pytest.mark.parametrize("form", ["AIFF", "AU", "CAF", "W64", "NIST", "VOC", "MAT5", "SVX"])
def test_other_kinds_of_sound_are_not_decoded(tmp_path: Path, form: str) -> None:
    (tmp_path / "x.wav").write_bytes(recording(form))
    for read in (read_audio, sound_size):
        with pytest.raises(ValueError, match="only WAV, FLAC, OGG and MP3"):
            read(tmp_path / "x.wav")
    (tmp_path / "x.raw").write_bytes(bytes(1000))
    with pytest.raises(ValueError, match="cannot be read as sound"):
        read_audio(tmp_path / "x.raw")


def with_length(flac: bytes, samples: int) -> bytes:
    """A FLAC file whose header says another length."""
    changed = bytearray(flac)
    changed[21] = changed[21] & 0xF0 | samples >> 32
    changed[22:26] = (samples & 0xFFFFFFFF).to_bytes(4)
    return bytes(changed)


def with_rate(wav: bytes, rate: int) -> bytes:
    return wav[:24] + rate.to_bytes(4, "little") + wav[28:]


def test_a_recording_is_bounded_by_its_header_before_it_is_decoded() -> None:
    flac, wav = recording("FLAC"), recording("WAV")
    for content, limit in (
        (with_length(flac, 15_000 * RATE), SOUND_SECONDS),
        (with_length(recording("FLAC", 0.1, 192_000, 8), 192_000 * 3_600), SOUND_SAMPLES),
        (with_rate(wav, 1_000_003), SOUND_RATE),
        (with_rate(wav, 2**31 - 1), SOUND_RATE),
    ):
        for read in (read_audio, sound_size):
            with pytest.raises(ValueError, match=limit.variable):
                read(io.BytesIO(content))
    for rate in (0, 1, 999, 2**31, 2**32 - 1):
        with pytest.raises(ValueError, match=r"fewer than 1,000|cannot be read"):
            read_audio(io.BytesIO(with_rate(wav, rate)))
    with pytest.raises(ValueError, match="does not say how long"):
        read_audio(io.BytesIO(with_length(flac, 0)))


def test_a_header_that_lies_about_the_length_costs_nothing() -> None:
    flac = recording("FLAC", 2)
    assert len(read_audio(io.BytesIO(with_length(flac, RATE)))) <= RATE
    with pytest.raises(ValueError, match="cannot be read as sound"):
        read_audio(io.BytesIO(with_length(flac, 14_000 * RATE)))


def test_a_small_file_of_hours_is_not_decoded(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "x.flac", "w", RATE, 1, format="FLAC") as file:
        for _ in range(5 * 60):
            file.write(np.zeros(60 * RATE, np.int16))
    assert (tmp_path / "x.flac").stat().st_size < 1_000_000
    with pytest.raises(ValueError, match="seconds are more than 14,400"):
        read_audio(tmp_path / "x.flac")


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A folder for a table of recordings, with a recording in it and one beside it."""
    (tmp_path / "data" / "below").mkdir(parents=True)
    for name in ("data/below/in.wav", "out.wav"):
        (tmp_path / name).write_bytes(recording("WAV"))
    return tmp_path / "data"


def heard(folder: Path, name: str) -> int:
    (folder / "metadata.csv").write_text(f"audio,text\nbelow/in.wav,one\n{name},two\n")
    source = read_speech(folder)
    return sum(rows.num_rows for rows in source.parts["all"](Rejects()))


def test_a_table_of_recordings_names_files_of_its_own_folder(spoken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (spoken / "link.wav").symlink_to(spoken.parent / "out.wav")
    (spoken / "linked").symlink_to(spoken.parent)
    (spoken / "within.wav").symlink_to("below/in.wav")
    for name in ("below/../below/in.wav", "within.wav", str(spoken / "below/in.wav"), "../data/below/in.wav"):
        assert heard(spoken, name) == 2, name
    outside = ["../out.wav", str(spoken.parent / "out.wav"), "link.wav", "linked/out.wav", "below/../../out.wav", ".."]
    for name in [*outside, "/dev/zero", "/no/such/file"]:
        with pytest.raises(DataError, match="outside its folder") as caught:
            heard(spoken, name)
        assert caught.value.place == "row 2" and "TUNEWRIGHT_TRUSTED_FOLDERS" in (caught.value.fix or "")
    monkeypatch.setenv("TUNEWRIGHT_TRUSTED_FOLDERS", f"/nowhere:{spoken.parent}")
    for name in outside[:-1]:
        assert heard(spoken, name) == 2
    for name in ("x" * 5000, "x" * 300 + ".wav"):
        assert heard(spoken, name) == 1
    assert heard(spoken.parent / "data", "below/in.wav") == 2


def test_a_link_out_of_a_data_folder_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    for name in ("photos/cat/1.png", "secret/2.png"):
        (tmp_path / name).write_bytes(picture("PNG"))
    (tmp_path / "photos" / "cat" / "3.png").symlink_to("1.png")
    (tmp_path / "elsewhere").symlink_to("photos")
    data = Data(source="elsewhere")
    assert len(open_source(data, tmp_path).files) == 2
    for link, target in (("cat/2.png", "../../secret/2.png"), ("train", tmp_path / "secret")):
        (tmp_path / "photos" / link).symlink_to(target)
        labelled = Data(source="elsewhere", labelled=False)
        if link == "train":
            (tmp_path / "photos" / "cat").rename(tmp_path / "photos" / "test")
        with pytest.raises(DataError, match="link out of its folder"):
            open_source(labelled, tmp_path)
        (tmp_path / "photos" / link).unlink()
    table = pa.table({"a": [1.0]})
    pq.write_table(table, tmp_path / "secret" / "t.parquet")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.parquet").symlink_to(tmp_path / "secret" / "t.parquet")
    with pytest.raises(DataError, match="link out of its folder"):
        open_source(Data(source="tables"), tmp_path)
    monkeypatch.setenv("TUNEWRIGHT_TRUSTED_FOLDERS", str(tmp_path / "secret"))
    open_source(Data(source="tables"), tmp_path)
    open_source(Data(source="secret/t.parquet"), tmp_path)


def test_a_saved_data_set_consists_of_its_own_files(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for name in ("ours", "secret"):
        datasets.Dataset.from_dict({"text": [name]}).save_to_disk(str(tmp_path / name))
    assert open_source(Data(source="ours"), tmp_path).parts
    state = tmp_path / "ours" / "state.json"
    sound = state.read_text()
    for name in ("../secret/data-00000-of-00001.arrow", str(tmp_path / "secret" / "data-00000-of-00001.arrow")):
        state.write_text(sound.replace("data-00000-of-00001.arrow", name))
        with pytest.raises(DataError, match="outside its folder"):
            open_source(Data(source="ours"), tmp_path)
