"""Table 9 on digits-LT, one seed, as a plain Ray Tune script: what one would write without this platform.

    python tests/benchmarks/plain_ray_tune.py FOLDER [--epochs 100] [--reuse-actors] [--without-mlflow]
    python tests/benchmarks/plain_ray_tune.py FOLDER --rates 1000 [--epochs 3] [--cpus 0.5]

Grid search over the nine cells, or over so many learning rates, a function trainable, a DataLoader with torch's
WeightedRandomSampler, Ray's own MLflowLoggerCallback. Only the images, already normalised, and the network are this
project's. It ends with one line of JSON: the wall seconds and where they went. `table.py` measures it beside `study run
table9`, and `thousand.py` beside a thousand learning rates.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import ray
import torch
import torch.nn.functional as F  # noqa: N812
from learning_rates import rates
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler
from torchvision.transforms import v2

from search_spaces.shared.protocol import base
from study.machine import Machine
from trainables.data.loading import load
from trainables.network import build
from trainables.networks.linear import Linear
from trainables.networks.resnet8 import ResNet8
from trainables.origins import origin
from trainables.schedule import epochs

EXPONENTS = {"IB": 1.0, "CB": 0.0, "CR": -1.0}


class Images(Dataset):
    def __init__(self, images, labels, transform=None):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = self.images[index]
        return (self.transform(image) if self.transform else image), self.labels[index]


def sampled(dataset, counts, sampler, batch_size):
    """Images drawn so that class j has p_j ∝ n_j^q; IB is an ordinary shuffle."""
    if sampler == "IB":
        return DataLoader(dataset, batch_size, shuffle=True)
    weights = counts.double() ** (EXPONENTS[sampler] - 1)
    draw = WeightedRandomSampler(weights[dataset.labels], len(dataset), replacement=True)
    return DataLoader(dataset, batch_size, sampler=draw)


def train_epoch(network, loader, optimizer):
    network.train()
    loss_sum, correct, seen = 0.0, 0, 0
    for images, labels in loader:
        logits = network(images)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += (logits.argmax(1) == labels).sum().item()
        seen += len(labels)
    return {"train_loss": loss_sum / seen, "train_top1": 100 * correct / seen}


@torch.no_grad()
def evaluate(network, loader, shots):
    """The measures of an epoch, and the accuracy of each class: (C,)."""
    network.eval()
    logits, labels = (torch.cat(parts) for parts in zip(*((network(x), y) for x, y in loader), strict=True))
    correct = (logits.argmax(1) == labels).float()
    by_class = 100 * torch.stack([correct[labels == label].mean() for label in labels.unique()])
    measures = {
        "loss": F.cross_entropy(logits, labels).item(),
        "top1": 100 * correct.mean().item(),
        "worst": by_class.min().item(),
    }
    measures |= {split: by_class[classes].mean().item() for split, classes in shots.items()}
    return measures, by_class


def train(config, data):
    torch.set_num_threads(1)
    torch.manual_seed(config["seed"])
    crop = v2.RandomCrop(8, padding=1, fill=data["black"])
    trainset = Images(data["images"], data["labels"], crop)
    loaders = {
        name: sampled(trainset, data["counts"], name, config["batch_size"])
        for name in {config["first"], config["switch"]}
    }
    test = DataLoader(Images(data["test_images"], data["test_labels"]), batch_size=500)
    network = build(ResNet8(), Linear(), 1, 10, torch.Generator().manual_seed(config["seed"]))
    optimizer = torch.optim.SGD(
        network.parameters(), lr=config["lr"], momentum=config["momentum"], weight_decay=config["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda e: (e + 1) / config["warmup"] if e < config["warmup"] else 0.1 ** (e >= config["milestone"]),
    )
    spent = {"train_seconds": 0.0, "evaluate_seconds": 0.0, "report_seconds": 0.0}
    for epoch in range(config["epochs"]):
        began = time.perf_counter()
        sampler = config["first"] if epoch < config["milestone"] + config["S"] else config["switch"]
        lr = schedule.get_last_lr()[0]
        measures = {"lr": lr, **train_epoch(network, loaders[sampler], optimizer)}
        schedule.step()
        trained = time.perf_counter()
        tested, by_class = evaluate(network, test, data["shots"])
        measures |= tested
        evaluated = time.perf_counter()
        spent["train_seconds"] += trained - began
        spent["evaluate_seconds"] += evaluated - trained
        if epoch < config["epochs"] - 1:
            tune.report(measures)
            spent["report_seconds"] += time.perf_counter() - evaluated
    measures |= {f"class_{label}": accuracy.item() for label, accuracy in enumerate(by_class)} | spent
    with tempfile.TemporaryDirectory() as folder:
        torch.save(
            {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epochs": config["epochs"]},
            Path(folder) / "checkpoint.pt",
        )
        tune.report(measures, checkpoint=tune.Checkpoint.from_directory(folder))


class Timed(MLflowLoggerCallback):
    """Ray's callback as it is, with a stop-watch."""

    seconds = 0.0

    def log_trial_result(self, iteration, trial, result):
        began = time.perf_counter()
        super().log_trial_result(iteration, trial, result)
        self.seconds += time.perf_counter() - began


def process_seconds():
    """Since this process was started; Linux."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def main():
    imported = process_seconds()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=lambda path: Path(path).absolute())
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--reuse-actors", action="store_true", help="let a process train many cells (Ray: off)")
    parser.add_argument("--without-mlflow", action="store_true", help="to see what Ray's callback costs")
    parser.add_argument("--rates", type=int, help="so many learning rates instead of the nine cells")
    parser.add_argument("--cpus", type=float, default=1, help="of a trial")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)

    config = base("digits")
    digits = load(origin(config, Machine("cpu", 1)), epochs(config)[0], None)
    (images, _), (test_images, *_) = next(digits.fit_batches()), next(digits.test_batches())  # all are in one batch
    data = {
        "images": images.contiguous(),
        "labels": digits.labels,
        "counts": torch.from_numpy(digits.counts),
        "test_images": test_images,
        "test_labels": digits.test_labels,
        "shots": digits.shots,
        "black": -digits.facts.mean[0] / digits.facts.std[0],
    }
    config = {
        "first": tune.grid_search(list(EXPONENTS)),
        "switch": tune.grid_search(list(EXPONENTS)),
        "S": 1,
        "epochs": options.epochs,
        "milestone": options.epochs // 2,
        "warmup": 5,
        "batch_size": 64,
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 2e-4,
        "seed": 0,
    }
    if options.rates:
        config |= {"first": "IB", "switch": "CR", "lr": tune.grid_search(rates(options.rates)), "warmup": 1}
    loaded = process_seconds()
    ray.init(address="local", include_dashboard=False)
    connected = process_seconds()
    mlflow = Timed(f"sqlite:///{options.folder}/mlflow.db", experiment_name="table9")
    callbacks = [] if options.without_mlflow else [mlflow]
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, data=data), {"cpu": options.cpus}),
        param_space=config,
        tune_config=tune.TuneConfig(metric="top1", mode="max", reuse_actors=options.reuse_actors),
        run_config=tune.RunConfig(name="table9", storage_path=str(options.folder), callbacks=callbacks),
    )
    results = tuner.fit()
    fitted = process_seconds()
    ray.shutdown()
    ended = process_seconds()

    last = [result.metrics for result in results]

    def per_epoch(name):
        return sum(metrics[name] for metrics in last) / (len(last) * options.epochs)

    print(
        json.dumps(
            {
                "wall_seconds": ended,
                "import_seconds": imported,
                "data_seconds": loaded - imported,
                "ray_init_seconds": connected - loaded,
                "fit_seconds": fitted - connected,
                "mlflow_seconds_in_driver": mlflow.seconds,
                "shutdown_seconds": ended - fitted,
                "train_seconds_an_epoch": per_epoch("train_seconds"),
                "evaluate_seconds_an_epoch": per_epoch("evaluate_seconds"),
                "report_seconds_an_epoch": per_epoch("report_seconds"),
                "epochs_trained": len(last) * options.epochs,
                "top1": {f"{m['config']['first']}⇒{m['config']['switch']}": round(m["top1"], 4) for m in last},
            },
            ensure_ascii=False,
        )
    )


if __name__ == "__main__":
    main()
