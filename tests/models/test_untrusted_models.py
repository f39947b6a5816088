"""Somebody else's model: nothing in it is run, nothing outside its folder is read, and a refusal says why."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from architectures import config_of, make_backbone
from tiny import texts
from tunewright.errors import ArtifactError, UserError
from tunewright.models.backbone import Backbone, open_backbone, weights_folder
from tunewright.models.core.torch_file import read_old_weights
from tunewright.models.hub.adapters import add_adapter
from tunewright.models.hub.hf_files import base_path, load_backbone
from tunewright.models.hub.hf_network import Transformer, describe_transformer, make_config
from tunewright.models.hub.purposes import TEXT_CLASSIFICATION
from tunewright.models.hub.untrusted_files import check_values, require_memory
from tunewright.models.saved_model import load_network, save_model
from tunewright.tasks.text.encoder import load_tokenizer
from tunewright.tasks.text.tokenizer_trial import is_plain

CLASSES = ["bad", "good"]
# A module that leaves a trace when it is imported.
TRACE = 'from pathlib import Path\nPath(__file__).with_name("it-ran").touch()\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound model, with Python files beside it that nobody may import."""
    found = make_backbone(tmp_path / "model", "bert")
    for name in ("modeling_evil.py", "tokenization_evil.py", "configuration_evil.py", "processing_evil.py"):
        (found / name).write_text(TRACE + "class Evil: pass\nEvilConfig = EvilModel = EvilTokenizer = Evil\n")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return found


def edit(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**values, **changes}))


def open_all(folder: Path) -> Transformer:
    """Everything that a run does with a backbone before it trains."""
    backbone = open_backbone(str(folder), Path("/"))
    load_tokenizer(backbone.folder)
    described = describe_transformer(TEXT_CLASSIFICATION, backbone.config, head=None, classes=CLASSES)
    return load_backbone(weights_folder(backbone), described, seed=0).network


def refused(folder: Path, *said: str) -> None:
    with pytest.raises(UserError) as caught:
        open_all(folder)
    assert caught.value.exit_code == 2
    for part in said:
        assert part in caught.value.message, caught.value.message
    assert not list(folder.parent.rglob("it-ran"))


def test_a_sound_model_opens_though_python_files_lie_beside_it(folder: Path) -> None:
    open_all(folder)
    assert not list(folder.parent.rglob("it-ran"))


CODE: dict[str, Callable[[Path], None]] = {
    "model": lambda f: edit(f / "config.json", auto_map={"AutoModel": "modeling_evil.EvilModel"}),
    "model and kind": lambda f: edit(
        f / "config.json", model_type="evil", auto_map={"AutoConfig": "configuration_evil.EvilConfig"}
    ),
    "other repository": lambda f: edit(f / "config.json", auto_map={"AutoModel": "some/repo--modeling.Evil"}),
    "nested": lambda f: edit(f / "config.json", text_config={"auto_map": {"AutoModel": "modeling_evil.EvilModel"}}),
    "in a list": lambda f: edit(f / "config.json", parts=[{"auto_map": {"AutoModel": "modeling_evil.EvilModel"}}]),
    "tokenizer": lambda f: edit(
        f / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_evil.EvilTokenizer", None]}
    ),
    "processor": lambda f: edit(
        f / "preprocessor_config.json", auto_map={"AutoImageProcessor": "processing_evil.EvilProcessor"}
    ),
    "pipeline": lambda f: edit(
        f / "config.json", custom_pipelines={"text-classification": {"impl": "modeling_evil.Evil"}}
    ),
    "kernel": lambda f: edit(f / "config.json", attn_implementation="kernels-community/flash-attn"),
    "kernel within": lambda f: edit(f / "config.json", _attn_implementation={"text_config": "some/kernel:forward"}),
    "kernel of experts": lambda f: edit(f / "config.json", experts_implementation="some/kernel"),
    "import as kind": lambda f: edit(f / "config.json", model_type="modeling_evil.Evil"),
    "import as tokenizer": lambda f: edit(
        f / "tokenizer_config.json", tokenizer_class="tokenization_evil.EvilTokenizer"
    ),
    "import as processor": lambda f: edit(f / "preprocessor_config.json", image_processor_type="os.system"),
}


@pytest.mark.parametrize("what", CODE)
def test_a_model_that_asks_for_code_is_refused_and_nothing_runs(folder: Path, what: str) -> None:
    CODE[what](folder)
    refused(folder, "asks to run code", str(folder))


def test_a_tokenizer_of_an_unknown_class_is_refused(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", tokenizer_class="EvilTokenizer")
    refused(folder, "EvilTokenizer", "tokenizer_class")


def test_an_architecture_that_nobody_knows_is_named(folder: Path) -> None:
    edit(folder / "config.json", model_type="evil")
    refused(folder, "does not know this architecture", "evil")


class Payload:
    """What runs a command when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_pickle_with_a_payload_does_not_run(folder: Path, own_cache: Path, zipped: bool, wrapped: bool) -> None:
    trace = folder / "it-ran"
    (folder / "model.safetensors").unlink()
    content = {"weight": torch.zeros(2), "evil": Payload(trace)} if wrapped else Payload(trace)
    torch.save(content, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    refused(folder, "weights were not read", "pytorch_model.bin")
    assert not list(own_cache.rglob("*.safetensors"))
    # The payload is real: read carelessly, it runs.
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert trace.exists()


def test_a_pickle_with_other_things_than_tensors_is_refused(folder: Path, own_cache: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(2), "epoch": 3}, folder / "pytorch_model.bin")
    refused(folder, "other things than tensors")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04garbage")
    refused(folder, "weights were not read")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 100,
        (10**12).to_bytes(8, "little") + b"{}",
        b"\x10" + b"\0" * 7 + b'{"a": 1}' + b" " * 8,
        b"\x80\x04.cos\nsystem\n",
    ],
)
def test_damaged_safetensors_are_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, "weights cannot be read")


def test_an_index_that_points_elsewhere_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "secret.safetensors")
    for shard in ("../secret.safetensors", str(folder.parent / "secret.safetensors"), "..", "a/b.safetensors"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
        refused(folder, "outside its folder", shard)
    for damaged in ({}, {"weight_map": []}, {"weight_map": {"a": 3}}):
        (folder / "model.safetensors.index.json").write_text(json.dumps(damaged))
        refused(folder, "index of the weights is damaged")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "part.safetensors"}}))
    refused(folder, "part of the weights is missing", "part.safetensors")


LINKED = [
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "vocab.txt",
    "chat_template.jinja",
    "merges",
    "a/b/c.md",
]


@pytest.mark.parametrize("name", [*LINKED, "additional_chat_templates/tool.jinja"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = folder.parent / "outside"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).rename(outside) if (folder / name).exists() else outside.write_text("x")
    (folder / name).symlink_to(outside)
    refused(folder, "link to another place", name, "TUNEWRIGHT_TRUSTED_FOLDERS")
    monkeypatch.setenv("TUNEWRIGHT_TRUSTED_FOLDERS", str(folder.parent))
    if name in LINKED[:3]:
        open_all(folder)


def test_a_folder_that_is_a_link_out_and_a_circle(folder: Path) -> None:
    (folder / "round").symlink_to("round")
    (folder / "within").symlink_to("config.json")
    open_all(folder)
    secrets = folder.parent / "secrets"
    secrets.mkdir()
    (secrets / "tool.jinja").write_text("secret")
    (folder / "additional_chat_templates").symlink_to(secrets)
    refused(folder, "link to another place", "additional_chat_templates")


def test_a_folder_of_too_many_files_is_no_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "more" / "files").mkdir(parents=True)
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_MODEL_FILES", str(len(list(folder.rglob("*")))))
    open_all(folder)
    (folder / "more" / "files" / "one").touch()
    refused(folder, "too many files", "TUNEWRIGHT_LIMIT_MODEL_FILES")


def test_a_saved_model_with_a_link_out_is_refused(folder: Path) -> None:
    save_model(folder.parent / "saved", open_all(folder), {})
    load_network(folder.parent / "saved")
    (folder.parent / "secret").write_text("secret")
    (folder.parent / "saved" / "chat_template.jinja").symlink_to("../secret")
    with pytest.raises(ArtifactError, match="link to another place"):
        load_network(folder.parent / "saved")


def test_links_within_the_hubs_cache_are_followed(folder: Path) -> None:
    blobs, snapshot = folder.parent / "hub" / "blobs", folder.parent / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        file.rename(blobs / file.name)
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    open_all(snapshot)
    (folder.parent / "linked").symlink_to(snapshot)
    open_all(folder.parent / "linked")
    (snapshot / "additional_chat_templates").mkdir()
    (snapshot / "additional_chat_templates" / "tool.jinja").symlink_to("../../../blobs/config.json")
    open_all(snapshot)


@pytest.mark.parametrize("how", ["blob", "blobs"])
def test_a_hubs_cache_whose_blobs_lead_elsewhere_is_refused(folder: Path, how: str) -> None:
    outside, snapshot = folder.parent / "outside", folder.parent / "hub" / "snapshots" / "abc"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    blobs = folder.parent / "hub" / "blobs"
    if how == "blobs":
        blobs.symlink_to(outside)
    else:
        blobs.mkdir()
        (blobs / "secret").symlink_to(outside / "secret")
    (snapshot / "chat_template.jinja").symlink_to("../../blobs/secret")
    refused(snapshot, "link to another place", "chat_template.jinja")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 10**9),
        ("num_hidden_layers", 10**9),
        ("vocab_size", 10**12),
        ("intermediate_size", 1e300),
        ("max_position_embeddings", 10**10),
        ("num_labels", 10**9),
    ],
)
def test_an_absurd_size_is_said_instead_of_dying_of_it(folder: Path, key: str, value: float) -> None:
    edit(folder / "config.json", **{key: value})
    refused(folder, "too large", key)


def test_a_network_larger_than_the_memory_is_said(folder: Path) -> None:
    edit(folder / "config.json", hidden_size=1_000_000, num_attention_heads=1)
    refused(folder, "does not fit into this machine's memory", "GiB")
    with pytest.raises(ArtifactError, match="does not fit"):
        require_memory(lambda: torch.nn.Linear(10_000_000, 10_000_000))


def test_real_configurations_are_not_absurd() -> None:
    for kind in ("bert", "modernbert", "swin", "mobilenet_v2"):
        make_config({**config_of(kind), "vocab_size": 256_000, "max_position_embeddings": 131_072})


def test_quantised_weights_and_values_that_do_not_fit(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    refused(folder, "quantised")
    edit(folder / "config.json", quantization_config=None, hidden_size="large")
    refused(folder, "config")
    (folder / "config.json").write_text("[]")
    refused(folder, "not a JSON object")
    (folder / "config.json").write_text("{" * 100_000)
    refused(folder, "cannot be read")


def test_an_adapters_folder_is_no_backbone(folder: Path) -> None:
    edit(folder / "adapter_config.json", base_model_name_or_path="/etc", peft_type="LORA")
    refused(folder, "holds an adapter")
    (folder / "config.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ArtifactError, match="holds an adapter"):
        open_backbone(str(folder), Path("/"))


@pytest.fixture
def adapter(folder: Path) -> Path:
    """A saved adapter on a sound model, without checksums, as a stranger's."""
    backbone = open_backbone(str(folder), Path("/"))
    described = describe_transformer(TEXT_CLASSIFICATION, backbone.config, head=None, classes=CLASSES)
    described = dataclasses.replace(described, base=backbone.name, base_fingerprint=backbone.fingerprint)
    network = add_adapter(load_backbone(folder, described, seed=0).network, "lora", seed=0)
    save_model(folder.parent / "adapter", network, {})
    (folder.parent / "adapter" / "checksums.json").unlink()
    return folder.parent / "adapter"


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("adapter_config.json", {"base_model_name_or_path": "evil/model"}, "base_model_name_or_path"),
        (
            "adapter_config.json",
            {"auto_mapping": {"parent_library": "modeling_evil", "base_model_class": "Evil"}},
            "auto_mapping",
        ),
        ("adapter_config.json", {"peft_type": "PREFIX_TUNING"}, "peft_type"),
        ("tunewright.json", {"network": {}}, "damaged"),
    ],
)
def test_an_adapter_that_names_other_things_is_refused(
    adapter: Path, folder: Path, file: str, changes: dict[str, Any], said: str
) -> None:
    load_network(adapter)
    edit(adapter / file, **changes)
    with pytest.raises(ArtifactError, match=said) as caught:
        load_network(adapter)
    assert caught.value.exit_code == 2 and not list(folder.parent.rglob("it-ran"))


def test_an_adapter_without_its_base_or_its_tensors_says_so(adapter: Path, folder: Path) -> None:
    content = (adapter / "adapter_model.safetensors").read_bytes()
    (adapter / "adapter_model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_network(adapter)
    (adapter / "adapter_model.safetensors").write_bytes(content)
    edit(folder / "config.json", extra=1)
    with pytest.raises(ArtifactError, match="have changed"):
        load_network(adapter)
    folder.rename(folder.with_name("gone"))
    with pytest.raises(ArtifactError, match="not here"):
        load_network(adapter)


def test_a_saved_models_description_is_checked_too(folder: Path, tmp_path: Path) -> None:
    network = open_all(folder)
    for number, changes in enumerate(({"auto_map": {"AutoModel": "x.Y"}}, {"hidden_size": 10**9})):
        save_model(tmp_path / str(number), network, {})
        (tmp_path / str(number) / "checksums.json").unlink()  # as a stranger's folder
        beside = json.loads((tmp_path / str(number) / "tunewright.json").read_text())
        beside["network"]["config"].update(changes)
        (tmp_path / str(number) / "tunewright.json").write_text(json.dumps(beside))
        with pytest.raises(ArtifactError, match=r"asks to run code|network that is too large"):
            load_network(tmp_path / str(number))
    check_values({"hidden_size": 10**9}, "tokenizer_config.json")  # sizes count in a network's configuration alone


def test_from_the_hub_the_older_format_is_fetched_only_where_there_is_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[list[str]] = []

    def snapshot_download(name: str, *, allow_patterns: list[str], ignore_patterns: str) -> str:
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    found = open_backbone("somebody/model", Path("/"))
    assert found.name == found.hub == "somebody/model" and found.licence == "mit"
    assert len(asked) == 1 and not any("bin" in pattern for pattern in asked[0])
    (folder / "model.safetensors").unlink()
    open_backbone("somebody/model", Path("/"))
    assert len(asked) == 3 and "pytorch_model*.bin" in asked[2]
    assert Backbone(name=str(folder), folder=folder, config={}).hub is None
    assert base_path("somebody/model") == "somebody/model"


def test_on_the_command_line_a_refusal_is_a_message_and_exit_2(folder: Path, tmp_path: Path) -> None:
    CODE["tokenizer"](folder)
    texts(tmp_path / "texts.jsonl")
    (tmp_path / "recipe.yaml").write_text(
        "task: text-classification\ndata: {source: texts.jsonl}\nmodel: {backbone: model}\ntrain: {epochs: 1}\n"
    )
    code = "from tunewright.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "recipe.yaml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ},
    )
    assert done.returncode == 2 and "asks to run code" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("it-ran"))


def tokenizer_with(folder: Path, **changes: Any) -> None:
    edit(folder / "tokenizer.json", **changes)


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


SLOW_SPLIT = {"type": "Split", "pattern": {"Regex": r"(a|aa|a)+$"}, "behavior": "Isolated", "invert": False}
DOUBLING = {"type": "Sequence", "normalizers": [replace({"String": "a"}, "aa")] * 30}
AROUND = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}] * 100_000
TOKENIZERS: dict[str, dict[str, Any]] = {
    "doubling": {"normalizer": DOUBLING},
    "doubling of an odd character": {"normalizer": {**DOUBLING, "normalizers": [replace({"String": "ǂ"}, "ǂǂ")] * 30}},
    "growing by pattern": {"normalizer": {"type": "Sequence", "normalizers": [replace({"Regex": "."}, "xx")] * 30}},
    "slow pattern": {"pre_tokenizer": SLOW_SPLIT},
    "damaged charsmap": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA////"}},
    "template": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": AROUND,
            "pair": [*AROUND, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}},
        }
    },
    "repeated text": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 100_000,
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {},
        }
    },
    "missing unknown token": {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "[UNK]"}},
    "scores of a unigram": {"model": {"type": "Unigram", "unk_id": 7, "vocab": [["a", -1.0]]}},
    "merges of nothing": {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}},
    "unknown kind": {"pre_tokenizer": {"type": "Evil"}},
    "no object": {"model": 3},
    "ids as text": {"model": {"type": "WordPiece", "vocab": {"a": "b"}}},
}


@pytest.mark.parametrize("what", TOKENIZERS)
def test_a_tokenizer_that_hangs_grows_or_breaks_is_refused(
    folder: Path, what: str, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_TRIAL_SECONDS", "2")
    tokenizer_with(folder, **TOKENIZERS[what])
    refused(folder, "tokenizer")


def test_well_known_tokenizers_need_no_trial(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_TRIAL_BYTES", "1")  # every trial would fail
    load_tokenizer(folder)
    plain = json.loads((folder / "tokenizer.json").read_text())
    llama = [{"type": "Prepend", "prepend": "▁"}, replace({"String": " "}, "▁")]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    for changes in (
        {"normalizer": {"type": "Sequence", "normalizers": llama}, "pre_tokenizer": None},
        {"normalizer": {"type": "NFC"}, "pre_tokenizer": level, "post_processor": level, "decoder": level},
    ):
        assert is_plain({**plain, **changes})


def test_a_sound_tokenizer_of_uncommon_parts_is_tried_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    tokenizer_with(folder, normalizer=replace({"Regex": r"\s+"}, " "))
    load_tokenizer(folder)
    assert len(list((own_cache / "trials").iterdir())) == 1
    monkeypatch.setattr(subprocess, "run", None)
    load_tokenizer(folder)


def test_ids_beyond_the_embedding_are_said_before_training(folder: Path) -> None:
    edit(folder / "config.json", vocab_size=20)
    refused(folder, "no embedding", "ids below 20")


def test_very_many_added_tokens_are_refused(folder: Path) -> None:
    token = {
        "content": "x",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": False,
    }
    tokenizer_with(folder, added_tokens=[{**token, "id": number} for number in range(30_000)])
    refused(folder, "too many added tokens")


TEMPLATES = {
    "a long loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a long text": "{{ 'a' * 10**10 }}",
    "a long number": "{{ 10 ** (10 ** 9) }}",
    "doubling": "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "far more than was said": "{% for i in range(90000) %}{{ messages[0]['content'] }}{% endfor %}",
}


@pytest.mark.parametrize("what", TEMPLATES)
def test_a_chat_template_without_end_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_TRIAL_SECONDS", "2")
    edit(folder / "tokenizer_config.json", chat_template=TEMPLATES[what])
    refused(folder, "chat template failed on a trial text")


def test_a_sound_chat_template_is_tried_once(folder: Path, own_cache: Path) -> None:
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    assert load_tokenizer(folder).chat_template == template
    assert len(list((own_cache / "trials").iterdir())) == 1


CARDS = {
    "date": "license: mit\ndate: 2026-13-45\n",
    "number": f"license: mit\nyear: {'9' * 5000}\n",
    "depth": "license: mit\na: " + "[" * 5000 + "\n",
    "bomb": "a: &a [1, 1, 1, 1, 1, 1]\n"
    + "".join(f"b{n}: &b{n} [*{'a' if n == 0 else f'b{n - 1}'}]\n" for n in range(40)),
    "tag": "license: !!python/object/apply:os.system [touch it-ran]\n",
    "binary": "license: !!binary x\n",
    "key": "? {a: 1}\n: 2\n",
    "set": "license: !!set 3\n",
    "list": "- license\n",
    "breaks": "\n" * 100_000,
}


@pytest.mark.parametrize("what", CARDS)
def test_a_model_card_of_impossible_yaml_stops_nothing(folder: Path, what: str) -> None:
    (folder / "README.md").write_text(f"---\n{CARDS[what]}---\n# A model\n")
    assert open_backbone(str(folder), Path("/")).licence in (None, "mit")
    (folder / "README.md").write_text("---\nlicense: " + "x" * 10_000 + "\n---\n")
    assert len(open_backbone(str(folder), Path("/")).licence or "") == 100


def lying(path: Path, change: Callable[[str, bytes], bytes], kind: int = zipfile.ZIP_STORED) -> None:
    """Write an archive again with other content."""
    with zipfile.ZipFile(path) as old:
        records = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", kind) as new:
        for name, content in records.items():
            new.writestr(name, change(name, content))


def in_the_list(old: bytes, new: bytes) -> Callable[[str, bytes], bytes]:
    return lambda name, content: content.replace(old, new) if name.endswith(".pkl") else content


LISTS = b"\x80\x02" + b"]" * 200_000
OLD_FILES: dict[str, Callable[[Path, bool], None]] = {
    "stride 0": lambda f, z: torch.save({"a": torch.ones(1).expand(10**6, 10**6)}, f, _use_new_zipfile_serialization=z),
    "sparse": lambda f, z: torch.save({"a": torch.eye(3).to_sparse()}, f, _use_new_zipfile_serialization=z),
    "complex": lambda f, z: torch.save({"a": torch.ones(3) * 1j}, f, _use_new_zipfile_serialization=z),
    "names": lambda f, z: torch.save({3: torch.ones(3)}, f, _use_new_zipfile_serialization=z),
    "a list without end": lambda f, z: (
        (lying(f, lambda name, content: LISTS if name.endswith(".pkl") else content) if z else f.write_bytes(LISTS))
        and None
    ),
    "a storage that says more than it has": lambda f, z: (
        (
            lying(f, in_the_list(b"M\xe8\x03", b"J\x00\x00\x00\x40"))
            if z
            else f.write_bytes(f.read_bytes().replace(b"M\xe8\x03", b"J\x00\x00\x00\x40"))
        )
        and None
    ),
    "compressed": lambda f, z: lying(f, in_the_list(b"", b""), zipfile.ZIP_DEFLATED) if z else f.write_bytes(b"PK"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("what", OLD_FILES)
def test_an_older_file_of_weights_takes_no_more_than_it_holds(
    tmp_path: Path, what: str, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_WEIGHTS_PICKLE_BYTES", "100000")
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=zipped)
    assert torch.equal(read_old_weights(path)["a"], torch.ones(1000))
    OLD_FILES[what](path, zipped)
    with pytest.raises(ArtifactError, match=r"were not read|too large"):
        read_old_weights(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_tied_weights_of_an_older_file_are_read(tmp_path: Path, zipped: bool) -> None:
    one = torch.arange(12.0).reshape(3, 4)
    torch.save({"a": one, "b": one, "c": one[1:], "d": one.T}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = read_old_weights(tmp_path / "x.pt")
    assert torch.equal(found["c"], one[1:]) and torch.equal(found["d"], one.T) and torch.equal(found["b"], one)


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "tokenizer.json", "model.safetensors", "vocab.txt", "pytorch_model.bin"]
)
def test_a_pipe_in_a_model_folder_is_refused_and_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    refused(folder, "named pipe", name)


def test_files_and_lists_of_tensors_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_SAFETENSORS_HEADER_BYTES", "100")
    refused(folder, "list of tensors is too long")
    monkeypatch.setenv("TUNEWRIGHT_LIMIT_JSON_BYTES", "10")
    refused(folder, "too large", "json")


@pytest.mark.parametrize("value", [0, -1, -(10**9), 1.5, float("nan"), float("inf"), "x", [], {}, None, True, 10**30])
@pytest.mark.parametrize(
    "key",
    [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
        "max_position_embeddings",
        "hidden_act",
        "layer_norm_eps",
        "hidden_dropout_prob",
        "id2label",
        "model_type",
    ],
)
def test_no_value_of_a_configuration_ends_in_a_traceback(folder: Path, key: str, value: object) -> None:
    edit(folder / "config.json", **{key: value})
    try:
        open_all(folder)
    except UserError as error:
        assert error.exit_code == 2


def test_a_configuration_of_ten_thousands_of_keys_is_refused(folder: Path) -> None:
    edit(folder / "config.json", **{f"k{number}": number for number in range(20_000)})
    refused(folder, "config_keys", "config.json")
