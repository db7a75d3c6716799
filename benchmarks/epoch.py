"""An epoch of training beside SpikingJelly's own trainer: ``python benchmarks/epoch.py [--device cuda] [--model resnet19
--dataset cifar10 --data-root DIR]``.

The same network, examples, batch size and Adam in float32. The peer is the ``train_one_epoch`` of the trainer in
``spikingjelly.activation_based.examples.common``, with plain cross-entropy of the time-mean logits; ours are the three
objectives. All take their batches from memory, in turn; each line gives the medians, and the median ratio of ours to the peer's
with the smallest and largest. On CUDA the time ends when the device is done.
"""

import argparse
import logging
import statistics
import time
import warnings
from pathlib import Path

import torch
from contests import machine
from torch import nn

from snn_probe.config import RunConfig
from snn_probe.distributed import own_device
from snn_probe.runs.one_epoch import one_epoch
from snn_probe.runs.state import TrainingState
from snn_probe.system import build_network, load_split, network_of

METHODS = ("sdt", "tet", "trt")


def peer(config: RunConfig, data, network, device: torch.device):
    """An epoch of SpikingJelly's trainer on a network of its own."""
    from spikingjelly.activation_based.examples.common.train_classify import Trainer

    model = build_network(config, network, config.schedule()[0]).to(device)
    num_steps = model.num_steps

    class ShownOverTime(Trainer):
        def preprocess_train_sample(self, args, x):
            return x.transpose(0, 1) if num_steps is None else x.unsqueeze(0).repeat(num_steps, *[1] * x.ndim)

        def process_model_output(self, args, y):
            return y.mean(0)

    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    args = argparse.Namespace(execution_mode="eager", disable_pinmemory=True, clip_grad_norm=None)
    criterion, trainer = nn.CrossEntropyLoss(), ShownOverTime()

    def epoch(number: int) -> None:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(number)).split(config.batch_size)
        loader = [(inputs, labels) for inputs, labels in data.feed(order, device=torch.device("cpu"))]
        trainer.train_one_epoch(model.net, criterion, optimizer, loader, device, number, args)

    return epoch


def ours(config: RunConfig, data, network, device: torch.device):
    state = TrainingState(config, network, [], device)

    def epoch(number: int) -> None:
        state.position = None
        one_epoch(state, data, 1, lambda items, label: items, lambda: None)

    return epoch


def seconds(epoch, number: int, device: torch.device) -> float:
    began = time.perf_counter()
    epoch(number)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--num-steps", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--examples", type=int, help="of the training split; all by default")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # the trainer's torch.cuda.amp.autocast
    logging.disable(logging.INFO)
    device = own_device(options.device)
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else machine()
    common = dict(model=options.model, dataset=options.dataset, num_steps=options.num_steps,
                  batch_size=options.batch_size, train_examples=options.examples, epochs=1)  # fmt: skip
    configs = {method: RunConfig(method=method, **common) for method in METHODS}
    network = network_of(configs["sdt"], options.data_root)
    data = load_split(configs["sdt"], "train", num_examples=options.examples, stage=configs["sdt"].schedule()[0],
                      data_root=options.data_root)  # fmt: skip
    epochs = {"peer": peer(configs["sdt"], data, network, device)}
    epochs |= {method: ours(config, data, network, device) for method, config in configs.items()}
    times: dict[str, list[float]] = {name: [] for name in epochs}
    for repeat in range(options.repeats + 1):
        for name, epoch in epochs.items():
            found = seconds(epoch, repeat, device)
            if repeat:  # the first is not counted
                times[name].append(found)
    print(f"{place}; {options.model}, {options.dataset}, T={options.num_steps}, {len(data)} examples in batches of "
          f"{options.batch_size}, torch {torch.__version__}\n")  # fmt: skip
    print(
        "| objective | SpikingJelly's trainer, cross-entropy | ours | ours over it (pairs) | n |\n" + "| --- " * 5 + "|"
    )
    for method in METHODS:
        ratios = [own / other for own, other in zip(times[method], times["peer"], strict=True)]
        print(
            f"| {method} | {statistics.median(times['peer']):.3g} s | {statistics.median(times[method]):.3g} s | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {options.repeats} |"
        )


if __name__ == "__main__":
    main()
