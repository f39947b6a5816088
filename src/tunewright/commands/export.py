"""Run `tunewright export MODEL`: export a model to another format, and verify that it is still the same model.

Each file is opened by the library that is meant to open it, and compared with the model on real rows: the largest
and mean difference of an output, the metric before and after, size and time. The result is in export.json next to the file. A difference
above the tolerance is a failed run, and no file is written.
"""

from __future__ import annotations

import copy
import os
import shutil
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from tunewright.checksums import folder_hash
from tunewright.console import Console
from tunewright.data.manifest import Rejects
from tunewright.errors import ArtifactError, DataError, RecipeError, RunFailed, UserError
from tunewright.evaluation.metrics import METRICS
from tunewright.files import put_in_place, sweep, write_json
from tunewright.inference.model import skipped_lines
from tunewright.inference.read_input import read_input
from tunewright.models.core.network import Network
from tunewright.models.exchange.gguf_file import ORIGIN, read_gguf, write_gguf
from tunewright.models.exchange.keras_file import applied, write_keras
from tunewright.models.fast_dropout import QuickDropout
from tunewright.models.hub.hf_files import without_adapter
from tunewright.models.hub.hf_network import library_network
from tunewright.models.language.gpt import is_plain
from tunewright.models.speech.onnx_gru import translations
from tunewright.pipeline.results.provenance import provenance
from tunewright.pipeline.stage import load_origin
from tunewright.tasks.base.export_case import Free, Graph, Named, Trial
from tunewright.tasks.base.task import Preprocessor

Form = Literal["onnx", "int8", "torch", "gguf", "keras"]
FILES: dict[str, str] = {
    "onnx": "model.onnx",
    "int8": "model.int8.onnx",
    "torch": "model.pt2",
    "gguf": "model.gguf",
    "keras": "model.keras",
}
# The formats that may be several graphs, each with a file of its own.
GRAPHS = ("onnx", "int8")
# Rows of the verification, and its batch size.
TRIED, AT_ONCE = 256, 8
# Passes whose median is the latency.
PASSES = 20
# The tolerance of an output in float32, and the loss of a metric above which int8 is flagged: one point.
TOLERANCE, POINT = 1e-4, 0.01


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Report an exported file, and how it differs from the model."""

    form: str
    file: str
    model_sha256: str | None
    """The hash of the model's folder, from its checksums.json; None: it has none."""
    inputs: dict[str, dict[str, Any]]
    """The type and shape of each input; null is a dynamic axis."""
    rows: int
    largest_difference: float
    """Of an output, relative to 1 + its magnitude."""
    mean_difference: float
    tolerance: float | None
    same_answer: float
    """The share of rows whose largest output is the same."""
    metric: dict[str, Any] | None
    bytes_before: int
    bytes_after: int
    milliseconds_before: float
    """The median of a pass over one row."""
    milliseconds_after: float
    flagged: str | None
    """A warning for users of the file."""


def export(
    folder: Path,
    form: str,
    out: Path | None = None,
    *,
    data: str | None = None,
    tolerance: float = TOLERANCE,
    console: Console,
) -> Exported:
    """Export a saved model to another format, and verify it.

    Args:
        out: the folder for the file and its export.json; default: MODEL/../export.
        data: rows for the verification; default: the test rows of the model's own run.

    Raises:
        UserError: unknown format, no rows, or the files already exist.
        RunFailed: the outputs of the exported model differ.
    """
    chosen = _chosen_form(form)
    out = out or folder.parent / "export"
    origin = load_origin(folder)
    network = without_adapter(origin.network)
    _make_plain(network)
    trial = origin.preprocessor.task.inputs.export_case(
        network, origin.preprocessor, _rows(folder, origin.preprocessor, data, console)
    )
    trial = replace(trial, origin=folder_hash(folder))
    case = ExportCase(
        form=chosen,
        folder=folder,
        file=out / FILES[chosen],
        preprocessor=origin.preprocessor,
        trial=trial,
        tolerance=tolerance,
    )
    proof = out / f"{chosen}.export.json"
    _require_new(case, proof)
    if trial.count < 2:
        raise UserError("the verification needs at least two rows", found=f"{trial.count} rows", fix="--data MORE.csv")
    out.mkdir(parents=True, exist_ok=True)
    sweep(out)
    place = out / f".tmp-{os.getpid()}"
    place.mkdir()
    try:
        found = _write_and_verify(case, place)
        write_json(proof, asdict(found))
        for file in place.iterdir():
            put_in_place(file, out / file.name)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    for line in lines_of(found):
        console.info(line)
    console.info(f"{case.file}, verified in {chosen}.export.json")
    return found


@dataclass(frozen=True, kw_only=True)
class ExportCase:
    """Hold a model, the file that it becomes, and the rows to compare them with."""

    form: Form
    folder: Path
    """The saved model."""
    file: Path
    preprocessor: Preprocessor
    trial: Trial
    tolerance: float


def _require_new(case: ExportCase, proof: Path) -> None:
    """Refuse to overwrite files; those of an export that was killed are written again.

    Raises:
        UserError: a file already exists.
    """
    files = [case.file] if case.form not in GRAPHS else [_file_of(graph, case.file) for graph in case.trial.graphs]
    # export.json without one of its files: the export was killed, and is repeated.
    interrupted = proof.exists() and not all(file.exists() for file in files)
    for file in files:
        if file.exists() and not interrupted:
            raise UserError("the file already exists", file=file, fix="name another folder with --out, or delete it")


def _write_and_verify(case: ExportCase, place: Path) -> Exported:
    """Write the file into a folder, and compare it with the model.

    Raises:
        RunFailed: the outputs differ.
    """
    written = place / case.file.name
    found = _compared(case, WRITERS[case.form](case.trial, written), written)
    if found.tolerance is not None and not found.largest_difference <= found.tolerance:
        raise RunFailed(
            f"the outputs of the exported {case.form} model differ from the model's",
            file=case.file,
            found=f"a difference of {found.largest_difference:.3g} on {found.rows} rows",
            expected=f"at most {found.tolerance:g}",
            fix="nothing was written; if the difference is acceptable, raise --tolerance",
        )
    return found


def lines_of(found: Exported) -> list[str]:
    """For people."""
    lines = [
        f"{found.form}: on {found.rows} rows the largest difference is {found.largest_difference:.2g}, {found.same_answer:.2%} of predictions are the same; "
        f"{found.bytes_before / 2**20:.1f} to {found.bytes_after / 2**20:.1f} MiB, {found.milliseconds_before:.2f} to {found.milliseconds_after:.2f} ms per row"
    ]
    if (metric := found.metric) is not None:
        lines.append(f"{metric['name']}: {metric['before']:.4f} before, {metric['after']:.4f} after")
    if found.flagged:
        lines.append(f"note: {found.flagged}")
    return lines


def _chosen_form(form: str) -> Form:
    if form not in get_args(Form):
        raise RecipeError(
            "there is no such format", place="--to", found=form, expected=", ".join(get_args(Form)), fix="--to onnx"
        )
    needed = {
        "onnx": ("onnx", "onnxscript", "onnxruntime"),
        "int8": ("onnx", "onnxscript", "onnxruntime"),
        "torch": (),
        "gguf": ("gguf",),
        "keras": ("keras", "h5py"),
    }[form]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise RecipeError(
            f"this format needs {', '.join(missing)}, which is not installed",
            place="--to",
            fix=f'pip install "tunewright[{"keras" if form == "keras" else "export"}]"',
        )
    return form  # pyright: ignore[reportReturnType]  seen above


def _rows(folder: Path, preprocessor: Preprocessor, data: str | None, console: Console) -> pa.Table:
    """Return real rows for the verification."""
    if data is not None:
        rejects = Rejects()
        tables = [piece.table for piece in read_input(data, preprocessor, rejects)]
        if not tables:
            raise DataError(
                "no row can be read", file=data, found="; ".join(skipped_lines(rejects)), fix="check the file"
            )
        return pa.concat_tables(tables).slice(0, TRIED)
    prepared = provenance(folder).data()
    split = prepared.measured_split
    console.info(f"verified on {min(TRIED, prepared.rows(split)):,} rows of the {split} split")
    return prepared.table(split).slice(0, TRIED)


def _make_plain(network: Network) -> None:
    """Undo what only speeds up training and cannot be exported."""
    network.eval()
    for module in network.modules():
        if type(module) is QuickDropout:
            module.__class__ = torch.nn.Dropout


# One writer for each format: it writes the file, and returns the function that runs it


def _onnx(trial: Trial, path: Path) -> Callable[[Named], Tensor]:
    return _graphs(trial, path, _graph)


def _int8(trial: Trial, path: Path) -> Callable[[Named], Tensor]:
    """Write 8-bit weights of matrix products, whose inputs are quantized at run time (dynamic quantization)."""
    return _graphs(trial, path, _small_graph)


def _graphs(
    trial: Trial, path: Path, write: Callable[[nn.Module, Named, Free, Path], None]
) -> Callable[[Named], Tensor]:
    """Write one file, or several that run one after the other, such as an encoder and a decoder."""
    sessions: list[tuple[Graph, Callable[[Named], Tensor]]] = []
    for graph in trial.graphs:
        file = _file_of(graph, path)
        write(graph.module, graph.inputs, graph.free, file)
        _stamp(file, trial)
        sessions.append((graph, _runtime(file)))

    def run(given: Named) -> Tensor:
        known = dict(given)
        for graph, session in sessions:
            known[graph.output] = session({name: known[name] for name in graph.inputs})
        return known[sessions[-1][0].output]

    return run


def _stamp(path: Path, trial: Trial) -> None:
    """Write the model's hash into the metadata of an ONNX file."""
    import onnx

    graph = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(graph, {entry.key: entry.value for entry in graph.metadata_props} | _facts(trial))
    onnx.save(graph, path)


def _facts(trial: Trial) -> dict[str, str]:
    """Return the metadata that identify the exported model."""
    return {} if trial.origin is None else {ORIGIN: trial.origin}


def _file_of(graph: Graph, path: Path) -> Path:
    """Return the path of a graph's file, next to the main one."""
    return path.with_name(f"{graph.stem}{path.name.removeprefix('model')}")


def _graph(module: nn.Module, inputs: Named, free: Free, path: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")  # warnings of torch's exporter
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            dynamic_shapes=_shapes(free),
            custom_translation_table=translations(),
            input_names=list(inputs),
            output_names=["outputs"],
            verbose=False,
        )
        assert program is not None
        program.save(str(path))


def _small_graph(module: nn.Module, inputs: Named, free: Free, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_name("whole.onnx")
    _graph(module, inputs, free, whole)
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        quantize_dynamic(whole, path, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"],
                         extra_options={"DefaultTensorType": 1})  # fmt: skip
    for file in path.parent.glob("whole.onnx*"):
        file.unlink()


def _runtime(path: Path) -> Callable[[Named], Tensor]:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    read = {entry.name for entry in session.get_inputs()}

    def run(inputs: Named) -> Tensor:
        given = {name: value.numpy() for name, value in inputs.items() if name in read}
        return torch.from_numpy(np.asarray(session.run(None, given)[0]))

    return run


def _torch(trial: Trial, path: Path) -> Callable[[Named], Tensor]:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            trial.module, tuple(trial.longest.values()), dynamic_shapes=_shapes(trial.free), strict=False
        )
        torch.export.save(program, path, extra_files=_facts(trial))
        again = torch.export.load(path).module()

    return _passed_through(again)


def _gguf(trial: Trial, path: Path) -> Callable[[Named], Tensor]:
    """Write the file, and run the network with the weights that are read back."""
    network = library_network(trial.module.network)
    if network is None or trial.tokenizer is None or not is_plain(network.core.config):
        raise ArtifactError(
            "only Llama-architecture models can be exported to GGUF",
            found=type(trial.module.network).__name__ if network is None else network.core.config.model_type,
            expected="backbone: gpt, or a plain Llama",
            fix="--to onnx",
        )
    config = network.core.config
    state = network.core.state_dict()
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    write_gguf(path, config, state, trial.tokenizer, trial.origin)
    again = copy.deepcopy(trial.module)
    copied = library_network(again.network)
    assert copied is not None
    copied.core.load_state_dict(read_gguf(path, config), strict=not config.tie_word_embeddings)

    return _passed_through(again)


def _keras(trial: Trial, path: Path) -> Callable[[Named], Tensor]:
    model = write_keras(trial.module.network, path)
    return lambda inputs: applied(model, next(iter(inputs.values())))


def _passed_through(module: Callable[..., Tensor]) -> Callable[[Named], Tensor]:
    """Return a function that calls a module with named inputs, in their order."""

    def run(inputs: Named) -> Tensor:
        with torch.no_grad():
            return module(*inputs.values())

    return run


def _shapes(free: Free) -> tuple[tuple[dict[int, Any], ...]]:
    """Return the dynamic axes in the form of torch's exporter, for a network whose inputs are one list."""
    return (tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in free.values()),)


WRITERS: dict[str, Callable[[Trial, Path], Callable[[Named], Tensor]]] = {
    "onnx": _onnx,
    "int8": _int8,
    "torch": _torch,
    "gguf": _gguf,
    "keras": _keras,
}


# The verification


def _compared(case: ExportCase, again: Callable[[Named], Tensor], written: Path) -> Exported:
    """Compare the exported file, run by `again`, with the model."""
    form, trial = case.form, case.trial
    model = _passed_through(trial.module)
    before: list[Tensor] = []
    after: list[Tensor] = []
    same = total = 0
    largest = mean = 0.0
    for ids in torch.arange(min(trial.count, TRIED)).split(AT_ONCE):
        inputs = trial.batch(ids.tolist())
        there = inputs["attention_mask"].bool() if "attention_mask" in inputs else None
        a, b = model(inputs).float(), again(inputs).float()
        if there is not None and a.dim() == 3:  # outputs of padding may differ
            a, b = a[there], b[there]
        difference = (a - b).abs() / (1 + a.abs())
        largest, mean = max(largest, float(difference.max())), mean + float(difference.mean()) * len(ids)
        same += int((a.argmax(-1) == b.argmax(-1)).sum())
        total += a.argmax(-1).numel()
        before.append(a)
        after.append(b)
    metric = _metric(trial, case.preprocessor, before, after)
    one = trial.batch([0])
    flagged = None
    if form == "int8":
        lost = abs(metric["before"] - metric["after"]) if metric is not None else 1 - same / total
        if lost > POINT:
            flagged = f"8-bit weights cost more than one point here ({lost:.3f}); check this file before you use it"
    return Exported(
        form=form,
        file=case.file.name,
        model_sha256=trial.origin,
        inputs={
            key: {
                "type": str(value.dtype).removeprefix("torch."),
                "shape": [None if axis in trial.free[key] else int(size) for axis, size in enumerate(value.shape)],
            }
            for key, value in one.items()
        },
        rows=min(trial.count, TRIED),
        largest_difference=largest,
        mean_difference=mean / min(trial.count, TRIED),
        tolerance=None if form == "int8" else case.tolerance,
        same_answer=same / total,
        metric=metric,
        bytes_before=sum(file.stat().st_size for file in case.folder.glob("*.safetensors")),
        bytes_after=sum(file.stat().st_size for file in written.parent.iterdir()),
        milliseconds_before=_milliseconds(model, one),
        milliseconds_after=_milliseconds(again, one),
        flagged=flagged,
    )


def _metric(
    trial: Trial, preprocessor: Preprocessor, before: list[Tensor], after: list[Tensor]
) -> dict[str, Any] | None:
    """Return the task's first metric on the verified rows, of the model and of the exported file."""
    target = preprocessor.column_target
    if target is None or trial.target is None:
        return None
    metric = METRICS[preprocessor.task.metrics[0]]
    truth = target.truth(trial.target[: sum(len(part) for part in before)])
    values = [metric.value(target.decode(torch.cat(parts)), truth) for parts in (before, after)]
    return {"name": metric.name, "before": values[0], "after": values[1]}


def _milliseconds(run: Callable[[Named], Tensor], inputs: Named) -> float:
    run(inputs)
    found: list[float] = []
    for _ in range(PASSES):
        started = time.perf_counter()
        run(inputs)
        found.append(1000 * (time.perf_counter() - started))
    return statistics.median(found)
