"""Define the limits for files, recipes, models and requests from strangers in one table, which `tunewright doctor` prints.

A limit is checked before the work it bounds, from a size that is cheap to know (a header, a file's length, a counter).
The operator of the machine can raise one with an environment variable; a recipe cannot, because it may come
from a stranger.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tunewright.errors import DataError, UserError


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Bound a quantity: at most `default` of `unit`, unless the environment says otherwise."""

    name: str
    default: int
    unit: str
    """What is counted, in the plural: "bytes", "pixels"."""
    about: str
    """What is bounded, as `doctor` prints it."""

    @property
    def variable(self) -> str:
        """Return the environment variable that changes the limit: TUNEWRIGHT_LIMIT_ and the name in capitals."""
        return f"TUNEWRIGHT_LIMIT_{self.name.upper()}"

    @property
    def value(self) -> int:
        """Return the limit in force.

        Raises:
            UserError: the environment variable is not a whole number above 0.
        """
        text = os.environ.get(self.variable)
        if text is None:
            return self.default
        if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text)):
            raise UserError(
                f"{self.variable} is not a whole number above 0",
                place="the environment",
                found=text,
                expected=f"a number of {self.unit}, such as {self.default}",
                fix=f"unset {self.variable}, or correct it",
            )
        return int(text)

    def require(
        self,
        found: float,
        problem: str,
        *,
        error: type[UserError] = DataError,
        file: str | Path | None = None,
        place: str | None = None,
        fix: str | None = None,
    ) -> None:
        """Raise `error` if `found` is above the limit.

        Args:
            found: how many of `unit` there are; infinity if counting stopped beyond the limit.
            problem: one sentence, such as "the image is too large".
            fix: a fix to offer before that of raising the limit.
        """
        if found > (most := self.value):
            raise_it = f"if you trust it, set {self.variable} to a larger number"
            raise error(
                problem,
                file=file,
                place=place,
                found=f"{found:,.0f} {self.unit}" if found < float("inf") else f"more than {most:,} {self.unit}",
                expected=f"at most {most:,} {self.unit} (limit {self.name})",
                fix=f"{fix}; or, {raise_it}" if fix else raise_it,
            )


# The table. Each constant is used where the quantity that it bounds is read, and is listed in LIMITS once.

PICTURE_PIXELS = Limit(name="picture_pixels", default=75_000_000, unit="pixels", about="an image, also after scaling")
PICTURE_SCANS = Limit(name="picture_scans", default=100, unit="scans", about="the passes of a JPEG over its pixels")
SOUND_SAMPLES = Limit(
    name="sound_samples", default=250_000_000, unit="samples", about="a recording, over all of its channels"
)
SOUND_SECONDS = Limit(name="sound_seconds", default=14_400, unit="seconds", about="a recording's length")
SOUND_RATE = Limit(name="sound_rate", default=384_000, unit="samples per second", about="a recording's sample rate")
MODEL_FILES = Limit(name="model_files", default=100_000, unit="files", about="a model's folder, at all levels")
KERAS_CONFIG = Limit(name="keras_config", default=4 * 2**20, unit="bytes", about="the configuration in a .keras file")
KERAS_WEIGHTS = Limit(name="keras_weights", default=2 * 2**30, unit="bytes", about="the weights in a .keras file")
LAYER_OUTPUTS = Limit(
    name="layer_outputs", default=100_000_000, unit="values", about="one layer's output in a .keras file"
)
# Requests to `serve` or `ui`.
REQUEST_BODY = Limit(name="request_body", default=10 * 2**20, unit="bytes", about="the body of a request")
REQUEST_BODIES = Limit(
    name="request_bodies", default=256 * 2**20, unit="bytes", about="the bodies of all requests that are being received"
)
REQUEST_ROWS = Limit(name="request_rows", default=1024, unit="rows", about="the rows of a request, and of a batch")
REQUEST_COLUMNS = Limit(name="request_columns", default=10_000, unit="columns", about="the columns of a request's rows")
REQUEST_VALUES = Limit(
    name="request_values", default=1_000_000, unit="values", about="the values in a request's JSON, or in its rows"
)
REQUEST_SOUND = Limit(name="request_sound", default=120, unit="seconds", about="the length of a request's recording")
REQUEST_TOKENS = Limit(name="request_tokens", default=512, unit="tokens", about="the tokens generated for a request")
REQUESTS_AT_ONCE = Limit(name="requests_at_once", default=256, unit="requests", about="requests in progress")
REQUEST_SECONDS = Limit(name="request_seconds", default=60, unit="seconds", about="the time for an answer")
HEADERS_SECONDS = Limit(
    name="headers_seconds", default=10, unit="seconds", about="the time for a request's headers to arrive"
)
BODY_SECONDS = Limit(name="body_seconds", default=20, unit="seconds", about="the time for a request's body to arrive")
READER_SECONDS = Limit(
    name="reader_seconds", default=30, unit="seconds", about="the time that a client may stop reading its response"
)
CONNECTIONS = Limit(name="connections", default=512, unit="connections", about="open connections to a server")
# What `ui` reads of a run's folder.
SHOWN_FILE = Limit(name="shown_file", default=64 * 2**20, unit="bytes", about="a JSON file or report shown by `ui`")
SHOWN_METRICS = Limit(name="shown_metrics", default=256 * 2**20, unit="bytes", about="a metrics.jsonl shown by `ui`")
SHOWN_RECIPE = Limit(name="shown_recipe", default=100_000, unit="bytes", about="a recipe compared by `ui`")
SHOWN_STAGES = Limit(name="shown_stages", default=100, unit="stages", about="the stages of a run shown by `ui`")
REQUEST_TEXT = Limit(name="request_text", default=1_000_000, unit="characters", about="a text of a request's rows")
REQUEST_SAMPLES = Limit(
    name="request_samples", default=50_000_000, unit="samples", about="a request's recording, over all of its channels"
)
RECIPE_BYTES = Limit(name="recipe_bytes", default=1 << 20, unit="bytes", about="a recipe file")
RECIPE_VALUES = Limit(
    name="recipe_values", default=20_000, unit="values", about="values of a recipe, with aliases expanded"
)
RECIPE_DEPTH = Limit(name="recipe_depth", default=30, unit="levels", about="nesting depth of a recipe")
RECIPE_STAGES = Limit(name="recipe_stages", default=100, unit="stages", about="training stages of a recipe")
RECIPE_LAYERS = Limit(name="recipe_layers", default=1_000, unit="layers", about="entries of a recipe's list of layers")
RECIPE_NUMBER = Limit(
    name="recipe_number",
    default=10**12,
    unit="rows or steps",
    about="a count in a recipe without a more specific limit",
)
RECIPE_OPTION = Limit(
    name="recipe_option",
    default=10**9,
    unit="units",
    about="an integer among the options of a component or layer",
)
EPOCHS = Limit(name="epochs", default=1_000_000, unit="epochs", about="epochs of a training")
BATCH_EXAMPLES = Limit(
    name="batch_examples", default=10_000_000, unit="examples", about="examples in a batch, and batches in a step"
)
SEEDS = Limit(name="seeds", default=1_000, unit="seeds", about="repetitions of a training")
THREADS = Limit(name="threads", default=1_024, unit="threads", about="CPU threads of a process")
PROCESSES = Limit(
    name="processes", default=1_024, unit="processes", about="processes on a machine, and machines, that train together"
)
IMAGE_SIDE = Limit(
    name="image_side", default=8_192, unit="pixels", about="height and width of a network's input images"
)
TEXT_TOKENS = Limit(name="text_tokens", default=10_000_000, unit="tokens", about="tokens in an input of a network")
PATTERN_CHARACTERS = Limit(
    name="pattern_characters", default=500, unit="characters", about="a regular expression in a recipe"
)
PATTERN_MILLISECONDS = Limit(
    name="pattern_milliseconds",
    default=1_000,
    unit="ms",
    about="time to match a regular expression of a recipe with all names",
)
JSON_BYTES = Limit(name="json_bytes", default=64 << 20, unit="bytes", about="a JSON file of a run or model folder")
WEIGHTS_PICKLE_BYTES = Limit(
    name="weights_pickle_bytes", default=2 << 20, unit="bytes", about="the list of tensors in a .bin, .pt or .pth file"
)
ARCHIVE_DIRECTORY_BYTES = Limit(
    name="archive_directory_bytes",
    default=8 << 20,
    unit="bytes",
    about="the table of contents of a .bin, .pt or .pth file",
)
MODEL_SIZE = Limit(
    name="model_size", default=10_000_000, unit="units", about="a width, vocabulary or length in a model's config.json"
)
CONFIG_KEYS = Limit(name="config_keys", default=10_000, unit="keys", about="a configuration of a model folder")
MODEL_LAYERS = Limit(
    name="model_layers",
    default=1_000,
    unit="layers",
    about="layers, stages or experts of a network",
)
JSON_DEPTH = Limit(
    name="json_depth", default=100, unit="levels", about="nesting depth of a JSON file of a run or model"
)
SAFETENSORS_HEADER_BYTES = Limit(
    name="safetensors_header_bytes", default=16 << 20, unit="bytes", about="the list of tensors in a .safetensors file"
)
ADDED_TOKENS = Limit(
    name="added_tokens", default=20_000, unit="tokens", about="added tokens of a tokenizer, outside of its vocabulary"
)
CHAT_TEMPLATE_CHARACTERS = Limit(
    name="chat_template_characters", default=200_000, unit="characters", about="a chat template"
)
TRIAL_SECONDS = Limit(
    name="trial_seconds", default=15, unit="seconds", about="time of the trial of a tokenizer or chat template"
)
TRIAL_BYTES = Limit(
    name="trial_bytes", default=2 << 30, unit="bytes", about="memory of the trial of a tokenizer or chat template"
)
MODEL_CARD_BYTES = Limit(
    name="model_card_bytes",
    default=128 << 10,
    unit="bytes",
    about="the part of a model card that is searched for its licence",
)
# Data files.
TEXT_LINE = Limit(name="text_line", default=256 << 20, unit="bytes", about="a line of a text file")
JSON_LINE = Limit(name="json_line", default=32 << 20, unit="bytes", about="a line of a JSON-lines file")
TABLE_ROW = Limit(name="table_row", default=8 << 20, unit="bytes", about="a row of a CSV, TSV or atomic file")
STRUCTURE_DEPTH = Limit(
    name="structure_depth", default=16, unit="levels", about="lists and records within each other in a cell"
)
STRUCTURE_FIELDS = Limit(
    name="structure_fields", default=1_000, unit="fields", about="the different fields of a column of records"
)
STRUCTURE_VALUES = Limit(
    name="structure_values", default=1_000_000, unit="values", about="the values in a cell of lists or records"
)
COLUMNS = Limit(name="columns", default=100_000, unit="columns", about="the columns of a table")
EMPTY_CELLS = Limit(
    name="empty_cells", default=50_000_000, unit="cells", about="empty cells in JSON lines with different keys"
)
CLASSES = Limit(name="classes", default=100_000, unit="classes", about="the number of classes of a target")
CLASS_NAME = Limit(name="class_name", default=2_000, unit="characters", about="the name of a class")
LABEL_CELLS = Limit(
    name="label_cells", default=1 << 31, unit="cells", about="rows times classes of a multi-label target"
)
NGRAMS = Limit(name="ngrams", default=8_000_000, unit="n-grams", about="a language model in an ARPA file")
EXPANSION = Limit(
    name="expansion", default=100, unit="times its size", about="compressed data expanded, beyond the first 64 MiB"
)
ARRAY_BYTES = Limit(name="array_bytes", default=1 << 30, unit="bytes", about="a compressed array, expanded")
ARCHIVE_MEMBERS = Limit(name="archive_members", default=10_000, unit="members", about="the members of an .npz")
FOLDER_FILES = Limit(name="folder_files", default=5_000_000, unit="files", about="the files in a folder of data")
DECODE_BYTES = Limit(
    name="decode_bytes", default=1 << 30, unit="bytes", about="memory for a batch of rows of a Parquet or Arrow file"
)
DECODE_SECONDS = Limit(
    name="decode_seconds", default=20, unit="seconds", about="decoding a Parquet or Arrow file, beyond 1 s for 4 MiB"
)
PROMPT_CHARACTERS = Limit(
    name="prompt_characters", default=2**18, unit="characters", about="a prompt or conversation sent to the service"
)
PROMPT_TOKENS = Limit(name="prompt_tokens", default=2**15, unit="tokens", about="a prompt sent to the service")
CHOICES = Limit(name="choices", default=16, unit="texts", about="texts that one request may ask for")
GENERATION_SLOTS = Limit(name="generation_slots", default=16, unit="texts", about="texts generated at the same time")
GENERATION_QUEUE = Limit(
    name="generation_queue", default=128, unit="texts", about="texts waiting for a generation slot"
)
PREPARATION_QUEUE = Limit(
    name="preparation_queue", default=64, unit="requests", about="requests waiting to be tokenized or embedded"
)
TEMPLATE_SECONDS = Limit(
    name="template_seconds", default=5, unit="seconds", about="rendering a conversation with a model's chat template"
)
TEMPLATE_BYTES = Limit(
    name="template_bytes", default=2**30, unit="bytes", about="memory of the process that renders chat templates"
)
GENERATION_CACHE = Limit(
    name="generation_cache",
    default=2**16,
    unit="tokens",
    about="the key-value cache of all texts generated at the same time",
)

LIMITS: tuple[Limit, ...] = tuple(value for value in list(vars().values()) if isinstance(value, Limit))
