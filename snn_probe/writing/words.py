"""The words of a study's report: what was trained, what each method and probe is, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]

INTRODUCTION = (
    "A spiking network computes in timesteps: at each of T timesteps it gives class scores (logits), and its answer is "
    "their mean. The arms of this study are the same network trained with different objectives. Within a seed all arms "
    "start from the same weights and see the same examples; the seeds say how much chance is in a result."
)
METHODS = {
    "sdt": "SDT, standard direct training: cross-entropy of the time-mean logits",
    "tet": "TET: cross-entropy at every timestep, averaged over time, and a small squared-error term",
    "trt": "TRT: TET's losses and a penalty on the weights that weakens with time, as strongly as decay says",
}
CONTROL = "TRT with decay 0: plain L2 of the same strength, the control arm of every claim about TRT"
LEDGER = (
    "Each claim of a paper became one number per seed; positive is what the claim says. Supported: surely above zero, "
    "and at least as large as matters. Contradicted: surely smaller than what matters (the note says if it is surely "
    "reversed). Sure means a one-sided paired t test over seeds, corrected for all claims at once. What matters was "
    "named before anything was measured. All else is undecided: no proof that there is no effect. Claims of keeping "
    "an accuracy are held against minus the smallest effect that matters; those of every network are judged by the "
    "lowest seed, without an interval. The intervals are not corrected."
)  # fmt: skip
FORWARD = {
    "spiking": "spiking (surrogate derivatives: not the curvature of the loss that a slice samples)",
    "relaxed": "relaxed (spikes replaced by the surrogate's primitive: the curvature of that smooth network)",
}
_SAID = ("objective", "operator", "num_probes", "num_directions", "directions")


def method_words(stage: Facts) -> str:
    """What a method is, in words."""
    method, chosen = stage.get("method"), stage.get("hyperparameters") or {}
    if method == "trt" and chosen.get("decay") == 0:
        return CONTROL
    return METHODS.get(str(method), str(method))


def arm_words(config: Facts) -> str:
    """An arm, in words; of several stages one after the other."""
    stages = [stage for stage in config.get("stages") or () if isinstance(stage, Mapping)]
    if not stages:
        return method_words(config)
    filled = [{**config, **{key: value for key, value in stage.items() if value is not None}} for stage in stages]
    parts = [f"{one.get('epochs')} epochs with T = {one.get('num_steps')}, {method_words(one)}" for one in filled]
    return "; then ".join(parts)


def settings_words(settings: Facts) -> str:
    """How numbers were estimated: estimator, forward mode, examples."""
    said = []
    if "group_size" in settings:
        size = settings["group_size"]
        kind = "empirical Fisher (true labels)" if settings.get("labels") == "true" else "Fisher with sampled labels"
        said.append(f"{kind}, {'per example' if size == 1 else f'of the mean gradient of {size} examples'}")
    if "forward" in settings:
        said.append(f"forward {FORWARD.get(str(settings['forward']), settings['forward'])}")
    said += [f"{name.replace('_', ' ')} {settings[name]}" for name in _SAID if settings.get(name) is not None]
    said.append(f"{settings.get('num_examples', '?')} examples of the {settings.get('split', '?')} split")
    return ", ".join(said)


def command(probe: Facts, checkpoint: str, num_examples: Any) -> str:
    """The command line that measures again what ``probe``, an entry of study.json, measured on a checkpoint."""
    options, kind = dict(probe.get("options") or {}), str(probe.get("kind"))
    given = {"split": probe.get("split"), "num_examples": num_examples, "batch_size": probe.get("batch_size")}
    words = {
        "fisher": ("fisher", ""), "fisher_batch_mean": ("fisher", ""), "gradients": ("gradients", ""),
        "timesteps": ("timesteps", ""), "activity": ("activity", ""), "landscape": ("landscape", ""),
        "plane": ("landscape", " --plane"), "eigenslice": ("landscape", " --along eigenvectors"),
        "eigenvalues": ("hessian", " --quantity eigenvalues"), "hessian_trace": ("hessian", " --quantity trace"),
        "density": ("hessian", " --quantity density"),
    }  # fmt: skip
    if kind not in words:
        return ""
    name, more = words[kind]
    absent = {"max_products", "readout" if options.get("readout") == "prefix" else ""}
    absent |= {"num_steps"} if kind == "density" else {"tol"} if kind == "eigenslice" else set()
    flags = [f"--{key.replace('_', '-')} {value}" for key, value in given.items() if value is not None]
    for key, value in options.items():
        if key in absent or value is None or (key == "objective" and value == "own"):
            continue
        short = "-k" if key == "k" else "--objective" if key == "objectives" else f"--{key.replace('_', '-')}"
        flags += [f"{short} {one}" for one in (value if isinstance(value, list) else [value])]
    return f"snnprobe {name} {checkpoint}{more} {' '.join(flags)}"
