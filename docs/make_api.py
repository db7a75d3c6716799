"""Writes docs/api.md from the docstrings: `python docs/make_api.py`. Reads the source alone and imports none of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"

# The public names, module by module: what a user's own program may rely on.
PUBLIC = {
    "snn_probe.temporal": ("Batches", "from_spikingjelly", "from_snntorch", "check_temporal", "spiking_layers", "probing"),
    "snn_probe.objectives": ("OBJECTIVES", "SDT", "TET", "TRT", "trt_penalty"),
    "snn_probe.probes": (
        "fisher_trace", "information_centroid", "hessian_eigenvalues", "hessian_eigenvectors", "hessian_trace",
        "hessian_density", "loss_slice", "temporal_gradient_norms", "gradient_ratio", "timestep_accuracy",
        "spiking_activity", "energy_ratio",
    ),
    "snn_probe.probes.directions": ("random_direction", "filter_normalized", "direction_between", "pca_plane", "Plane"),
    "snn_probe.results": ("Result", "save", "load", "combine"),
    "snn_probe.tables.slices": ("combine_slices", "slices", "Slice"),
    "snn_probe.tables.shards": ("merged", "holes"),
    "snn_probe.tables.flatness": ("flatness", "flatness_spread"),
    "snn_probe.figures": (
        "figure_names", "figure_options", "draw", "figure_bytes", "learning_curves", "fisher_trace", "information_centroid",
        "timestep_accuracy", "gradient_norms", "gradient_map", "firing_rate", "energy", "loss_line", "loss_contour",
        "loss_surface", "eigenvalues", "spectral_density",
    ),
    "snn_probe.drawing.style": ("style", "add_legend", "Handles"),
    "snn_probe.tables.exports": ("export", "hdf5", "vts"),
    "snn_probe.runs.tensorboard": ("to_tensorboard", "tag_of"),
    "snn_probe.parameters": ("Predicate", "trainable", "flatten", "unflatten"),
    "snn_probe.own": ("allow", "allowing"),
    "snn_probe.own.network": ("own_network", "check_own_network"),
    "snn_probe.own.objective": ("own_objective", "OwnObjective"),
    "snn_probe.own.weights": ("read_weights", "load_into"),
    "snn_probe.data": ("DATASETS", "load", "batches", "describe", "fetch", "DatasetInfo", "Examples", "Split"),
    "snn_probe.models": ("MODELS", "build"),
    "snn_probe.neurons.lif": ("Neuron",),
    "snn_probe.config": ("RunConfig", "Stage"),
    "snn_probe.checkpoint": ("Checkpoint", "save", "load", "build_model"),
    "snn_probe.subjects": ("Subject", "of_checkpoint", "of_network", "named_network"),
    "snn_probe.training": ("train", "TrainingDiverged"),
    "snn_probe.evaluation": ("evaluate", "Evaluation"),
    "snn_probe.studies.recipe": ("read_recipe", "Recipe"),
    "snn_probe.study": ("run_study", "preview", "tables"),
    "snn_probe.claims": ("judge", "Claim"),
    "snn_probe.verdicts.paired": ("decide", "holm", "Decision", "Estimate", "PerSeed", "paired", "difference", "relative"),
}  # fmt: skip

HEAD = """# API reference

Made from the docstrings by `python docs/make_api.py`; do not edit. What the numbers mean: [numbers.md](numbers.md).
T timesteps, N examples, C classes, P parameters; logits are (T, N, C).
"""

LONG = 12  # lines from which a constant is shown by its type

Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def page() -> str:
    """The whole page."""
    contents = ["## Contents", ""]
    entries: list[str] = []
    for module, names in PUBLIC.items():
        links = ", ".join(f"[{name}](#{anchor(module, name)})" for name in names)
        contents.append(f"* [{module}](#{module.replace('.', '')}): {links}")
        entries += [f"## {module}", "", markdown(ast.get_docstring(parsed(module)[0]) or ""), ""]
        for name in names:
            entries += [f'<a id="{anchor(module, name)}"></a>', "", f"### {name}", "", *entry(module, name), ""]
    return "\n".join([HEAD, *contents, "", *entries]).rstrip("\n") + "\n"


def anchor(module: str, name: str) -> str:
    return f"{module.removeprefix('snn_probe.')}.{name}".lower()


def parsed(module: str) -> tuple[ast.Module, str]:
    """The syntax tree of a module, and its source."""
    place = ROOT.joinpath(*module.split("."))
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    source = path.read_text()
    return ast.parse(source), source


def entry(module: str, name: str) -> Iterator[str]:
    """Signature and docstring of a name; of a class also those of its public methods."""
    node, source, text = definition(module, name)
    yield from code(signature(node, source))
    yield markdown(text)
    if not isinstance(node, ast.ClassDef):
        return
    for method in node.body:
        public = isinstance(method, ast.FunctionDef) and (method.name[0] != "_" or method.name == "__call__")
        if public and ast.get_docstring(method):
            yield from ["", f"**{name}.{method.name}**", "", *code(signature(method, source))]
            yield markdown(ast.get_docstring(method) or "")


def definition(module: str, name: str) -> tuple[Definition, str, str]:
    """Where the name is defined, in this module or in the one it is imported from: node, source and docstring.

    Raises KeyError for a name that is in neither.
    """
    tree, source = parsed(module)
    for position, node in enumerate(tree.body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node, source, ast.get_docstring(node) or ""
        if isinstance(node, ast.Assign | ast.AnnAssign) and name in assigned(node):
            return node, source, text_below(tree.body[position + 1 : position + 2])
        if isinstance(node, ast.ImportFrom) and name in {alias.asname or alias.name for alias in node.names}:
            if node.level:
                place = ROOT.joinpath(*module.split("."))
                package = module if place.is_dir() else module.rpartition(".")[0]
                return definition(f"{package}.{node.module}", name)
            return definition(node.module or "", name)
    raise KeyError(f"{module} has no {name}; correct PUBLIC in docs/make_api.py")


def assigned(node: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def text_below(following: list[ast.stmt]) -> str:
    """The string that stands below a constant, as its docstring."""
    for node in following:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return node.value.value
    return ""


def signature(node: Definition, source: str) -> str:
    """As it is written in the source: a function up to its body, a class with its fields, a constant whole."""
    lines = source.splitlines()
    if isinstance(node, ast.FunctionDef):
        head = [f"@{ast.unparse(decorator)}" for decorator in node.decorator_list]
        return "\n".join([*head, dedented(lines[node.lineno - 1 : last_of_head(node, lines)])])
    if isinstance(node, ast.ClassDef):
        head = [f"@{ast.unparse(decorator)}" for decorator in node.decorator_list]
        head += lines[node.lineno - 1 : last_of_head(node, lines)]
        fields = [one for one in node.body if isinstance(one, ast.AnnAssign) and not assigned(one) & private(node)]
        return "\n".join([*head, *("\n".join(lines[one.lineno - 1 : one.end_lineno]) for one in fields)])
    if isinstance(node, ast.AnnAssign) and (node.end_lineno or 0) - node.lineno >= LONG:
        return f"{ast.unparse(node.target)}: {ast.unparse(node.annotation)}"
    return "\n".join(lines[node.lineno - 1 : node.end_lineno])


def private(node: ast.ClassDef) -> set[str]:
    return {name for one in node.body if isinstance(one, ast.AnnAssign) for name in assigned(one) if name[0] == "_"}


def last_of_head(node: ast.FunctionDef | ast.ClassDef, lines: list[str]) -> int:
    """The number of the line with the colon that ends a definition's head."""
    begin = node.lineno - 1
    ends = (n for n in range(begin, node.body[0].lineno) if re.search(r":\s*(#.*)?$", lines[n]))
    return next(n + 1 for n in ends if closed(lines[begin : n + 1]))


def closed(lines: list[str]) -> bool:
    """Whether every bracket that the lines open is closed in them."""
    text = "\n".join(lines)
    return all(text.count(a) == text.count(b) for a, b in ("()", "[]", "{}"))


def dedented(lines: list[str]) -> str:
    indent = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[indent:] for line in lines)


def code(text: str) -> list[str]:
    return ["```python", text, "```", ""]


def markdown(text: str) -> str:
    """A docstring as Markdown: names in single backticks, formulas and examples in blocks of their own."""
    text = re.sub(r":\w+:`~[\w.]*?(\w+)`", r"`\1`", text)  # a reference, shown by its last name
    text = re.sub(r":\w+:`([\w.]+)`", r"`\1`", text).replace("``", "`")
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.splitlines()
        if lines and all(line.startswith("    ") for line in lines):
            blocks.append("\n".join(["```text", *(line[4:] for line in lines), "```"]))
        elif block.startswith(">>>"):
            blocks.append("\n".join(["```python", *lines, "```"]))
        else:
            blocks.append(re.sub(r"<(?=[A-Za-z/])", r"\\<", block))
    return "\n\n".join(blocks)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE.relative_to(ROOT))
