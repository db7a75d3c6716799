"""The published systems by name: what `snnprobe train --preset NAME` sets, and where each setting is stated."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TET_PAPER = "TET, Deng et al., ICLR 2022, arXiv 2202.11946"
TRT_PAPER = "TRT, Zhang, Xu, Tao, arXiv 2506.19256"
KIM_PAPER = "Kim et al., AAAI 2023, arXiv 2211.14406"
_BATCH = "batch 64 and augmentation are those of TRT's program"


@dataclass(frozen=True)
class Preset:
    """``options``: fields of :class:`snn_probe.config.RunConfig`, the others keep their defaults; ``source``: paper, and
    what in the settings is not stated there; ``published``: the test accuracy it reports, in words, as far as known."""

    options: Mapping[str, Any]
    source: str
    published: str


def _trt(dataset: str, model: str, num_steps: int, strength: float, decay: float, mse: float, **more: Any) -> Preset:
    options = dict(
        method="trt", dataset=dataset, model=model, num_steps=num_steps, epochs=300, augment=True, amp="fp16"
    )
    options["hyperparameters"] = dict(strength=strength, decay=decay, mse_weight=mse, epsilon=1e-5)
    note = more.pop("note", "")
    return Preset({**options, **more}, TRT_PAPER + note, "accuracy not known to us")


def _tet(method: str, dataset: str, model: str, num_steps: int, epochs: int, published: str, **more: Any) -> Preset:
    large = dataset in ("imagenet", "cifar10-dvs")
    weights = {"mse_weight": 0.001 if large else 0.05} if method == "tet" else {}
    options = dict(method=method, dataset=dataset, model=model, num_steps=num_steps, epochs=epochs, augment=True)
    return Preset({**options, "hyperparameters": weights, **more}, f"{TET_PAPER}; {_BATCH}", published)


_CIFAR100 = {"sdt": "69.41 / 70.86 / 71.12 % at T = 2 / 4 / 6", "tet": "72.37 / 74.11 / 74.65 % at T = 2 / 4 / 6"}

PRESETS: dict[str, Preset] = {
    "trt-cifar10": _trt("cifar10", "resnet19", 6, 1e-5, 0.25, 0.05),
    "trt-cifar100": _trt("cifar100", "resnet19", 6, 1e-5, 0.25, 0.05,
                         note="; no command is published for CIFAR-100, these are the CIFAR-10 settings"),
    "trt-imagenet100": _trt("imagenet", "sew-resnet34", 4, 5e-5, 0.5, 0.001, neuron={"leak": 1.0},
                            note="; give the hundred classes with --classes FILE"),
    "trt-cifar10-dvs": _trt("cifar10-dvs", "vggsnn", 10, 5e-5, 0.5, 0.001),
    "trt-n-caltech101": _trt("n-caltech101", "vggsnn", 10, 5e-5, 0.5, 0.05, augment=False),
    "sdt-cifar10": _tet("sdt", "cifar10", "resnet19", 6, 300, "not given from scratch at T = 6"),
    "tet-cifar10": _tet("tet", "cifar10", "resnet19", 6, 300, "94.50 / 94.44 / 94.16 % at T = 6 / 4 / 2"),
    "sdt-cifar100": _tet("sdt", "cifar100", "resnet19", 6, 300, _CIFAR100["sdt"]),
    "tet-cifar100": _tet("tet", "cifar100", "resnet19", 6, 300, _CIFAR100["tet"]),
    "tet-imagenet": _tet("tet", "imagenet", "sew-resnet34", 4, 120, "68.00 %"),
    "tet-imagenet-spiking-resnet34": _tet("tet", "imagenet", "spiking-resnet34", 6, 120, "64.79 %"),
    "sdt-cifar10-dvs": _tet("sdt", "cifar10-dvs", "vggsnn", 10, 300, "73.3 %, with augmentation 77.4 %"),
    "tet-cifar10-dvs": _tet("tet", "cifar10-dvs", "vggsnn", 10, 300, "77.33 %, with augmentation 83.17 %"),
    "tit-cifar100": _tet("tet", "cifar100", "resnet19", 6, 350, "74.72 % at T = 6",
                         stages=[{"epochs": 300, "num_steps": 2}, {"epochs": 50, "num_steps": 6}]),
    "switch-cifar10-dvs": _tet("tet", "cifar10-dvs", "vggsnn", 10, 300, "about 77 % before and 79 % after the switch",
                               stages=[{"epochs": 200, "method": "sdt"}, {"epochs": 100, "optimizer": "continue"}]),
    "kim-cifar10": Preset(
        dict(method="sdt", dataset="cifar10", model="resnet19-kim", num_steps=10, epochs=300, augment=True,
             neuron=dict(scale_input=True, detach_reset=True, surrogate="atan")),
        KIM_PAPER + "; optimiser, batch size and augmentation are TET's and TRT's, not stated",
        "Fisher traces at epochs 20, 120 and 300",
    ),
}  # fmt: skip


def preset(name: str) -> Preset:
    """The preset of this name. Raises ValueError for an unknown one."""
    if name not in PRESETS:
        raise ValueError(f"There is no preset {name!r}; give one of {', '.join(PRESETS)}.")
    return PRESETS[name]
