"""RecBole: one model on a set that is divided already. MODEL FOLDER items|clicks SEED"""

import json
import logging
import sys
import time

import torch

# It loads its own checkpoint, which holds more than tensors; and asks numpy for names of an older one.
load = torch.load
torch.load = lambda *arguments, **options: load(*arguments, **{**options, "weights_only": False})

from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.utils import get_model, get_trainer, init_seed  # noqa: E402

logging.disable(logging.CRITICAL)
name, folder, kind, seed = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
settings = {
    "data_path": folder,
    "benchmark_filename": ["train", "valid", "test"],
    "seed": seed,
    "reproducibility": True,
    "show_progress": False,
    "use_gpu": False,
    "stopping_step": 10,
    "eval_batch_size": 1_000_000,
    "checkpoint_dir": f"{folder}/saved",
    "save_dataset": False,
}
if kind == "items":
    settings |= {
        "load_col": {"inter": ["user_id", "item_id"]},
        "epochs": 300,
        "train_batch_size": 2048,
        "learning_rate": 1e-3,
        "topk": [10],
        "metrics": ["Recall", "MRR", "NDCG", "Hit", "Precision", "MAP"],
        "valid_metric": "NDCG@10",
        "eval_args": {"group_by": "user", "order": "RO", "mode": "full", "split": {"RS": [0.8, 0.1, 0.1]}},
    }
else:
    settings |= {
        "load_col": {"inter": ["user_id", "item_id", "rating", "age", "gender", "occupation", "release_year", "class"]},
        "LABEL_FIELD": "rating",
        "normalize_all": False,
        "epochs": 200,
        "train_batch_size": 2048,
        "learning_rate": 1e-3,
        "embedding_size": 16,
        "metrics": ["AUC", "LogLoss"],
        "valid_metric": "AUC",
        "train_neg_sample_args": None,
        "eval_args": {"group_by": None, "order": "RO", "mode": "labeled", "split": {"RS": [0.8, 0.1, 0.1]}},
    }
config = Config(model=name, dataset=kind, config_dict=settings)
init_seed(seed, True)
data = create_dataset(config)
train, valid, test = data_preparation(config, data)
init_seed(seed + config["local_rank"], True)
model = get_model(config["model"])(config, train._dataset).to(config["device"])
trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
epochs = []
inner = trainer._train_epoch


def timed(*arguments, **options):
    started = time.perf_counter()
    found = inner(*arguments, **options)
    epochs.append(time.perf_counter() - started)
    return found


trainer._train_epoch = timed
started = time.perf_counter()
trainer.fit(train, valid, saved=True, show_progress=False)
seconds = time.perf_counter() - started
found = trainer.evaluate(test, load_best_model=True, show_progress=False)
learns = any(value.requires_grad and value.numel() > 1 for value in model.parameters())
print(
    json.dumps(
        {
            "metrics": {key.lower(): float(value) for key, value in found.items()},
            "epoch_seconds": sorted(epochs)[len(epochs) // 2] if learns and len(epochs) > 1 else None,
            "epochs": len(epochs),
            "seconds": seconds,
        }
    )
)
