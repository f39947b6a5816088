"""What a private model keeps of its training rows without noise: named on its card, or given as public and then nowhere."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console as RichConsole

from tunewright.console import Console, silent
from tunewright.data.prepare.prepare import prepare
from tunewright.errors import DataError, RecipeError, UserError
from tunewright.pipeline.build.prepare_data import prepare_data
from tunewright.recipe.loading import recipe_from_dict
from tunewright.recipe.schema import Data, Recipe
from tunewright.run_recipe import RunResult, run
from tunewright.tasks.base.public_statistics import held_by_one
from tunewright.tasks.base.targets import CATEGORY, NUMBER
from tunewright.tasks.recommendation.categorical_encoder import fit_fields
from tunewright.tasks.registry import get_task, task_defaults
from tunewright.tasks.table.encoder import fit_rows

ALONE = "Quetzaltenango"


def table(folder: Path) -> None:
    """120 rows; one person alone comes from one city, which is in the training split."""
    rows = [f"{n},{n % 7},{'Rome' if n % 2 else 'Oslo'},{'yes' if n % 7 > 3 else 'no'}" for n in range(120)]
    rows += [f"{n},{n % 7},{ALONE},yes" for n in range(120, 121)]
    (folder / "rows.csv").write_text("\n".join(["who,a,city,y", *rows]))


def recipe(**privacy: Any) -> dict[str, Any]:
    return {
        "name": "kept",
        "task": "tabular-classification",
        "data": {"source": "rows.csv", "target": "y", "input": ["a", "city"], "split": {"test": 0, "valid": 0}},
        "model": {"layers": [{"dense": 2}]},
        "train": {"epochs": 1, "batch_size": 20, "optimizer": "sgd", "lr": 0.5},
        "eval": {"resamples": 100},
        "hardware": {"threads": 1},
        "privacy": {"epsilon": 3, **privacy},
    }


PUBLIC: dict[str, Any] = {
    "a": {"mean": 3.0, "std": 2.0},
    "city": {"categories": ["Oslo", "Paris", "Rome"]},
    "y": {"categories": ["no", "yes"]},
}


def carry_out(given: dict[str, Any], base: Path) -> tuple[RunResult, str]:
    written = io.StringIO()
    found = run(given, base=base, runs=base / "runs", console=Console(rich=RichConsole(file=written, width=10_000)))
    return found, " ".join(written.getvalue().split())


def files_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_what_one_person_alone_has_is_named_on_the_card(tmp_path: Path) -> None:
    table(tmp_path)
    result, shown = carry_out(recipe(), tmp_path)
    stage = result.stages["pretrain"]
    assert ALONE.encode() in files_of(stage.folder / "model")  # so it has to be said
    card = (stage.folder / "model" / "README.md").read_text()
    page = (result.folder / "report.html").read_text()
    for place in (card, page.replace("&#x27;", "'"), shown):
        assert "column 'city': 3 categories, 1 of them in a single row" in place
        assert "column 'a': 2 numbers: mean and standard deviation" in place
        assert "column 'y': 2 classes" in place
    kept = stage.summary["privacy"]["statistics"]
    assert [(entry["column"], entry["kind"], entry["single"]) for entry in kept] == [
        ("a", "mean and deviation", 0),
        ("city", "categories", 1),
        ("y", "classes", 0),
    ]
    assert "privacy.public: {a: {mean: 0, std: 1}}" in shown
    assert shown.index("without noise") < shown.index("epoch 1/1")


def test_with_public_values_nothing_of_the_rows_is_in_the_model(tmp_path: Path) -> None:
    table(tmp_path)
    result, shown = carry_out(recipe(public=PUBLIC), tmp_path)
    stage = result.stages["pretrain"]
    assert ALONE.encode() not in files_of(stage.folder / "model")
    assert stage.summary["privacy"]["statistics"] == []
    assert "without noise" not in (stage.folder / "model" / "README.md").read_text()
    assert "1 training rows have values of 'city' outside its public categories" in shown
    config = json.loads((stage.folder / "model" / "config.json").read_text())
    number, city = config["preprocessor"]["inputs"]["features"]
    assert (number["mean"], number["std"], number["marked"]) == ([3.0], [2.0], False)
    assert city["categories"] == ["Oslo", "Paris", "Rome"] and config["preprocessor"]["target"]["classes"] == [
        "no",
        "yes",
    ]


def test_the_model_does_not_depend_on_the_rows_statistics(tmp_path: Path) -> None:
    """Of other rows with the same public values, the encoders are the same to the byte."""
    found: list[str] = []
    for name, rows in (("one", range(60)), ("two", range(30, 100))):
        folder = tmp_path / name
        folder.mkdir()
        lines = [f"{n},{n % 7},{'Rome' if n % 2 else 'Bern'},{'yes' if n % 7 > 3 else 'no'}" for n in rows]
        (folder / "rows.csv").write_text("\n".join(["who,a,city,y", *lines]))
        loaded = loaded_of(recipe(public=PUBLIC))
        prepared = prepare_data(loaded, folder, silent())
        target = CATEGORY.fit(prepared, loaded)
        found.append(json.dumps([fit_rows(prepared, loaded, None, None).to_json(), target.to_json()]))
    assert found[0] == found[1]


def loaded_of(given: dict[str, Any]) -> Recipe:
    return recipe_from_dict(given, [], defaults=task_defaults)


@pytest.mark.parametrize(
    ("public", "place", "fix"),
    [
        ({"cty": {"categories": ["x"]}}, "privacy.public.cty", "city"),
        ({"who": {"mean": 0, "std": 1}}, "privacy.public.who", "choose"),
        ({"city": {"mean": 0, "std": 1}}, "privacy.public.city", "categories"),
        ({"a": {"categories": ["1"]}}, "privacy.public.a", "mean"),
        ({"a": {"mean": 1}}, "privacy.public.a", "std"),
        ({"a": {"mean": [1, 2], "std": 1}}, "privacy.public.a.mean", "mean"),
        ({"city": {"categories": ["x", "x"]}}, "privacy.public.city.categories", "delete"),
        ({"y": {"mean": 0, "std": 1}}, "privacy.public.y", "categories"),
    ],
)
def test_public_values_that_do_not_fit(public: dict[str, Any], place: str, fix: str, tmp_path: Path) -> None:
    table(tmp_path)
    with pytest.raises(RecipeError) as caught:
        loaded = loaded_of(recipe(public=public))
        fit_rows(prepare_data(loaded, tmp_path, silent()), loaded, None, None)
    assert caught.value.place == place and fix in (caught.value.fix or "")


def test_what_the_schema_refuses_is_said_with_its_line(tmp_path: Path) -> None:
    from tunewright.recipe.loading import load_recipe

    path = tmp_path / "recipe.yaml"
    lines = ["task: tabular-classification", "data: {source: rows.csv}", "privacy:", "  epsilon: 3", "  public:"]
    path.write_text("\n".join([*lines, "    a: {mean: 0, std: -1}", ""]))
    with pytest.raises(UserError, match="line 6"):
        load_recipe(path, [], defaults=task_defaults)


def test_a_class_outside_the_public_ones_is_refused_before_training(tmp_path: Path) -> None:
    table(tmp_path)
    with pytest.raises(DataError, match="not one of the model's classes"):
        carry_out(recipe(public={**PUBLIC, "y": {"categories": ["no", "maybe"]}}), tmp_path)


def test_a_regression_takes_its_scale_from_public_values(tmp_path: Path) -> None:
    table(tmp_path)
    given = {**recipe(public={"a": {"mean": 2, "std": 4}}), "task": "tabular-regression"}
    given["data"] = {**given["data"], "target": "a", "input": ["city"]}
    loaded = loaded_of(given)
    target = NUMBER.fit(prepare_data(loaded, tmp_path, silent()), loaded)
    assert (target.mean, target.std) == (2.0, 4.0)


def test_fields_take_bins_and_categories_from_public_values(tmp_path: Path) -> None:
    table(tmp_path)
    public = {"a": {"edges": [2, 4]}, "city": {"categories": ["Rome", "Oslo"]}, "y": {"categories": ["no", "yes"]}}
    loaded = loaded_of({**recipe(public=public), "task": "click-prediction", "model": {"backbone": "logistic"}})
    prepared = prepare_data(loaded, tmp_path, silent())
    encoder = fit_fields(prepared, loaded, None, None)
    rows = pa.table({"a": [0, 2, 5], "city": ["Oslo", ALONE, "Rome"], "_row": [1, 2, 3]})
    assert encoder.encode(rows).tolist() == [[1, 2], [2, 0], [3, 1]]
    with pytest.raises(RecipeError, match="edges"):
        wrong = {**public, "a": {"mean": 0, "std": 1}}
        fit_fields(prepared, loaded_of({**recipe(public=wrong), "task": "click-prediction"}), None, None)


def test_each_encoder_names_what_it_was_fitted_to(tmp_path: Path) -> None:
    table(tmp_path)
    loaded = loaded_of({**recipe(), "task": "click-prediction", "model": {"backbone": "logistic"}})
    prepared = prepare_data(loaded, tmp_path, silent())
    kinds = [
        (entry.column, entry.kind, entry.single)
        for entry in fit_fields(prepared, loaded, None, None).statistics(prepared, None)
    ]
    assert kinds == [("a", "bin edges", 0), ("city", "categories", 1)]
    texts = [json.dumps({"text": f"the film number {n} was good", "y": "ab"[n % 2]}) for n in range(60)]
    (tmp_path / "texts.jsonl").write_text("\n".join(texts))
    given = {
        "task": "text-classification",
        "data": {"source": "texts.jsonl", "input": "text", "target": "y"},
        "model": {
            "backbone": {"bert": {"layers": 1, "width": 16, "heads": 1}},
            "tokenizer": {"wordpiece": {"vocabulary": 60}},
        },
    }
    loaded = loaded_of(given)
    prepared = prepare_data(loaded, tmp_path, silent())
    from tunewright.pipeline.stage import recipe_backbone

    task = get_task(loaded.task)
    encoder = task.inputs.fit(prepared, loaded, recipe_backbone(loaded, tmp_path), None)
    (found,) = encoder.statistics(prepared, None)
    assert (found.column, found.kind, found.count) == ("text", "vocabulary", len(encoder.tokenizer))  # pyright: ignore
    # One that comes with a model, or is given as public, was trained on nothing of these rows.
    encoder.write(tmp_path / "model")
    public = loaded_of({**given, "privacy": {"epsilon": 3, "public": {"text": {"tokenizer": "model"}}}})
    other = task.inputs.fit(prepare_data(public, tmp_path, silent()), public, recipe_backbone(public, tmp_path), None)
    assert other.statistics(prepared, None) == []
    wrong = loaded_of({**given, "privacy": {"epsilon": 3, "public": {"text": {"tokenizer": "nowhere"}}}})
    with pytest.raises(RecipeError, match="no tokenizer"):
        task.inputs.fit(prepared, wrong, recipe_backbone(wrong, tmp_path), None)
    assert task.inputs.load(encoder.to_json(), tmp_path / "model").statistics(prepared, None) == []


def test_a_recommender_keeps_its_rows_and_is_refused(tmp_path: Path) -> None:
    rows = [f"u{n % 12},i{n % 7}" for n in range(200)]
    (tmp_path / "rows.csv").write_text("\n".join(["user,item", *rows]))
    given = {
        "task": "item-recommendation",
        "data": {"source": "rows.csv"},
        "train": {"epochs": 1, "batch_size": 20},
        "privacy": {"epsilon": 3},
    }
    with pytest.raises(RecipeError, match="stores the interactions") as caught:
        run(given, base=tmp_path, runs=tmp_path / "runs", console=silent())
    assert caught.value.place == "privacy"


def test_values_that_one_row_or_one_user_has_are_counted(tmp_path: Path) -> None:
    lines = ["u1,Rome,x|y", "u1,Rome,x", "u2,Oslo,x", "u3,Oslo,", "u3,Bern,z"]
    (tmp_path / "rows.csv").write_text("\n".join(["user,city,tags", *lines * 1]))
    data = Data(source="rows.csv", target="tags", separator="|", split={"valid": 0, "test": 0})  # pyright: ignore
    prepared = prepare(data, seed=0, target_kind="labels", base=tmp_path)
    assert held_by_one(prepared, "city", ["Rome", "Oslo", "Bern"]) == 1
    assert held_by_one(prepared, "city", ["Rome", "Oslo"]) == 0
    assert held_by_one(prepared, "city", ["Rome", "Oslo", "Bern"], "user") == 2  # Rome is all one user's
    assert held_by_one(prepared, "tags", ["x", "y", "z"]) == 2
    assert held_by_one(prepared, "tags", ["x", "y", "z"], "user") == 2
    assert held_by_one(prepared, "city", []) == 0


def test_the_promise_about_rows_changes_nothing_of_the_prepared_data(tmp_path: Path) -> None:
    table(tmp_path)
    plain, promised = (
        loaded_of({**recipe(), "data": {**recipe()["data"], **more}}).data for more in ({}, {"disjoint": True})
    )
    prints = [
        prepare(data, seed=0, target_kind="category", base=tmp_path).manifest.fingerprint for data in (plain, promised)
    ]
    assert prints[0] == prints[1]
