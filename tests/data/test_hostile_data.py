"""Data from strangers: whatever a file holds, it costs bounded memory and time, and ends in an error that says what is wrong."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from tunewright.data.prepare.prepare import prepare
from tunewright.data.prepared import Prepared
from tunewright.data.text.ngram_model import read_arpa
from tunewright.errors import DataError, RecipeError, UserError
from tunewright.files import open_regular
from tunewright.recipe.loading import load_recipe
from tunewright.recipe.schema import Data
from tunewright.tasks.registry import task_defaults
from tunewright.tasks.table.encoder import Feature, RowEncoder

GOOD_CSV = "x,label\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(60))
GOOD_LINES = "".join(json.dumps({"x": i, "text": f"word {i}", "label": "ab"[i % 2]}) + "\n" for i in range(60))


def read(path: Path, **data: Any) -> Prepared:
    return prepare(Data(source=str(path), **data), seed=0, target_kind="category", base=Path("."))


def refused(path: Path, said: str, **data: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(path, **data)
    message = caught.value.message
    assert caught.value.exit_code == 2 and said in message, message
    return message


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Limits that small files meet, as a person would set them."""
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    for name, value in {
        "TEXT_LINE": 1 << 20,
        "JSON_LINE": 1 << 20,
        "COLUMNS": 5_000,
        "EMPTY_CELLS": 100_000,
        "ARRAY_BYTES": 1 << 22,
        "ARCHIVE_MEMBERS": 100,
        "FOLDER_FILES": 50,
        "NGRAMS": 100,
        "DECODE_BYTES": 128 << 20,
    }.items():
        monkeypatch.setenv(f"TUNEWRIGHT_LIMIT_{name}", str(value))


TEXTS: dict[str, tuple[str, bytes, str]] = {
    "an endless quote": ("a.csv", (GOOD_CSV + '"1,a\n' + "2,b\n" * (5 << 20)).encode(), "limit table_row"),
    "an endless quote in the header": ("a.csv", b'x,"label\n' + b"1,a\n" * 100_000, "line 1"),
    "a long name": ("a.csv", b'x,"' + b"a" * 300_000 + b'"\n1,a\n', "line 1"),
    "many columns": ("a.csv", ",".join(f"c{i}" for i in range(9_000)).encode() + b"\n", "limit columns"),
    "UTF-16": ("a.csv", GOOD_CSV.encode("utf-16-le"), "NUL"),
    "Latin-1 in line 62": ("a.csv", GOOD_CSV.encode() + b"1,\xe9\n", "line 62"),
    "a long class": ("a.csv", (GOOD_CSV + f"1,{'a' * 9000}\n").encode(), "limit class_name"),
    "a bomb": ("a.csv.gz", gzip.compress(b"x,label\n" + b"1,a\n2,b\n" * (12 << 20), 9), "limit expansion"),
    "a long line": ("a.jsonl", b'{"x": "' + b"a" * (2 << 20) + b'"}\n', "limit json_line"),
    "many keys": ("a.jsonl", json.dumps({f"k{i}": 1 for i in range(9_000)}).encode(), "limit columns"),
    "a new key in each line": ("a.jsonl", "".join(f'{{"k{i}": 1}}\n' for i in range(900)).encode(), "limit empty_cells"),
    "half a character": ("a.jsonl", (GOOD_LINES + '{"x": 1, "text": "\\ud800"}\n').encode(), "line 61, column 'text'"),
    "half in a key": ("a.jsonl", (GOOD_LINES + '{"\\udc00": 1}\n').encode(), "line 61"),
    "half in a turn": ("a.jsonl", b'{"messages": [{"role": "user", "content": "\\uD83D"}]}\n', "line 1, column 'messages'"),
    "damaged gzip": ("a.jsonl.gz", gzip.compress(os.urandom(9_000).hex().encode())[:3000] + bytes(3000), "to its end"),
    "one line": ("a.txt", b"a" * (2 << 20), "limit text_line"),
    "no text": ("a.txt", "你好世界\n".encode("utf-16-le"), "UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_text_files_of_strangers(tmp_path: Path, case: str) -> None:
    name, content, said = TEXTS[case]
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, said)


@pytest.mark.parametrize("depth", [100, 500, 900, 930, 960, 990, 100_000])
def test_deep_json_is_skipped_and_named(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "a.jsonl"
    deep = "[" * depth + "]" * depth
    turns = f'{{"messages": [{{"role": "user", "content": "hi", "x": {deep}}}], "label": "a"}}\n'
    path.write_text(GOOD_LINES + f'{{"x": {deep}, "label": "a"}}\n' + turns)
    manifest = read(path).manifest
    assert manifest.used == 60 and sum(entry.count for entry in manifest.skipped) == 2


def test_numbers_that_are_none_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(GOOD_LINES + '{"x": 1e400, "label": "a"}\n{"x": 1' + "0" * 5000 + ', "label": "a"}\n')
    assert read(path).manifest.used == 60


def header(shape: tuple[int, ...], kind: Any = "<f4") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": kind, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


LABELS = header((2,)) + bytes(8)
ARCHIVES: dict[str, tuple[dict[str, bytes], str]] = {
    "a header that lies": ({"x.npy": header((1 << 40, 1 << 20)), "y.npy": LABELS}, "limit array_bytes"),
    "a bomb": ({"x.npy": header((1 << 21, 4)) + bytes(1 << 25), "y.npy": LABELS}, "limit array_bytes"),
    "a negative size": ({"x.npy": header((-5, 3)), "y.npy": LABELS}, "negative"),
    "nothing": ({"x.npy": header((5, 1 << 60, 0)), "y.npy": LABELS}, "npz"),
    "fields": ({"x.npy": header((3,), [("a", "<f4")]) + bytes(12), "y.npy": LABELS}, "fields"),
    "times as labels": ({"x.npy": header((2, 2)) + bytes(16), "y.npy": header((2,), "<M8[s]") + bytes(16)}, "y cannot"),
    "no characters": (
        {"x.npy": header((2, 2)) + bytes(16), "y.npy": header((2,), "<U1") + b"\0\xd8\0\0\xff\xff\xff\xff"},
        "y cannot",
    ),
    "an endless header": ({"x.npy": b"\x93NUMPY\1\0" + struct.pack("<H", 9000) + b"(" * 9000}, "header"),
    "a path": ({"../../x.npy": header((2, 2)) + bytes(16), "y.npy": LABELS}, "no array of inputs"),
    "many members": ({f"{i}.npy": b"" for i in range(2_000)}, "limit archive_members"),
    "cut off": ({"x.npy": header((20, 2)) + bytes(16), "y.npy": LABELS}, "another length"),
    "too long": ({"x.npy": header((2, 2)) + bytes(17), "y.npy": LABELS}, "another length"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives_of_strangers(tmp_path: Path, case: str) -> None:
    members, said = ARCHIVES[case]
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    refused(path, said)


def test_fortran_order_and_large_labels_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    inputs = np.arange(120.0).reshape(60, 2)
    np.savez_compressed(path, x=np.asfortranarray(inputs), y=np.arange(60) % 2)
    table = read(path).table("train")
    rows = np.array(table["_row"]) - 1
    assert np.array_equal(np.stack(table["x"].to_pylist()), inputs[rows])


@pytest.mark.parametrize(
    ("shape", "said"), [((1 << 20, 64, 64), "limit array_bytes"), ((5, 2, 2), "more than 20 bytes")]
)
def test_idx_bombs(tmp_path: Path, shape: tuple[int, ...], said: str) -> None:
    content = b"\0\0\x08\3" + struct.pack(">III", *shape) + bytes(1 << 24)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\1\0\0\0\5abcde")
    refused(tmp_path, said)


def _dictionary() -> pa.Table:
    cells = pa.DictionaryArray.from_arrays(pa.array(np.zeros(200_000, np.int32)), pa.array(["a" * 100_000]))
    return pa.table({"x": cells, "label": ["a", "b"] * 100_000})


def _prefixes() -> pa.Table:
    cells = pa.array(["a" * 1_000_000]).take(pa.array(np.zeros(500, np.int32)))
    return pa.table({"x": cells, "label": ["a", "b"] * 250})


PARQUET: dict[str, tuple[Callable[[], pa.Table], dict[str, Any], str]] = {
    "a dictionary": (_dictionary, {"store_schema": False}, "limit decode_bytes"),
    "prefixes": (
        _prefixes,
        {"use_dictionary": False, "column_encoding": {"x": "DELTA_BYTE_ARRAY", "label": "PLAIN"}},
        "limit decode_bytes",
    ),
    "a row of lists": (
        lambda: pa.table({"x": pa.array([np.zeros(20_000_000, np.int64)]), "label": ["a"]}),
        {"compression": "zstd"},
        "limit decode_bytes",
    ),
    "runs": (
        lambda: pa.table({**{f"x{i}": np.zeros(4_000_000) for i in range(10)}, "label": ["a"] * 4_000_000}),
        {},
        "limit expansion",
    ),
    "many columns": (lambda: pa.table({f"x{i}": [1] for i in range(5_001)}), {}, "limit columns"),
    "classes without names": (
        lambda: pa.table({"x": [1, 2], "label": [0, 7]}).replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}}})}
        ),
        {},
        "no name",
    ),
}


@pytest.mark.parametrize("case", PARQUET)
def test_parquet_of_strangers(tmp_path: Path, case: str) -> None:
    table, options, said = PARQUET[case]
    pq.write_table(table(), tmp_path / "a.parquet", **options)
    refused(tmp_path / "a.parquet", said)


def test_many_parquet_files_are_decoded_ahead_by_one_process(tmp_path: Path) -> None:
    for index in range(30):
        pq.write_table(pa.table({"x": list(range(60)), "label": ["a", "b"] * 30}), tmp_path / f"{index:02}.parquet")
    began = time.monotonic()
    assert read(tmp_path).manifest.used == 1800
    assert time.monotonic() - began < 15


def test_a_saved_folder_names_no_file_outside(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "saved"
    datasets.Dataset.from_dict({"x": list(range(60)), "label": ["a", "b"] * 30}).save_to_disk(str(folder))
    assert read(folder).manifest.used == 60
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = [{"filename": "../../../dev/zero"}]
    (folder / "state.json").write_text(json.dumps(state))
    refused(folder, "outside its folder")


def special(folder: Path, kind: str, ending: str) -> Path:
    path = folder / f"special{ending}"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        here = Path.cwd()
        os.chdir(folder)  # the name of a socket must be short
        try:
            socket.socket(socket.AF_UNIX).bind(path.name)
        finally:
            os.chdir(here)
    else:
        path.symlink_to({"zero": "/dev/zero", "random": "/dev/random", "loop": path.name, "nowhere": "none"}[kind])
    return path


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", ["pipe", "socket", "zero", "random", "loop", "nowhere"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    for ending in (".csv", ".jsonl", ".txt", ".npz", ".parquet"):
        said = "no such file" if kind in ("loop", "nowhere") else "not a regular file"
        refused(special(tmp_path, kind, ending), said)
    with pytest.raises(RecipeError) as caught:
        load_recipe(special(tmp_path, kind, ".yaml"), defaults=task_defaults)
    assert caught.value.file is not None
    if kind not in ("loop", "nowhere"):
        with pytest.raises(DataError, match="not a regular file"):
            read_arpa(special(tmp_path, kind, ".arpa"))


def test_what_the_system_makes_up_is_an_empty_file(tmp_path: Path) -> None:
    with open_regular(Path("/proc/self/environ")) as file:
        assert file.read() == b""
    (tmp_path / "a.csv").symlink_to("/proc/self/mem")
    refused(tmp_path / "a.csv", "empty")
    with pytest.raises(ValidationError, match="not a path"):  # a recipe cannot name it at all
        read(tmp_path / ("a" * 300 + ".csv"))


def test_a_folder_with_too_many_files_and_a_link_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "few" / "a").mkdir(parents=True)
    (tmp_path / "few" / "a" / "again").symlink_to(tmp_path / "few")
    os.mkfifo(tmp_path / "few" / "a" / "x.png")
    refused(tmp_path / "few", "no picture")
    (tmp_path / "many" / "a").mkdir(parents=True)
    for index in range(51):
        (tmp_path / "many" / "a" / f"{index}.png").touch()
    refused(tmp_path / "many", "limit folder_files")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\\" + b"1" * 5000 + b"-grams:\n", "no language model"),
        (b"\\2-grams:\n-1 a b\n", "no language model"),
        (b"\\1-grams:\nnan a\n", "line 2"),
        (b"\\1-grams:\n" + b"".join(b"-1 w%d\n" % i for i in range(200)), "limit ngrams"),
        (b"\\1-grams:\n\xff\xfe\n", "line 2"),
    ],
)
def test_language_models_of_strangers(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.arpa").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_arpa(tmp_path / "a.arpa")
    assert said in caught.value.message


def test_a_file_that_is_replaced_by_one_of_the_same_size_and_time_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(GOOD_CSV)
    before = path.stat()
    first = read(path).manifest
    path.write_text(GOOD_CSV.replace("59,b", "59,a"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    second = read(path).manifest
    assert second.fingerprint != first.fingerprint and second.files[0]["sha256"] != first.files[0]["sha256"]
    assert read(path).manifest == second


def test_a_picture_behind_a_linked_folder_that_is_replaced_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.setenv("TUNEWRIGHT_TRUSTED_FOLDERS", str(tmp_path))
    for label in "ab":
        (tmp_path / "real" / label).mkdir(parents=True)
        for index in range(20):
            Image.new("L", (4, 4), index).save(tmp_path / "real" / label / f"{index}.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(tmp_path / "real")
    first = read(tmp_path / "data").manifest.fingerprint
    Image.new("L", (4, 4), 200).save(tmp_path / "real" / "a" / "0.png")
    assert read(tmp_path / "data").manifest.fingerprint != first


@pytest.mark.slow
def test_a_table_of_twenty_thousand_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_COLUMNS", "100000")
    names = [f"g{index}" for index in range(20_000)]
    rows = [",".join(f"{(row * 7 + index) % 100 / 8}" for index in range(len(names))) for row in range(60)]
    path = tmp_path / "a.csv"
    path.write_text(",".join([*names, "label"]) + "\n" + "".join(f"{r},{'ab'[i % 2]}\n" for i, r in enumerate(rows)))
    assert read(path).manifest.used == 60


@pytest.mark.slow
def test_a_hostile_parquet_takes_little_memory_by_default(tmp_path: Path) -> None:
    """In a process of its own, with the limits that hold unless somebody raises them."""
    cells = pa.DictionaryArray.from_arrays(pa.array(np.zeros(200_000, np.int32)), pa.array(["a" * 5_000_000]))
    table = pa.table({"x": cells, "label": ["a", "b"] * 100_000})
    pq.write_table(table, tmp_path / "a.parquet", store_schema=False)
    (tmp_path / "a.yaml").write_text("task: tabular-classification\ndata: {source: a.parquet}\n")
    command = [sys.executable, "-m", "tunewright", "data", "check", str(tmp_path / "a.yaml")]
    wanted = {key: value for key, value in os.environ.items() if not key.startswith("TUNEWRIGHT_LIMIT_")}
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, env=wanted)
    assert found.returncode == 2 and "limit decode_bytes" in found.stdout + found.stderr


class Counting:
    """A table that counts how often it lists its columns: that takes as long as there are columns."""

    def __init__(self, table: pa.Table) -> None:
        self.table, self.listed = table, 0

    @property
    def column_names(self) -> list[str]:
        self.listed += 1
        return self.table.column_names

    @property
    def num_rows(self) -> int:
        return self.table.num_rows

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        return self.table[name]


def test_a_wide_table_lists_its_columns_once_and_not_once_a_column() -> None:
    names = [f"g{index}" for index in range(300)]
    table = Counting(pa.table({name: [0.5, 1.5] for name in names}))
    features = [
        Feature(column=name, kind="number", mean=[1.0], std=[0.5], marked=False, categories=[], shape=None)
        for name in names
    ]
    encoded = RowEncoder(features=features).encode(table)  # pyright: ignore[reportArgumentType]
    assert encoded.shape == (2, 300) and encoded[0, 0] == -1 and table.listed == 1


def test_a_dictionary_whose_long_value_stands_in_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_DECODE_BYTES", "50000000")
    column = pa.array(["y" * 100_000] * 1000).dictionary_encode()
    pq.write_table(pa.table({"x": column, "label": ["a", "b"] * 500}), tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", "column 'x'")


def test_many_columns_are_read_as_few_are(tmp_path: Path) -> None:
    names = [f"c{index}" for index in range(1200)]
    table = pa.table({**{name: ["1", "2"] * 30 for name in names}, "label": ["a", "b"] * 30})
    pq.write_table(table, tmp_path / "a.parquet")
    prepared = read(tmp_path / "a.parquet")
    rows = prepared.table("train")
    assert rows.column_names[:1200] == names and rows["c7"].to_pylist() == rows["c1199"].to_pylist()
    assert prepared.table("train", ["c1100", "c3"]).column_names == ["c3", "c1100", "_row"]
