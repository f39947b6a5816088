"""Hostile data: tables, arrays, pictures, recordings and texts that expand, lie about their size, point elsewhere or never end."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from attacks.attempt import Attempt, Scene

ROWS = 40
GIB = 2**30


def attempts() -> Iterator[Attempt]:
    """Every hostile data file."""
    for name, make in TABLES.items():
        yield Attempt("data", name, _table(make))
    for name, make in PICTURES.items():
        yield Attempt("data", f"picture: {name}", _picture(make))
    for name, make in SOUNDS.items():
        yield Attempt("data", f"recording: {name}", _sound(make))
    for name, make in PLACES.items():
        yield Attempt("data", f"place: {name}", make)
    for name, make in TEXTS.items():
        for tokenizer in TOKENIZERS:
            yield Attempt("data", f"texts, {tokenizer}: {name}", _corpus(make, TOKENIZERS[tokenizer]))


def _recipe(scene: Scene, source: str, task: str = "tabular-classification", **data: Any) -> list[str]:
    recipe = {
        "task": task,
        "data": {"source": source, **data},
        "train": {"epochs": 1},
        "eval": {"resamples": 100},
        "hardware": {"threads": 1},
    }
    (scene.folder / "recipe.yaml").write_text(json.dumps(recipe))
    return ["run", "recipe.yaml"]


Made = tuple[str, bytes]


def _table(make: Callable[[], Made]) -> Callable[[Scene], list[str]]:
    def prepare(scene: Scene) -> list[str]:
        name, content = make()
        (scene.folder / name).write_bytes(content)
        return _recipe(scene, name, target="label")

    return prepare


def _zeros(count: int) -> bytes:
    """A gzip of `count` zero bytes, made of one compressed MiB again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(2**20)
    return b"".join([*(packer.compress(block) for _ in range(count >> 20)), packer.flush()])


def _csv(rows: Iterator[str] | list[str]) -> Made:
    return "data.csv", "".join(f"{row}\n" for row in rows).encode()


def _npz(members: dict[str, bytes]) -> Made:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return "data.npz", buffer.getvalue()


def _npy(shape: str, kind: str = "<f8", body: bytes = b"") -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def _parquet(table: pa.Table, **options: Any) -> Made:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return "data.parquet", sink.getvalue()


def _labels(count: int = ROWS) -> pa.Array:
    return pa.array(["a", "b"] * (count // 2))


def _cut(made: Made, share: float) -> Made:
    return made[0], made[1][: int(len(made[1]) * share)]


def _flipped(made: Made, place: int) -> Made:
    changed = bytearray(made[1])
    changed[place % len(changed)] ^= 0xFF
    return made[0], bytes(changed)


def _jsonl(rows: list[str]) -> Made:
    return "data.jsonl", "".join(f"{row}\n" for row in rows).encode()


GOOD = pa.table({"x": list(range(ROWS)), "label": _labels()})
TABLES: dict[str, Callable[[], Made]] = {
    "csv: 30,000 columns": lambda: _csv(
        [",".join([f"c{n}" for n in range(30_000)] + ["label"])]
        + [",".join(["1"] * 30_000 + ["ab"[row % 2]]) for row in range(ROWS)]
    ),
    "csv: 2,000,000 columns": lambda: _csv([",".join([f"c{n}" for n in range(2_000_000)] + ["label"]), "1", "2"]),
    "csv: a cell of 60 MB": lambda: _csv(["x,label", "y" * 60_000_000 + ",a", *["1,b", "2,a"] * ROWS]),
    "csv: a quote that never ends": lambda: _csv(["x,label", '"' + "y,a\n" * 2_000_000]),
    "csv: a name of 10 MB": lambda: _csv(["x" * 10_000_000 + ",label", *["1,a", "2,b"] * ROWS]),
    "csv: null bytes": lambda: ("data.csv", b"x,label\n" + b"\0,a\n" * ROWS),
    "csv: lone surrogates": lambda: ("data.csv", b"x,label\n" + b"\xed\xa0\x80,a\n" * ROWS),
    "csv: numbers beyond floats": lambda: _csv(["x,label", *[f"1e{400 + n},{'ab'[n % 2]}" for n in range(ROWS)]]),
    "csv: digits": lambda: _csv(["x,label", *[f"{'9' * 100_000},{'ab'[n % 2]}" for n in range(ROWS)]]),
    "csv: a formula": lambda: _csv(["x,label", *[f"=cmd|'/c calc'!A{n},{'ab'[n % 2]}" for n in range(ROWS)]]),
    "csv: markup": lambda: _csv(["<script>alert(1)</script>,label", *["1,<img src=x onerror=alert(1)>", "2,b"] * ROWS]),
    "csv: control characters": lambda: _csv(["x,label", *["\x1b]0;evil\x07,a", "\x1b[2J,b"] * ROWS]),
    "csv: 100,000 classes": lambda: _csv(["x,label", *[f"{n},class {n}" for n in range(100_000)]]),
    "csv: measured as a class": lambda: _csv(["x,label", *[f"{n},{n * 0.37}" for n in range(1000)]]),
    "csv.gz: 8 GiB of zeros": lambda: ("data.csv.gz", _zeros(8 * GIB)),
    "csv.gz: cut": lambda: ("data.csv.gz", gzip.compress(b"x,label\n" + b"1,a\n2,b\n" * 1000)[:60]),
    "csv.gz: of itself": lambda: ("data.csv.gz", gzip.compress(gzip.compress(b"x,label\n1,a\n2,b\n"))),
    "csv.bz2: a bomb": lambda: ("data.csv.bz2", bz2.compress(b"x" * 200_000_000)),
    "csv: empty name": lambda: ("data.csv", b",\n,\n"),
    "tsv: lines of carriage returns": lambda: ("data.tsv", b"x\tlabel\r" * 100_000),
    "jsonl: 300,000 keys": lambda: _jsonl([json.dumps({f"k{n}": n for n in range(300_000)} | {"label": "a"})] * 2),
    "jsonl: a new key on every row": lambda: _jsonl(
        [json.dumps({f"k{n}": 1, "label": "ab"[n % 2]}) for n in range(100_000)]
    ),
    "jsonl: depth 100,000": lambda: _jsonl(['{"x": ' + "[" * 100_000 + "]" * 100_000 + ', "label": "a"}'] * 2),
    "jsonl: a lone surrogate": lambda: _jsonl(['{"x": "\\ud800", "label": "a"}', '{"x": "b", "label": "b"}'] * ROWS),
    "jsonl: a lone surrogate in a name": lambda: _jsonl(['{"\\ud800": 1, "label": "a"}'] * ROWS),
    "jsonl: NaN and Infinity": lambda: _jsonl(['{"x": NaN, "label": "a"}', '{"x": Infinity, "label": "b"}'] * ROWS),
    "jsonl: 100,000 digits": lambda: _jsonl(['{"x": ' + "9" * 100_000 + ', "label": "a"}'] * ROWS),
    "jsonl: one line of 100 MB": lambda: _jsonl(['{"x": "' + "y" * 100_000_000 + '", "label": "a"}']),
    "jsonl: keys twice": lambda: _jsonl(['{"x": 1, "x": 2, "label": "a"}', '{"x": 1, "label": "b"}'] * ROWS),
    "jsonl: an array": lambda: _jsonl(["[" + "1," * 1_000_000 + "1]"]),
    "jsonl: dunder": lambda: _jsonl(['{"__class__": {"a": 1}, "label": "a"}', '{"__proto__": 1, "label": "b"}'] * ROWS),
    "npz: 10 TiB declared": lambda: _npz({"x.npy": _npy("(1099511627776,)"), "label.npy": _npy("(2,)", "<i8")}),
    "npz: a negative shape": lambda: _npz({"x.npy": _npy("(-5,)"), "label.npy": _npy("(2,)", "<i8")}),
    "npz: an overflowing shape": lambda: _npz({"x.npy": _npy("(4294967296, 4294967296, 4)")}),
    "npz: objects": lambda: _npz({"x.npy": _npy("(2,)", "|O", b"cos\nsystem\n(S'touch trace'\ntR.")}),
    "npz: a header with a call": lambda: _npz({"x.npy": _npy("__import__('os').getpid()")}),
    "npz: a bomb of zeros": lambda: _npz({"x.npy": _npy("(536870912,)", "|u1", bytes(512 * 2**20))}),
    "npz: 50,000 members": lambda: _npz({f"a{n}.npy": b"" for n in range(50_000)}),
    "npz: paths": lambda: _npz({"../../x.npy": _npy("(1,)"), "/etc/x.npy": _npy("(1,)")}),
    "npz: a member cut": lambda: _npz({"x.npy": _npy("(100,)"), "label.npy": _npy("(100,)", "<i8")}),
    "npz: no zip": lambda: ("data.npz", b"PK\x03\x04" + bytes(1000)),
    "npz: structured": lambda: _npz({"x.npy": _npy("(2,)", "<f8")[:-1] + b"\n" + bytes(16)}),
    "parquet: runs of 2^31": lambda: _parquet(
        pa.table({"x": pa.array(np.zeros(60_000_000, np.int8)), "label": pa.array(["a"] * 60_000_000)})
    ),
    "parquet: a dictionary bomb": lambda: _parquet(
        pa.table({"x": pa.array(["y" * 1_000_000] * 4000).dictionary_encode(), "label": _labels(4000)})
    ),
    "parquet: 20,000 columns": lambda: _parquet(
        pa.table({**{f"c{n}": [1.0] * ROWS for n in range(20_000)}, "label": _labels()})
    ),
    "parquet: nested 60 deep": lambda: _parquet(pa.table({"x": _nested(60), "label": _labels()})),
    "parquet: cut": lambda: _cut(_parquet(GOOD), 0.6),
    "parquet: damaged footer": lambda: _flipped(_parquet(GOOD), -30),
    "parquet: damaged page": lambda: _flipped(_parquet(GOOD), 60),
    "parquet: a footer of 2 GiB": lambda: (
        "data.parquet",
        b"PAR1" + bytes(100) + struct.pack("<I", 2**31 - 1) + b"PAR1",
    ),
    "parquet: only its sign": lambda: ("data.parquet", b"PAR1PAR1"),
    "parquet: lists": lambda: _parquet(pa.table({"x": pa.array([[0] * 100_000] * ROWS), "label": _labels()})),
    "parquet: infinities": lambda: _parquet(
        pa.table({"x": [float("inf"), float("nan")] * (ROWS // 2), "label": _labels()})
    ),
}


def _nested(depth: int) -> pa.Array:
    found: pa.Array = pa.array([1] * ROWS)
    for _ in range(depth):
        found = pa.ListArray.from_arrays(pa.array(range(len(found) + 1), pa.int32()), found)
    return found


def _png(width: int, height: int, body: bytes = b"", extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def _text_chunk(count: int) -> bytes:
    content = b"a\0\0" + zlib.compress(bytes(count))
    return struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))


def _eps(scene: Scene) -> bytes:
    return (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
        + f"(%pipe%touch {scene.trace}) (w) file closefile\n".encode()
        + b"showpage\n%%EOF\n"
    )


def _picture(make: Callable[[Scene], tuple[str, bytes]]) -> Callable[[Scene], list[str]]:
    def prepare(scene: Scene) -> list[str]:
        from PIL import Image

        # A fake Ghostscript stands first on PATH: whoever starts one leaves the trace.
        for label in "ab":
            (scene.folder / "pictures" / label).mkdir(parents=True)
            for number in range(12):
                Image.new("L", (8, 8), number * 20).save(scene.folder / "pictures" / label / f"{number}.png")
        name, content = make(scene)
        (scene.folder / "pictures" / "a" / name).write_bytes(content)
        return _recipe(scene, "pictures", "image-classification")

    return prepare


PICTURES: dict[str, Callable[[Scene], tuple[str, bytes]]] = {
    "EPS named .png": lambda scene: ("x.png", _eps(scene)),
    "EPS named .jpg": lambda scene: ("x.jpg", _eps(scene)),
    "100 megapixels in 12 KB": lambda scene: ("x.png", _png(10_000, 10_000, bytes(100_000_000))),
    "2^31 pixels wide": lambda scene: ("x.png", _png(2**31 - 1, 1)),
    "65,535 squared": lambda scene: ("x.png", _png(65_535, 65_535)),
    "no pixel": lambda scene: ("x.png", _png(0, 0)),
    "a text of 1 GiB": lambda scene: ("x.png", _png(8, 8, bytes(72), _text_chunk(GIB))),
    "cut": lambda scene: ("x.png", _png(8, 8, bytes(72))[:50]),
    "a GIF that lies": lambda scene: ("x.gif", b"GIF89a\xff\xff\xff\xff\xf7\0\0" + bytes(800)),
    "a BMP that lies": lambda scene: (
        "x.bmp",
        b"BM"
        + struct.pack("<IHHI", 100, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
    ),
    "a TIFF of a million tags": lambda scene: ("x.tif", b"II*\0\x08\0\0\0\xff\xff" + bytes(12) * 65_535),
    "a TIFF that points to itself": lambda scene: ("x.tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0"),
    "SVG": lambda scene: ("x.png", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'),
    "a PDF": lambda scene: ("x.png", b"%PDF-1.4\n%%EOF"),
    "a Python pickle": lambda scene: ("x.png", b"cposix\nsystem\n(S'touch " + str(scene.trace).encode() + b"'\ntR."),
    "WMF": lambda scene: ("x.png", b"\xd7\xcd\xc6\x9a" + bytes(100)),
    "FITS": lambda scene: ("x.png", b"SIMPLE  =                    T" + b" " * 2850),
}


def _wav(rate: int = 16_000, channels: int = 1, frames: int = 8000, declared: int | None = None) -> bytes:
    body = bytes(2 * channels * frames) if frames * channels < 10**6 else b""
    size = len(body) if declared is None else declared
    head = struct.pack("<HHIIHH", 1, channels, rate, min(rate * channels * 2, 2**32 - 1), (channels * 2) % 65536, 16)
    return (
        b"RIFF"
        + struct.pack("<I", min(36 + size, 2**32 - 1))
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + head
        + b"data"
        + struct.pack("<I", size)
        + body
    )


def _flac(hours: float, rate: int = 48_000) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, 8, format="FLAC", subtype="PCM_16") as file:
        block = np.zeros((rate * 60, 8), np.int16)
        for _ in range(int(hours * 60)):
            file.write(block)
    return buffer.getvalue()


def _sound(make: Callable[[Scene], tuple[str, bytes]]) -> Callable[[Scene], list[str]]:
    def prepare(scene: Scene) -> list[str]:
        name, content = make(scene)
        rows = ["audio,text"]
        for number in range(12):
            (scene.folder / f"{number}.wav").write_bytes(_wav())
            rows.append(f"{number}.wav,ab")
        (scene.folder / name).write_bytes(content)
        rows.append(f"{name},ab")
        (scene.folder / "data.csv").write_text("\n".join(rows) + "\n")
        return _recipe(scene, "data.csv", "speech-recognition", input="audio", target="text", format="speech")

    return prepare


SOUNDS: dict[str, Callable[[Scene], tuple[str, bytes]]] = {
    "FLAC of two hours in eight channels": lambda scene: ("x.flac", _flac(2)),
    "WAV of 4 GiB declared": lambda scene: ("x.wav", _wav(declared=2**32 - 40)),
    "a rate of 2^32": lambda scene: ("x.wav", _wav(rate=2**32 - 1)),
    "a rate of 0": lambda scene: ("x.wav", _wav(rate=0)),
    "a rate of 1": lambda scene: ("x.wav", _wav(rate=1)),
    "65,535 channels": lambda scene: ("x.wav", _wav(channels=65_535, frames=1)),
    "no sample": lambda scene: ("x.wav", _wav(frames=0)),
    "an AIFF named .wav": lambda scene: ("x.wav", b"FORM\0\0\0\x2eAIFFCOMM" + bytes(40)),
    "a raw file": lambda scene: ("x.raw", bytes(32_000)),
    "a text": lambda scene: ("x.wav", b"hello" * 100),
    "OGG of noise": lambda scene: ("x.ogg", b"OggS" + os.urandom(5000)),
    "MP3 of noise": lambda scene: ("x.mp3", b"\xff\xfb\x90\x00" + os.urandom(5000)),
}


def _place(source: str) -> Callable[[Scene], list[str]]:
    return lambda scene: _recipe(scene, source.format(secret=scene.secret), target="label")


def _fifo(name: str) -> Callable[[Scene], list[str]]:
    def prepare(scene: Scene) -> list[str]:
        os.mkfifo(scene.folder / name)
        return _recipe(scene, name, target="label")

    return prepare


def _listed(kind: str, entry: str) -> Callable[[Scene], list[str]]:
    """A table of files, of which one lies elsewhere."""

    def prepare(scene: Scene) -> list[str]:
        column, task = ("audio", "speech-recognition") if kind == "speech" else ("image", "image-classification")
        (scene.folder / "link.wav").symlink_to(scene.secret)
        (scene.folder / "out").symlink_to("/etc")
        rows = [f"{column},text", *[f"{entry.format(secret=scene.secret)},ab"] * 12]
        (scene.folder / "data.csv").write_text("\n".join(rows) + "\n")
        more = {"format": "speech"} if kind == "speech" else {}
        return _recipe(scene, "data.csv", task, input=column, target="text", **more)

    return prepare


def _loop(scene: Scene) -> list[str]:
    (scene.folder / "pictures").mkdir()
    (scene.folder / "pictures" / "a").symlink_to(".")
    return _recipe(scene, "pictures", "image-classification")


def _fifo_among(scene: Scene) -> list[str]:
    (scene.folder / "pictures" / "a").mkdir(parents=True)
    os.mkfifo(scene.folder / "pictures" / "a" / "x.png")
    return _recipe(scene, "pictures", "image-classification")


PLACES: dict[str, Callable[[Scene], list[str]]] = {
    **{
        name: _place(name)
        for name in ("/dev/zero", "/dev/random", "/dev/stdin", "/proc/self/mem", "/proc/kcore", "/", "/dev", "/sys")
    },
    **{f"a fifo named {name}": _fifo(name) for name in ("x.csv", "x.csv.gz", "x.jsonl", "x.parquet", "x.npz", "x.txt")},
    "the secret as a table": _place("{secret}"),
    **{
        f"{kind}: {entry}": _listed(kind, entry)
        for kind in ("speech", "pictures")
        for entry in (
            "../../secret",
            "{secret}",
            "link.wav",
            "out/passwd",
            "/etc/passwd",
            "a\x00b",
            "..",
            "~/.bashrc",
            "/dev/zero",
        )
    },
    "a folder that holds itself": _loop,
    "a fifo among pictures": _fifo_among,
}


TOKENIZERS: dict[str, Any] = {
    "bytes": {"bpe": {"vocabulary": 270}},
    "wordpiece": {"wordpiece": {"vocabulary": 100}},
    "unigram": {"unigram": {"vocabulary": 100}},
    "characters": "characters",
}


def _corpus(make: Callable[[], bytes], tokenizer: Any) -> Callable[[Scene], list[str]]:
    def prepare(scene: Scene) -> list[str]:
        (scene.folder / "corpus.txt").write_bytes(make())
        recipe = {
            "task": "language-modeling",
            "data": {"source": "corpus.txt"},
            "model": {
                "backbone": {"gpt": {"layers": 1, "heads": 2, "width": 16, "context": 32}},
                "tokenizer": tokenizer,
            },
            "train": {"epochs": 1},
            "eval": {"resamples": 100},
            "hardware": {"threads": 1},
        }
        (scene.folder / "recipe.yaml").write_text(json.dumps(recipe))
        return ["run", "recipe.yaml"]

    return prepare


TEXTS: dict[str, Callable[[], bytes]] = {
    "one line of 40 MB": lambda: b"x" * 40_000_000,
    "one word of 3 MB, then others": lambda: b"x" * 3_000_000 + b"\n" + b"to be or not to be\n" * 500,
    "combining marks": lambda: ("a" + "\u0301" * 200_000 + "\n").encode() * 3,
    "ligatures that expand": lambda: ("\ufdfa" * 200_000 + "\n").encode() * 3,
    "null bytes": lambda: bytes(100_000),
    "not utf-8": lambda: b"\xff\xfe\xfd" * 10_000,
    "empty lines": lambda: b"\n" * 3_000_000,
    "spaces": lambda: b" " * 3_000_000,
    "the end token": lambda: b"<|endoftext|>" * 20_000,
    "every code point": lambda: "".join(chr(n) for n in range(0x20, 0xD000)).encode() * 4,
}
