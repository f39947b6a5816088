"""Pictures: as a backbone's processor wants them, kept as bytes, changed by (seed, epoch, example), from any source."""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

import tunewright
from tunewright.console import silent
from tunewright.data.batches.batch import Batch
from tunewright.data.batches.sampler import Batches, in_order
from tunewright.data.image.augmentation import AUGMENTATIONS, build_augmentation
from tunewright.data.image.image_examples import PictureExamples, Scaling
from tunewright.data.image.randaugment import CHANGES
from tunewright.data.image.resize_crop import Framing
from tunewright.data.prepare.prepare import prepare
from tunewright.data.prepared import Prepared, column_array
from tunewright.errors import ArtifactError, DataError, RecipeError
from tunewright.files import sha256_file
from tunewright.models.build import build_network, describe_model
from tunewright.models.core.safe_weights import write_weights
from tunewright.models.families import load_backbone_weights
from tunewright.models.saved_model import load_network
from tunewright.models.vision.efficientnet import published_names
from tunewright.recipe.schema import Data, Model, Split
from tunewright.run_recipe import run
from tunewright.runs.folder import read_json
from tunewright.tasks.image.processor import read_framing, read_scaling, resized
from tunewright.training.objectives.supervised import SupervisedLoss, cross_entropy

SIZES = [(31, 47), (60, 40), (33, 33), (20, 90)]


def photo(height: int, width: int, *, grey: bool = False, seed: int = 0) -> Image.Image:
    """A smooth picture with some noise."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(x / (3 + k) + y / (5 - k) + k + seed) for k in range(1 if grey else 3)]
    pixels = np.clip(np.stack(waves, 2) + draw.normal(0, 20, (height, width, len(waves))), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels[:, :, 0] if grey else pixels)


MEANS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PROCESSORS: list[tuple[str, str, dict[str, Any]]] = [
    ("vit", "ViT", {"size": {"height": 24, "width": 28}, "resample": 2}),
    ("vit", "ViT", {"size": 24, "resample": 3, **MEANS}),
    ("vit", "ViT", {"size": {"height": 24, "width": 24}, "do_normalize": False}),
    ("convnext", "ConvNext", {"size": {"shortest_edge": 24}, "crop_pct": 0.875, "resample": 3, **MEANS}),
    ("convnext", "ConvNext", {"size": {"shortest_edge": 24}, "crop_pct": 0.95, "resample": 2, **MEANS}),
    ("convnext", "ConvNext", {"size": {"shortest_edge": 384}, "resample": 3, **MEANS}),
    ("bit", "Bit", {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}, "do_center_crop": True}),
    ("clip", "CLIP", {"size": 28, "crop_size": 25, "do_center_crop": True, "resample": 3, **MEANS}),
    ("deit", "DeiT", {"size": {"height": 28, "width": 28}, "crop_size": {"height": 24, "width": 24}, "do_center_crop": True}),
    ("mobilenet_v2", "MobileNetV2", {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}, "do_center_crop": True}),
    ("mobilevit", "MobileViT", {"size": {"shortest_edge": 24}, "crop_size": {"height": 28, "width": 27}, "do_center_crop": True, "do_flip_channel_order": True, "do_normalize": False}),
    ("efficientnet", "EfficientNet", {"size": {"height": 24, "width": 24}, "resample": 0, "rescale_offset": True, "rescale_factor": 1 / 127.5, "include_top": True, **MEANS}),
    ("levit", "Levit", {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}, "do_center_crop": True, **MEANS}),
    ("poolformer", "PoolFormer", {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}, "do_center_crop": True, "crop_pct": 0.9, **MEANS}),
]  # fmt: skip


def ours(config: dict[str, Any], image: Image.Image) -> Tensor:
    """A picture as the network gets it."""
    path = Path("preprocessor_config.json")
    framed = torch.from_numpy(read_framing(config, path).picture(image).copy())[None].permute(0, 3, 1, 2).float() / 255
    return read_scaling(config, 3, path)(framed)[0]


@pytest.mark.parametrize(("module", "kind", "given"), PROCESSORS, ids=lambda value: str(value)[:60])
def test_the_numbers_are_those_of_the_librarys_processor(module: str, kind: str, given: dict[str, Any]) -> None:
    pil = importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    processor = getattr(pil, f"{kind}ImageProcessorPil")(**given)
    config = {key: value for key, value in processor.to_dict().items() if value is not None}
    config |= {"image_processor_type": f"{kind}ImageProcessor", "size": given["size"]}
    for size in SIZES:
        image = photo(*size)
        expected = torch.as_tensor(np.array(processor(image)["pixel_values"][0]))
        found = ours(config, image)
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected.float(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_pictures_that_were_stored_unframed_are_framed_alike(channels: int) -> None:
    framing = Framing(size=(24, 22), scale_to=25, filter="bicubic")
    for size in SIZES:
        pixels = np.stack([np.asarray(photo(*size, seed=seed))[:, :, :channels] for seed in range(3)])
        batch = framing.batch(pixels)
        assert batch.shape == (3, 24, 22, channels)
        for index, layer in ((i, c) for i in range(3) for c in range(channels)):
            single = framing.picture(Image.fromarray(np.ascontiguousarray(pixels[index, :, :, layer])))
            assert np.array_equal(batch[index, :, :, layer], single[:, :, 0])
    examples = PictureExamples(
        stored=torch.from_numpy(pixels),
        target=None,
        rows=torch.arange(3),
        framing=framing,
        channels=channels,
        scaling=Scaling(),
    )
    found = examples.to(torch.device("cpu")).batch(torch.tensor([2, 0])).pixels
    assert torch.equal(found, torch.from_numpy(batch[[2, 0]]).permute(0, 3, 1, 2).float() / 255)


@pytest.mark.parametrize(
    ("config", "size", "scale_to"),
    [
        ({"size": {"height": 224, "width": 224}}, (96, 64), (96, 64)),
        ({"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True}, (112, 112), 128),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875, "image_processor_type": "ConvNextImageProcessor"}, (64, 64), 73),
        ({"size": {"shortest_edge": 384}, "image_processor_type": "ConvNextImageProcessor"}, (64, 64), 73),
    ],
)  # fmt: skip
def test_another_size_in_the_backbones_own_way(config: dict[str, Any], size: tuple[int, int], scale_to: Any) -> None:
    changed = read_framing(resized(config, size, Path("x")), Path("x"))
    assert changed.size == size and changed.scale_to == scale_to


def test_what_a_processor_does_that_we_cannot_is_refused() -> None:
    for config in ({"do_pad": True}, {"resample": 9}, {"size": {"longest_edge": 9}}, {"do_resize": False}):
        with pytest.raises(ArtifactError, match="not supported"):
            read_framing(config, Path("x"))
    with pytest.raises(ArtifactError, match="do not fit"):
        read_scaling({"image_mean": [0.5], "image_std": [0.5]}, 3, Path("x"))
    with pytest.raises(RecipeError, match="square images"):
        resized({"size": {"shortest_edge": 224}, "image_processor_type": "ConvNextImageProcessor"}, (20, 30), Path("x"))


# Augmentation


def pictures(count: int = 12, channels: int = 3, **given: Any) -> PictureExamples:
    draw = torch.Generator().manual_seed(0)
    return PictureExamples(
        stored=torch.randint(0, 256, (count, 17, 15, channels), generator=draw, dtype=torch.uint8),
        target=torch.arange(count) % 3,
        rows=torch.arange(count) + 1,
        framing=None,
        channels=channels,
        scaling=Scaling(),
        **given,
    )


EVERY: list[Any] = [*AUGMENTATIONS, {"flip": {"chance": 0.5, "vertical": True}}, {"randaugment": {"n": 3, "m": 10}}]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("step", EVERY, ids=str)
def test_a_change_depends_on_seed_epoch_and_example_alone(step: Any, channels: int) -> None:
    examples = pictures(channels=channels, augmentation=build_augmentation([step], seed=5, classes=3))
    together = examples.batch(torch.arange(12), 2)
    order = torch.tensor([7, 3, 11, 0, 8])
    apart = examples.batch(order, 2)
    assert torch.equal(apart.pixels, together.pixels[order])
    assert apart.target is not None and together.target is not None
    assert torch.equal(apart.target, together.target[order])
    for number in order.tolist():
        assert torch.equal(examples.batch(torch.tensor([number]), 2).pixels[0], together.pixels[number])
    assert not torch.equal(examples.batch(torch.arange(12), 3).pixels, together.pixels)
    other = pictures(channels=channels, augmentation=build_augmentation([step], seed=6, classes=3))
    assert not torch.equal(other.batch(torch.arange(12), 2).pixels, together.pixels)
    assert together.pixels.shape == (12, channels, 17, 15) and torch.isfinite(together.pixels).all()
    assert together.pixels.min() >= 0 and together.pixels.max() <= 1
    # Without an epoch, as in validation and test, nothing is changed.
    plain = examples.batch(order)
    assert torch.equal(plain.pixels, pictures(channels=channels).batch(order, 2).pixels)
    assert torch.equal(examples.images(order), plain.pixels) and plain.target is not None and plain.target.dim() == 1


def test_only_changed_examples_say_that_they_are() -> None:
    assert not pictures().augmented
    assert pictures(augmentation=build_augmentation(["flip"], seed=0, classes=3)).augmented
    assert build_augmentation([], seed=0, classes=3) is None


def test_flips_crops_and_parts_are_what_they_should_be() -> None:
    examples = pictures(200)
    ids = torch.arange(200)
    plain = examples.batch(ids).pixels

    def changed(step: Any) -> Tensor:
        return pictures(200, augmentation=build_augmentation([step], seed=0, classes=3)).batch(ids, 0).pixels

    flipped = changed("flip")
    mirrored = torch.tensor([torch.equal(a, b.flip(2)) for a, b in zip(flipped, plain)])
    same = torch.tensor([torch.equal(a, b) for a, b in zip(flipped, plain)])
    assert (mirrored ^ same).all() and 70 <= int(mirrored.sum()) <= 130
    padded = torch.nn.functional.pad(plain, (2, 2, 2, 2))
    parts = [[padded[:, :, y : y + 17, x : x + 15] for x in range(5)] for y in range(5)]
    where = torch.tensor(
        [next((y * 5 + x for y in range(5) for x in range(5) if torch.equal(parts[y][x][i], picture)), -1)
         for i, picture in enumerate(changed({"crop": 2}))]
    )  # fmt: skip
    assert (where >= 0).all() and len(where.unique()) == 25
    torch.testing.assert_close(changed({"resized_crop": {"scale": 1, "ratio": 1}}), plain, rtol=0, atol=1e-5)
    still = changed({"color": {"brightness": 0, "contrast": 0, "saturation": 0}})
    torch.testing.assert_close(still, plain, rtol=0, atol=1e-6)


def test_randaugments_changes_are_pillows() -> None:
    from PIL import ImageEnhance, ImageOps

    image = photo(24, 24)
    tensor = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255
    plus = np.ones(1)
    for name, expected, tolerance in (
        ("identity", image, 0),
        ("autocontrast", ImageOps.autocontrast(image), 1),
        ("equalize", ImageOps.equalize(image), 0),
        ("solarize", ImageOps.solarize(image, 128), 0),
        ("posterize", ImageOps.posterize(image, 6), 0),
        ("brightness", ImageEnhance.Brightness(image).enhance(1.45), 1),
        ("contrast", ImageEnhance.Contrast(image).enhance(1.45), 1),
        ("color", ImageEnhance.Color(image).enhance(1.45), 1),
        ("sharpness", ImageEnhance.Sharpness(image).enhance(1.45), 2),
    ):
        found = (CHANGES[name](tensor, 0.5, plus)[0] * 255).round().permute(1, 2, 0).numpy().astype(int)
        assert np.abs(found - np.asarray(expected).astype(int)).max() <= tolerance, name
    turned = image.rotate(15, Image.Resampling.BILINEAR)
    found = (CHANGES["rotate"](tensor, 0.5, plus)[0] * 255).permute(1, 2, 0).numpy()
    wrong = (CHANGES["rotate"](tensor, 0.5, -plus)[0] * 255).permute(1, 2, 0).numpy()
    errors = [np.abs(value - np.asarray(turned).astype(float))[6:-6, 6:-6].mean() for value in (found, wrong)]
    assert min(errors) < 2 < max(errors)
    # Twelve pixels of a half: a shift of 0.45 · 24 / 2 is 5.4 pixels.
    shifted = CHANGES["translate_x"](torch.ones(1, 1, 4, 24), 0.5, plus)[0, 0, 0]
    assert int((shifted > 0.5).sum()) == 24 - 5


@pytest.mark.parametrize("step", ["mixup", "cutmix"])
def test_mixed_pictures_have_mixed_targets(step: str) -> None:
    augmentation = build_augmentation([{step: {"alpha": 1.0}}], seed=1, classes=3)
    assert augmentation is not None
    examples = pictures(60, augmentation=augmentation)
    ids = torch.arange(60)
    batch, plain = examples.batch(ids, 0), examples.batch(ids)
    assert batch.target is not None and batch.target.shape == (60, 3)
    torch.testing.assert_close(batch.target.sum(1), torch.ones(60))
    partners = augmentation.partners(augmentation.draw(ids, 0, torch.device("cpu")), 60)
    others = examples.batch(partners)
    assert plain.target is not None and others.target is not None
    for index in range(60):
        own, other = int(plain.target[index]), int(others.target[index])
        if own == other:
            assert batch.target[index, own] == 1
            continue
        share = float(batch.target[index, own])
        if step == "mixup":
            expected = share * plain.pixels[index] + (1 - share) * others.pixels[index]
            torch.testing.assert_close(batch.pixels[index], expected)
        else:
            from_other = (batch.pixels[index] == others.pixels[index]).all(0)
            from_own = (batch.pixels[index] == plain.pixels[index]).all(0)
            assert (from_other | from_own).all()
            assert abs(float(from_own.float().mean()) - share) < 0.02
    shares = batch.target.max(1).values
    assert len(shares.unique()) > 20
    both = build_augmentation(["mixup", "cutmix"], seed=1, classes=3)
    assert both is not None and pictures(60, augmentation=both).batch(ids, 0).pixels.shape == plain.pixels.shape


def test_the_loss_of_soft_targets_is_the_mixed_loss() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    first, second, share = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 1, 0, 2]), torch.tensor([0.7, 0.2, 1.0, 0.5])
    soft = torch.zeros(4, 3).scatter_add_(1, first[:, None], share[:, None])
    soft = soft.scatter_add_(1, second[:, None], 1 - share[:, None])
    for weights, smoothing in ((None, 0.0), (torch.tensor([1.0, 2.0, 0.5]), 0.0), (None, 0.1)):
        parts = [
            part * cross_entropy(logits[i : i + 1], label[i : i + 1], weights, smoothing)
            for i in range(4)
            for part, label in ((share[i], first), (1 - share[i], second))
        ]
        torch.testing.assert_close(cross_entropy(logits, soft, weights, smoothing), torch.stack(parts).sum())


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (["flipp"], "did you mean flip?"),
        ([{"crop": 0}], "greater than 0"),
        ([{"crop": {"pading": 3}}], "did you mean padding?"),
        ([{"mixup": "much"}], "number"),
        ([{"flip": 0.5, "crop": 4}], "one name"),
        ([{"randaugment": {"m": 30}}], "less than or equal"),
    ],
)
def test_a_wrong_augmentation_is_named(steps: list[Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build_augmentation(steps, seed=0, classes=3)
    assert said in caught.value.message and "train.augment" in caught.value.message


@pytest.mark.parametrize(
    ("task", "source", "train", "said"),
    [
        ("tabular-classification", "wine", {"augment": ["flip"]}, "nothing that could be changed"),
        ("image-classification", "digits", {"augment": ["mixup"], "objective": "masked"}, "cross_entropy"),
    ],
)
def test_augmentation_where_it_has_no_place(tmp_path: Path, task: str, source: str, train: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        carry_out(tmp_path, {"task": task, "data": {"source": source}, "train": {"epochs": 1, **train}})


def test_batches_are_made_from_bytes() -> None:
    examples = pictures(30)
    assert examples.stored.dtype == torch.uint8
    seen = torch.cat(
        [batch.ids for step in Batches(examples=examples, batch_size=7, seed=0).steps(0) for batch in step]
    )
    assert sorted(seen.tolist()) == list(range(30))
    grey = torch.cat([batch.pixels for batch in in_order(pictures(5, channels=1), 2)])
    assert grey.shape == (5, 1, 17, 15) and grey.dtype == torch.float32


# Sources


def prepared(path: Path, framing: Framing | None = None, **given: Any) -> Prepared:
    data = Data(source=str(path), split=Split(valid=0.2, test=0.2), **given)
    return prepare(data, seed=0, target_kind="category", base=path.parent, framing=framing)


def folder_of_photos(folder: Path, count: int = 12, *, grey: bool = False) -> Path:
    """Pictures of two classes in four sizes: one class is brighter."""
    for index in range(count):
        kind = ("dark", "light")[index % 2]
        (folder / kind).mkdir(parents=True, exist_ok=True)
        image = photo(*SIZES[index // 2 % 4], grey=grey, seed=index).point(
            lambda v, k=kind: v // 2 + 120 * (k == "light")
        )
        image.save(folder / kind / f"{index:03}.png")
    return folder


def test_pictures_of_different_sizes_are_framed_as_the_processor_does(tmp_path: Path) -> None:
    folder = folder_of_photos(tmp_path / "photos")
    with pytest.raises(DataError, match="4 different sizes"):
        prepared(folder)
    config = {"size": {"shortest_edge": 28}, "crop_size": 24, "do_center_crop": True, **MEANS}
    framing = read_framing(config, tmp_path)
    found = prepared(folder, framing)
    column = found.manifest.column("image")
    assert column.shape == (24, 24, 3) and column.framed
    files = sorted(folder.rglob("*.png"))
    for split in found.manifest.splits:
        table = found.table(split)
        for row, pixels in zip(table["_row"].to_pylist(), column_array(table, column)):
            with Image.open(files[row - 1]) as image:
                assert np.array_equal(pixels, framing.picture(image))


def test_broken_pictures_are_counted_and_named(tmp_path: Path) -> None:
    folder = folder_of_photos(tmp_path / "photos", 20)
    (folder / "dark" / "000.png").write_bytes(b"not a picture")
    content = (folder / "light" / "001.png").read_bytes()
    (folder / "light" / "001.png").write_bytes(content[: len(content) // 2])
    found = prepared(folder, Framing(size=(8, 8), scale_to=8))
    (left,) = found.manifest.skipped
    assert (left.count, found.manifest.used, found.manifest.read) == (2, 18, 20)
    assert "000.png" in left.examples[0] and "001.png" in left.examples[1]


def test_a_photo_is_turned_as_its_camera_noted(tmp_path: Path) -> None:
    folder = folder_of_photos(tmp_path / "photos", 20)
    for file in folder.rglob("*.png"):
        file.unlink()
    turned = Image.Exif()
    turned[0x0112] = 6
    for index in range(20):
        image = Image.new("L", (30, 10), 200)
        image.paste(0, (0, 0, 15, 10))  # dark at the left; a quarter turn to the right puts it on top
        image.save(folder / ("dark", "light")[index % 2] / f"{index}.jpg", exif=turned)
    found = prepared(folder)
    column = found.manifest.column("image")
    assert column.shape == (30, 10, 1)
    pixels = column_array(found.table("train"), column)
    assert pixels[:, :12].max() < 60 and pixels[:, 18:].min() > 150


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["struct", "binary"])
def test_pictures_in_parquet(tmp_path: Path, form: str) -> None:
    content: list[bytes | None] = [png(photo(10, 12, seed=index)) for index in range(40)]
    content[5], content[9] = b"broken", None
    labels = [index % 2 for index in range(40)]
    if form == "struct":
        cells = pa.array([{"bytes": value, "path": None} for value in content])
        features = {"picture": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
        facts = {"huggingface": json.dumps({"info": {"features": features}})}
    else:
        cells, facts = pa.array(content, pa.binary()), {}
    table = pa.table({"picture": cells, "label": pa.array(labels)}).replace_schema_metadata(facts)
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=7)
    found = prepared(tmp_path / "t.parquet")
    assert found.manifest.classes == (["cat", "dog"] if form == "struct" else ["0", "1"])
    assert found.manifest.column("picture").shape == (10, 12, 3) and found.manifest.input == ["picture"]
    (left,) = found.manifest.skipped
    assert left.count == 2 and left.examples[0].startswith("row 6") and left.examples[1].startswith("row 10")
    train = found.table("train")
    pixels = column_array(train, found.manifest.column("picture"))
    for row, one in zip(train["_row"].to_pylist(), pixels):
        assert np.array_equal(one, np.asarray(photo(10, 12, seed=row - 1)))


def test_a_parquet_column_of_other_bytes_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([b"a", b"b"]), "label": ["a", "b"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="pictures can be read"):
        prepared(tmp_path / "t.parquet")


# Pretrained backbones


def tiny_resnet(folder: Path, *, processor: bool = True) -> Path:
    """A ResNet of random weights in the hub's format."""
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic", num_labels=5)
    ResNetForImageClassification(config).save_pretrained(folder)
    if processor:
        given = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 24}, "crop_pct": 0.875}
        (folder / "preprocessor_config.json").write_text(json.dumps({**given, "resample": 3, **MEANS}))
    return folder


def tiny_vit(folder: Path) -> Path:
    """A ViT of random weights for 16 × 16 pixels."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4
    )
    ViTForImageClassification(config).save_pretrained(folder)
    return folder


def carry_out(tmp_path: Path, recipe: dict[str, Any]) -> Any:
    return run({"eval": {"resamples": 100}, **recipe}, runs=tmp_path / "runs", console=silent(), base=tmp_path)


def test_a_pretrained_resnet_on_photos_of_all_sizes(tmp_path: Path) -> None:
    tiny_resnet(tmp_path / "resnet")
    folder = folder_of_photos(tmp_path / "photos", 60, grey=True)
    result = carry_out(
        tmp_path,
        {
            "task": "image-classification",
            "data": {"source": "photos", "split": {"valid": 0.2, "test": 0.2}},
            "model": {"backbone": "resnet"},
            "tune": {"freeze": "backbone"},
            "train": {"epochs": 2, "augment": ["flip", {"mixup": 0.2}], "lr": 0.01},
            "stages": ["finetune"],
        },
    )
    stage = result.stages["finetune"]
    certificate = stage.summary["certificate"]
    assert (
        certificate["passed"] and certificate["frozen"] and all(entry["identical"] for entry in certificate["frozen"])
    )
    saved = load_network(stage.folder / "model").network.state_dict()
    before = load_file_of(tmp_path / "resnet")
    statistics = [name for name in saved if "running_" in name or "num_batches" in name]
    assert len(statistics) > 9
    for name in statistics:
        assert torch.equal(saved[name], before[name.removeprefix("model.")]), name
    # The library opens it, with its own processor, and gives the same.
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(stage.folder / "model")
    processor = AutoImageProcessor.from_pretrained(stage.folder / "model")
    file = folder / "light" / "001.png"
    with Image.open(file) as image, torch.no_grad():
        inputs = processor(image.convert("RGB"), return_tensors="pt")
        chances = model(**inputs).logits.softmax(1)[0]
    (found,) = tunewright.predict(stage.folder / "model", file)
    assert model.config.id2label == {0: "dark", 1: "light"}
    assert found["probabilities"]["light"] == pytest.approx(float(chances[1]), abs=1e-5)
    everywhere = tunewright.predict(stage.folder / "model", folder)
    assert len(everywhere) == 60


def load_file_of(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_grey_digits_become_what_the_backbone_reads(tmp_path: Path) -> None:
    tiny_vit(tmp_path / "vit")
    said: list[str] = []
    console = silent()
    console.warning = said.append  # type: ignore[method-assign]
    recipe = {
        "task": "image-classification",
        "data": {"source": "digits", "limit": 200},
        "model": {"backbone": "vit"},
        "train": {"epochs": 1},
        "eval": {"resamples": 100},
        "stages": ["finetune"],
    }
    result = run(recipe, runs=tmp_path / "runs", console=console, base=tmp_path)
    assert any("preprocessor_config.json" in line and "ImageNet" in line for line in said)
    folder = result.stages["finetune"].folder / "model"
    assert read_json(folder / "preprocessor_config.json", "")["size"] == {"height": 16, "width": 16}
    assert read_json(folder / "tunewright.json", "")["network"]["input_shape"] == [3, 16, 16]
    with pytest.raises(RecipeError, match="does not read pictures of this size"):
        carry_out(tmp_path, {**recipe, "data": {"source": "digits", "limit": 200, "resize": [20, 20]}})


KILLED = {
    "name": "killed",
    "task": "image-classification",
    "data": {"source": "digits", "limit": 300, "split": {"valid": 0.1, "test": 0.1}},
    "model": {"layers": [{"conv2d": 4}, "batch_norm", "relu", "flatten", {"dense": "auto"}]},
    "train": {
        "epochs": 3,
        "augment": ["flip", {"crop": 1}, "resized_crop", "color", "randaugment", "mixup", "cutmix"],
        "checkpoint_steps": 2,
    },
    "eval": {"resamples": 100},
    "hardware": {"threads": 1},
}


def test_a_killed_run_with_augmentation_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(KILLED, runs=tmp_path / "whole", console=silent())
    torch.set_num_threads(1)
    child = os.fork()
    if not child:
        try:
            real, calls = PictureExamples.batch, iter(range(1000))

            def deadly(self: PictureExamples, ids: Tensor, epoch: int | None = None) -> Any:
                if next(calls) == 15:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(self, ids, epoch)

            monkeypatch.setattr(PictureExamples, "batch", deadly)
            run(KILLED, runs=tmp_path / "killed", console=silent())
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert list((tmp_path / "killed").rglob("step-*"))
    again = run(KILLED, runs=tmp_path / "killed", console=silent())
    files = [sha256_file(r.stages["pretrain"].folder / "model" / "model.safetensors") for r in (whole, again)]
    assert files[0] == files[1] and "resuming" in (again.folder / "log.txt").read_text()


# EfficientNet


def efficientnet(outputs: int = 1000) -> Any:
    return describe_model(
        Model(backbone="efficientnet-lite0", weights="random"), input_shape=(3, 64, 64), outputs=outputs
    )


def test_efficientnets_blocks_and_parameters() -> None:
    with torch.device("meta"):
        network = build_network(efficientnet(), seed=0)
    # The authors' lite0: 4,652,008 parameters.
    assert sum(value.numel() for value in network.parameters()) == 4_652_008
    backbone = [block for block in network.blocks() if block.part == "backbone"]
    assert [block.name for block in backbone][:3] == ["stem", "stage1_block1", "stage2_block1"]
    assert len(backbone) == 19 and backbone[-1].name == "pool"


def published(network: torch.nn.Module) -> dict[str, str]:
    """The name that the published weights have for each of our tensors."""
    blocks = [name for name, _ in network.backbone.named_children()][1:17]
    found: dict[str, str] = {}
    for name in network.state_dict():
        part, block, *rest = name.split(".")
        ours = ".".join(rest[:-1])
        if part == "head":
            found[name] = f"_fc.{rest[-1]}"
        elif block == "stem":
            found[name] = {"conv": "_conv_stem", "norm": "_bn0"}[ours] + f".{rest[-1]}"
        elif block == "top":
            found[name] = {"conv": "_conv_head", "norm": "_bn1"}[ours] + f".{rest[-1]}"
        else:
            theirs = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1"), "project": ("_project_conv", "_bn2")}  # fmt: skip
            found[name] = f"_blocks.{blocks.index(block)}.{theirs[rest[0]][rest[1] == 'norm']}.{rest[-1]}"
    return found


def test_efficientnets_published_names_are_all_accounted_for(tmp_path: Path) -> None:
    network = build_network(efficientnet(), seed=0)
    theirs = published(network)
    assert len(theirs) == 296
    other = {theirs[name]: torch.randn_like(value.float()) for name, value in network.state_dict().items()}
    names = published_names(other)
    assert {theirs[ours]: ours for ours in network.state_dict()} == names
    with pytest.raises(KeyError):
        published_names({"_blocks.0._se_reduce.weight": torch.zeros(1)})
    # The backbone gets the weights, the head stays as it is.
    tensors = {names[name]: value for name, value in other.items()}
    tensors = {n: v.long() if "num_batches" in n else v for n, v in tensors.items()}
    write_weights(tmp_path / "model.safetensors", tensors)
    small = build_network(efficientnet(4), seed=0)
    head = small.head[0].weight.detach().clone()  # type: ignore[union-attr]
    load_backbone_weights(small, tmp_path)
    state = small.state_dict()
    assert all(torch.equal(state[n], v) for n, v in tensors.items() if n.startswith("backbone"))
    assert torch.equal(small.head[0].weight, head)  # type: ignore[union-attr]
    del tensors["backbone.top.norm.bias"]
    write_weights(tmp_path / "model.safetensors", tensors)
    with pytest.raises(ArtifactError, match="do not fit"):
        load_backbone_weights(small, tmp_path)


def test_efficientnets_padding_is_tensorflows() -> None:
    """Of an even size, stride 2 and kernel 3, the odd pixel of padding is at the right: output i reads 2i … 2i + 2."""
    from tunewright.models.vision.efficientnet import ConvNorm

    unit = ConvNorm(1, 1, 3, 2, active=False).eval()
    torch.nn.init.ones_(unit.conv.weight)
    row = torch.zeros(1, 1, 6, 6)
    row[0, 0, 0] = torch.tensor([1.0, 10, 100, 1000, 10000, 100000])
    scale = (1 + 1e-3) ** -0.5
    assert torch.allclose(unit(row)[0, 0, 0], torch.tensor([111.0, 11100, 110000]) * scale)


def test_weights_that_are_not_to_be_had(tmp_path: Path) -> None:
    recipe = {"task": "image-classification", "data": {"source": "digits"}}
    with pytest.raises(RecipeError, match="no pretrained weights for resnet20"):
        carry_out(tmp_path, {**recipe, "model": {"backbone": "resnet20", "weights": "pretrained"}})
    with pytest.raises(RecipeError, match="takes no options"):
        carry_out(tmp_path, {**recipe, "model": {"backbone": {"efficientnet-lite0": {"width": 2}}}})


@pytest.mark.slow
def test_the_published_efficientnet_knows_a_palace_and_a_daisy(tmp_path: Path) -> None:
    from sklearn.datasets import load_sample_images

    from tunewright.models.hub.catalog import catalog_folder
    from tunewright.models.saved_model import load_weights, read_tensors

    folder = catalog_folder("efficientnet-lite0")
    network = build_network({**efficientnet(), "input_shape": [3, 224, 224]}, seed=0).eval()
    load_weights(network, read_tensors(folder / "model.safetensors"), folder)
    config = read_json(folder / "preprocessor_config.json", "")
    china, flower = (Image.fromarray(pixels) for pixels in load_sample_images().images)
    with torch.no_grad():
        chances = network(torch.stack([ours(config, china), ours(config, flower)])).softmax(1)
    # ImageNet's classes 698, "palace", and 985, "daisy".
    assert chances.argmax(1).tolist() == [698, 985] and chances.max(1).values.min() > 0.25


@pytest.mark.slow
def test_efficientnet_learns_digits(tmp_path: Path) -> None:
    result = carry_out(
        tmp_path,
        {
            "task": "image-classification",
            "data": {"source": "mnist", "limit": 500, "resize": [64, 64], "split": {"valid": 0}},
            "model": {"backbone": "efficientnet-lite0"},
            "tune": {"freeze": "backbone"},
            "train": {"epochs": 20},
            "stages": ["finetune"],
        },
    )
    summary = result.stages["finetune"].summary
    assert summary["certificate"]["passed"]
    assert summary["evaluation"]["metrics"]["accuracy"]["value"] > 0.75


def test_class_weights_of_mixed_examples() -> None:
    bound = SupervisedLoss(
        name="cross_entropy", formula=cross_entropy, outputs=(2,), class_weights=torch.tensor([3.0, 1.0])
    )
    soft = Batch(torch.zeros(2, 1), torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.arange(2))
    assert bound.weight(soft) == pytest.approx(0.5 * 3 + 0.5 + 1)
