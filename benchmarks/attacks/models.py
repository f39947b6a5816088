"""Hostile models: backbone folders, saved models and Keras files that ask for code, lie about sizes or point elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from attacks.attempt import Attempt, Scene
from safetensors.torch import save_file

WORDS = ["good", "fine", "warm", "bad", "poor", "cold", "film", "room", "the", "a"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
HUGE = 10**12


def attempts() -> Iterator[Attempt]:
    """Every hostile model; each is the backbone of a text classifier, or a file that a command opens."""
    for name, change in FOLDERS.items():
        yield Attempt("model", name, _backbone(change))
    for name, change in TOKENIZERS.items():
        yield Attempt("model", f"tokenizer: {name}", _backbone(_tokenizer(change)))
    for name, make in KERAS.items():
        yield Attempt("model", f"keras: {name}", _keras(make))
    for name, make in SAVED.items():
        yield Attempt("model", f"saved: {name}", make)


def tiny_bert(folder: Path) -> None:
    """A BERT of random weights with a tokenizer of a few words, in the hub's format."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    known = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))  # pyright: ignore[reportAttributeAccessIssue]
    config = BertConfig(
        vocab_size=len(known),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names).save_pretrained(folder)


def _backbone(change: Callable[[Scene, Path], None]) -> Callable[[Scene], list[str]]:
    def prepare(scene: Scene) -> list[str]:
        model = scene.folder / "model"
        tiny_bert(model)
        for name in ("modeling_evil.py", "tokenization_evil.py", "configuration_evil.py"):
            text = f"open({str(scene.trace)!r}, 'w').close()\nclass Evil: pass\nEvilModel = EvilConfig = EvilTokenizer = Evil\n"
            (model / name).write_text(text)
        change(scene, model)
        rows = [f"{WORDS[n % 10]} {WORDS[n % 7]},{'ab'[n % 2]}" for n in range(80)]
        (scene.folder / "data.csv").write_text("\n".join(["text,label", *rows]) + "\n")
        recipe = {
            "task": "text-classification",
            "data": {"source": "data.csv", "input": "text", "target": "label"},
            "model": {"backbone": "./model"},
            "tune": {"method": "gradient"},
            "train": {"epochs": 1},
            "eval": {"resamples": 100},
            "hardware": {"threads": 1, "precision": "float32"},
        }
        (scene.folder / "recipe.yaml").write_text(json.dumps(recipe))
        return ["run", "recipe.yaml"]

    return prepare


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**values, **changes}))


def _config(**changes: Any) -> Callable[[Scene, Path], None]:
    return lambda scene, model: edit(model / "config.json", **changes)


def _linked(name: str, target: str = "{secret}") -> Callable[[Scene, Path], None]:
    def change(scene: Scene, model: Path) -> None:
        path = model / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target.format(secret=scene.secret))

    return change


def _file(name: str, content: bytes | Callable[[Scene], bytes]) -> Callable[[Scene, Path], None]:
    def change(scene: Scene, model: Path) -> None:
        path = model / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content(scene))

    return change


class Payload:
    """Creates the trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


def _pickled(zipped: bool) -> Callable[[Scene, Path], None]:
    def change(scene: Scene, model: Path) -> None:
        (model / "model.safetensors").unlink()
        content = {"a": torch.zeros(2), "b": Payload(scene.trace)}
        torch.save(content, model / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)

    return change


def _tensors(make: Callable[[], dict[str, Any]]) -> Callable[[Scene, Path], None]:
    def change(scene: Scene, model: Path) -> None:
        (model / "model.safetensors").unlink()
        torch.save(make(), model / "pytorch_model.bin")

    return change


def _zip_bomb(scene: Scene, model: Path) -> None:
    (model / "model.safetensors").unlink()
    with zipfile.ZipFile(model / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(600 * 2**20))
        archive.writestr("archive/version", "3\n")


def _many_entries(scene: Scene, model: Path) -> None:
    (model / "model.safetensors").unlink()
    with zipfile.ZipFile(model / "pytorch_model.bin", "w") as archive:
        for number in range(100_000):
            archive.writestr(f"archive/data/{number}", b"")


def _header(header: bytes, declared: int | None = None) -> Callable[[Scene, Path], None]:
    content = struct.pack("<Q", len(header) if declared is None else declared) + header
    return _file("model.safetensors", content)


FOLDERS: dict[str, Callable[[Scene, Path], None]] = {
    "code of its own": _config(auto_map={"AutoModel": "modeling_evil.EvilModel"}),
    "an architecture of its own": _config(model_type="evil", auto_map={"AutoConfig": "configuration_evil.EvilConfig"}),
    "nested code": _config(text_config={"auto_map": {"AutoModel": "modeling_evil.EvilModel"}}),
    "a kernel": _config(attn_implementation="kernels-community/flash-attn"),
    "a pipeline": _config(custom_pipelines={"text-classification": {"impl": "modeling_evil.Evil"}}),
    "10^9 layers": _config(num_hidden_layers=10**9),
    "10^12 wide": _config(hidden_size=HUGE),
    "10^12 positions": _config(max_position_embeddings=HUGE),
    "a negative vocabulary": _config(vocab_size=-5),
    "a vocabulary of 3": _config(vocab_size=3),
    "heads of 0": _config(num_attention_heads=0),
    "an unknown activation": _config(hidden_act="os.system"),
    "dropout of 7": _config(hidden_dropout_prob=7),
    "NaN": _file("config.json", b'{"model_type": "bert", "layer_norm_eps": NaN}'),
    "types": _config(hidden_size="x", num_hidden_layers=[1], id2label="y"),
    "a million labels": _config(id2label={str(n): "x" for n in range(1_000_000)}),
    "300,000 keys": _config(**{f"k{n}": n for n in range(300_000)}),
    "depth 100,000": _file("config.json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a configuration of 300 MB": _file("config.json", b'{"a": "' + b"x" * 300_000_000 + b'"}'),
    "a configuration that is a list": _file("config.json", b"[1]"),
    "an empty configuration": _file("config.json", b""),
    "a configuration that links": _linked("config.json"),
    "weights that link": _linked("model.safetensors"),
    "a template that links": _linked("chat_template.jinja"),
    "a template below that links": _linked("additional_chat_templates/x.jinja"),
    "a vocabulary that links": _linked("vocab.txt"),
    "a folder that links": _linked("additional_chat_templates", "/etc"),
    "a README that links": _linked("README.md"),
    "a link to itself": _linked("model.safetensors", "model.safetensors"),
    "an endless file": _linked("vocab.txt", "/dev/zero"),
    "a fifo": lambda scene, model: os.mkfifo(model / "added_tokens.json"),
    "an index that points out": _file("model.safetensors.index.json", b'{"weight_map": {"a": "../../secret"}}'),
    "an index of nothing": _file("model.safetensors.index.json", b'{"weight_map": {}}'),
    "a README of impossible YAML": _file("README.md", b"---\n[: {\n- x: &a *a\n---\n" + b"x" * 100),
    "a README with a tag": _file("README.md", b"---\nlicense: !!python/object/apply:os.system ['true']\n---\n"),
    "a README of 50 MB": _file("README.md", b"---\nlicense: mit\n---\n" + b"x" * 50_000_000),
    "a pickle in a zip": _pickled(True),
    "a pickle": _pickled(False),
    "a raw pickle": _file("pytorch_model.bin", lambda scene: b"cposix\nsystem\n(S'touch " + str(scene.trace).encode() + b"'\ntR."),
    "weights of stride 0": _tensors(lambda: {"embeddings.word_embeddings.weight": torch.zeros(1).expand(10**12)}),
    "weights that overlap": _tensors(lambda: {f"w{n}": torch.zeros(10).as_strided((10**5, 10**5), (0, 0)) for n in range(9)}),
    "sparse weights": _tensors(lambda: {"w": torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), [1.0], (10**6, 10**6))}),
    "weights in a bomb": _zip_bomb,
    "100,000 entries": _many_entries,
    "safetensors: a header of 2^60": _header(b"{}", 2**60),
    "safetensors: no JSON": _header(b"x" * 100),
    "safetensors: offsets that overlap": _header(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}' + bytes(12)
    ),
    "safetensors: 2^62 numbers": _header(b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}'),
    "safetensors: other shapes": lambda scene, model: save_file({"embeddings.word_embeddings.weight": torch.zeros(3, 3)}, model / "model.safetensors"),
    "safetensors: infinite": lambda scene, model: _scaled(model, float("inf")),
    "safetensors: not a number": lambda scene, model: _scaled(model, float("nan")),
    "no weights": lambda scene, model: (model / "model.safetensors").unlink(),
    "weights cut": lambda scene, model: os.truncate(model / "model.safetensors", 3000),
    "an absurd template": _file("chat_template.jinja", b"{% for i in range(10**9) %}{{ 'a' * 10**9 }}{% endfor %}"),
    "a template that escapes": _file("chat_template.jinja", b"{{ ''.__class__.__mro__[1].__subclasses__() }}"),
}  # fmt: skip


def _scaled(model: Path, factor: float) -> None:
    from safetensors.torch import load_file

    found = load_file(model / "model.safetensors")
    save_file(
        {name: value * factor for name, value in found.items()}, model / "model.safetensors", metadata={"format": "pt"}
    )


def _tokenizer(change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Callable[[Scene, Path], None]:
    def changed(scene: Scene, model: Path) -> None:
        path = model / "tokenizer.json"
        values = json.loads(path.read_text())
        path.write_text(json.dumps(change(values) or values))

    return changed


def _set(**parts: Any) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    return lambda values: {**values, **parts}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


TOKENIZERS: dict[str, Callable[[dict[str, Any]], dict[str, Any] | None]] = {
    "doubling forty times": _set(
        normalizer={"type": "Sequence", "normalizers": [_replace({"String": "o"}, "oo")] * 40}
    ),
    "a pattern that backtracks": _set(normalizer=_replace({"Regex": "(([a-z]+)+)+$"}, "")),
    "a split that backtracks": _set(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}
    ),
    "a pattern of 1 MB": _set(normalizer=_replace({"Regex": "a?" * 500_000}, "")),
    "a content of 50 MB": _set(normalizer=_replace({"String": "o"}, "o" * 50_000_000)),
    "a million added tokens": lambda values: values["added_tokens"].extend(
        {**values["added_tokens"][0], "id": 100 + n, "content": f"<{n}>"} for n in range(300_000)
    ),
    "ids beyond the vocabulary": lambda values: values["model"]["vocab"].update(good=10**9),
    "negative ids": lambda values: values["model"]["vocab"].update(good=-1),
    "a damaged character map": _set(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "unigram of NaN": _set(model={"type": "Unigram", "unk_id": 7, "vocab": [["a", None]]}),
    "absurd merges": _set(model={"type": "BPE", "vocab": {"a": 0}, "merges": ["b c", "a d"]}),
    "an unknown model": _set(model={"type": "Evil"}),
    "nothing": lambda values: {"a": 1},
    "a template of a million": _set(
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 100_000,
            "pair": [],
            "special_tokens": {},
        }
    ),
    "truncation of 0": _set(
        truncation={"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 5}
    ),
    "padding of 10^9": _set(
        padding={
            "strategy": {"Fixed": 10**9},
            "direction": "Right",
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        }
    ),
}


def _layer(kind: str, /, **config: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None}


def _sequential(*layers: Any) -> dict[str, Any]:
    first = _layer("InputLayer", batch_shape=[None, 8, 8, 1], dtype="float32", name="input")
    config = {
        "name": "s",
        "trainable": True,
        "dtype": "float32",
        "layers": [first, *layers],
        "build_input_shape": [None, 8, 8, 1],
    }
    return {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}


def _keras(make: Callable[[Scene], tuple[bytes, bytes]]) -> Callable[[Scene], list[str]]:
    def prepare(scene: Scene) -> list[str]:
        config, weights = make(scene)
        with zipfile.ZipFile(scene.folder / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", config)
            archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
            archive.writestr("model.weights.h5", weights)
        recipe = {
            "task": "image-classification",
            "data": {"source": "digits"},
            "model": {"backbone": "./model.keras"},
            "train": {"epochs": 1},
            "hardware": {"threads": 1},
        }
        (scene.folder / "recipe.yaml").write_text(json.dumps(recipe))
        return ["run", "recipe.yaml"]

    return prepare


def _described(*layers: Any) -> Callable[[Scene], tuple[bytes, bytes]]:
    return lambda scene: (json.dumps(_sequential(*layers)).encode(), b"\x89HDF\r\n\x1a\n" + bytes(200))


EVIL = {
    "module": "keras.layers",
    "class_name": "TorchModuleWrapper",
    "config": {"module": "gASVHgAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjARleGl0lIWUUpQu"},
    "registered_name": None,
}
KERAS: dict[str, Callable[[Scene], tuple[bytes, bytes]]] = {
    "a wrapper as an activation": _described(_layer("Flatten"), _layer("Dense", units=4, activation=EVIL)),
    "a wrapper as an initializer": _described(_layer("Flatten"), _layer("Dense", units=4, kernel_initializer=EVIL)),
    "a wrapper as a layer": _described(EVIL),
    "a lambda": _described(_layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "4wAA"}})),
    "a function by name": _described(_layer("Dense", units=4, activation="os.system")),
    "a module of the system": _described(
        {"module": "os", "class_name": "system", "config": {}, "registered_name": "x"}
    ),
    "an unknown registered name": _described({**_layer("Dense", units=4), "registered_name": "evil>Dense"}),
    "10^12 units": _described(_layer("Flatten"), _layer("Dense", units=HUGE)),
    "nested 50,000 deep": lambda scene: (b'{"config":' * 50_000 + b"1" + b"}" * 50_000, b""),
    "a configuration of 500 MB": lambda scene: (b"[" + b"1," * 250_000_000 + b"1]", b""),
    "weights of 500 MB of zeros": lambda scene: (
        json.dumps(_sequential(_layer("Flatten"))).encode(),
        bytes(500 * 2**20),
    ),
    "no JSON": lambda scene: (b"\xff\xfe", b""),
    "5,000 layers": _described(*[_layer("Dense", units=8)] * 5000),
}


def _digits(scene: Scene) -> Path:
    """A model of ours, trained for a moment; the folder."""
    from tunewright.console import silent
    from tunewright.run_recipe import run

    recipe = {
        "name": "sound",
        "task": "image-classification",
        "data": {"source": "digits", "limit": 200},
        "model": {"layers": ["flatten", {"dense": "auto"}]},
        "train": {"epochs": 1},
        "eval": {"resamples": 100},
        "hardware": {"threads": 1},
    }
    cached = scene.secret.parent / "sound"
    if not cached.exists():
        run(recipe, runs=cached, console=silent())
    shutil.copytree(cached / "sound", scene.folder / "runs" / "sound")
    return scene.folder / "runs" / "sound" / "pretrain" / "model"


def _saved(change: Callable[[Scene, Path], object], *words: str) -> Callable[[Scene], list[str]]:
    def prepare(scene: Scene) -> list[str]:
        model = _digits(scene)
        change(scene, model)
        return list(words) or ["predict", str(model), "digits"]

    return prepare


def _write(name: str, content: bytes) -> Callable[[Scene, Path], object]:
    return lambda scene, model: (model / name).write_bytes(content)


SAVED: dict[str, Callable[[Scene], list[str]]] = {
    "sizes of 10^12": _saved(
        lambda scene, model: (model / "config.json").write_text(
            (model / "config.json").read_text().replace("10", str(HUGE))
        )
    ),
    "a configuration of another kind": _saved(_write("config.json", b'{"format": 1, "model": [], "task": "os.system"}')),
    "a configuration cut": _saved(lambda scene, model: os.truncate(model / "config.json", 40)),
    "weights cut": _saved(lambda scene, model: os.truncate(model / "model.safetensors", 200)),
    "depth": _saved(_write("config.json", b"[" * 100_000)),
    "a lone surrogate": _saved(_write("config.json", b'{"a": "\\ud800"}')),
    "run.json cut": _saved(
        lambda scene, model: os.truncate(model.parents[1] / "run.json", 20), "report", "runs/sound"
    ),
    "stages that climb": _saved(
        lambda scene, model: edit(model.parents[1] / "run.json", stages=["../../../x"]), "report", "runs/sound"
    ),
    "a summary of markup": _saved(
        lambda scene, model: edit(model.parent / "summary.json", stage="<script>alert(1)</script>"), "report", "runs/sound"
    ),
    "a summary that is a list": _saved(
        lambda scene, model: (model.parent / "summary.json").write_text("[]"), "report", "runs/sound"
    ),
    "metrics of noise": _saved(
        lambda scene, model: (model.parent / "metrics.jsonl").write_bytes(os.urandom(5000)), "report", "runs/sound"
    ),
    "predictions that link": _saved(
        lambda scene, model: (
            (model.parent / "predictions.parquet").unlink(),
            (model.parent / "predictions.parquet").symlink_to(scene.secret),
        ),
        "report",
        "runs/sound",
    ),
    "comparing noise": _saved(
        lambda scene, model: (model.parents[1] / "run.json").write_bytes(os.urandom(500)), "compare", "runs/sound", "runs/sound"
    ),
    "a checkpoint of noise": _saved(
        lambda scene, model: [path.write_bytes(b"x" * 50) for path in model.parent.rglob("*.safetensors")], "export", "runs/sound/pretrain/model", "--to", "onnx"
    ),
}  # fmt: skip
