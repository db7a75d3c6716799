"""A configuration is refused in one sentence or survives its trip through plain dicts."""

import dataclasses
import itertools
import json
import math
import re

import pytest

from snn_probe.config import RunConfig, Stage, derived_seed
from snn_probe.objectives import TET, TRT

NOT_WHOLE = [0, -1, 1.5, 4.0, True, "4", None, math.nan, math.inf, [4]]


def sentence(text):
    return "^" + re.escape(text) + "$"


# --- what is refused ---


@pytest.mark.parametrize("method", ["SDT", "adam", "", None, 3, ["sdt"]])
def test_unknown_method_is_refused(method):
    said = f"method is {method!r}; give one of 'sdt', 'tet', 'trt', or package.module:name of your own."
    with pytest.raises(ValueError, match=sentence(said)):
        RunConfig(method=method)


@pytest.mark.parametrize("name", ["dataset", "model"])
@pytest.mark.parametrize("value", [None, 3, ["digits"]])
def test_dataset_and_model_are_names(name, value):
    with pytest.raises(ValueError, match=sentence(f"{name} is {value!r}; give its name.")):
        RunConfig(**{name: value})


@pytest.mark.parametrize("name", ["num_steps", "epochs", "batch_size"])
@pytest.mark.parametrize("value", NOT_WHOLE)
def test_counts_are_whole_numbers_from_1(name, value):
    with pytest.raises(ValueError, match=sentence(f"{name} is {value!r}; give a whole number of at least 1.")):
        RunConfig(**{name: value})


@pytest.mark.parametrize("value", [v for v in NOT_WHOLE if v is not None])
def test_train_examples_is_a_whole_number_from_1_or_none(value):
    with pytest.raises(ValueError, match=sentence(f"train_examples is {value!r}; give a whole number of at least 1.")):
        RunConfig(train_examples=value)
    assert RunConfig(train_examples=None).train_examples is None


@pytest.mark.parametrize("value", [v for v in NOT_WHOLE if v != 0])
def test_seed_is_a_whole_number_from_0(value):
    with pytest.raises(ValueError, match=sentence(f"seed is {value!r}; give a whole number of at least 0.")):
        RunConfig(seed=value)
    assert RunConfig(seed=0).seed == 0


@pytest.mark.parametrize("value", [0, -1e-3, math.nan, math.inf, True, "0.001", None, pytest.param(10**400, id="big")])
def test_learning_rate_is_finite_and_above_0(value):
    with pytest.raises(ValueError, match=sentence(f"learning_rate is {value!r}; give a finite number above 0.")):
        RunConfig(learning_rate=value)


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_augment_is_true_or_false(value):
    with pytest.raises(ValueError, match=sentence(f"augment is {value!r}; give true or false.")):
        RunConfig(augment=value)


@pytest.mark.parametrize(
    ("method", "given", "said"),
    [
        ("sdt", {"decay": 0.5}, "sdt has no hyperparameter 'decay'; it has none."),
        ("tet", {"decay": 0.5}, "tet has no hyperparameter 'decay'; it has mse_weight, mse_target."),
        (
            "trt",
            {"decays": 1, "decay": 0.5, "eps": 0},
            "trt has no hyperparameter 'decays', 'eps'; it has strength, decay, epsilon, mse_weight, penalize.",
        ),
    ],
)
def test_unknown_hyperparameter_is_refused(method, given, said):
    with pytest.raises(ValueError, match=sentence(said)):
        RunConfig(method=method, hyperparameters=given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"decay": "fast"}, "decay is 'fast'; give a finite number of at least 0."),
        ({"decay": -0.5}, "decay is -0.5; give a finite number of at least 0."),
        ({"mse_weight": 1.5}, "mse_weight is 1.5; give a number from 0 to 1."),
        ({"penalize": "all"}, "penalize is 'all'; give one of 'non_bias', 'hidden_weights'."),
    ],
)
def test_hyperparameter_out_of_range_is_refused(given, said):
    with pytest.raises(ValueError, match=sentence(said)):
        RunConfig(method="trt", hyperparameters=given)


def test_a_hyperparameter_beyond_any_float_is_refused():
    said = "A hyperparameter of trt is too large; give numbers that a float holds."
    with pytest.raises(ValueError, match=sentence(said)):
        RunConfig(method="trt", hyperparameters={"decay": 10**400})


@pytest.mark.parametrize("value", [None, 3, "decay=0.5", [("decay", 0.5)]])
def test_hyperparameters_are_names_and_values(value):
    said = f"hyperparameters is {value!r}; give an object of names and values."
    with pytest.raises(ValueError, match=sentence(said)):
        RunConfig(method="trt", hyperparameters=value)
    with pytest.raises(ValueError, match=sentence(said)):
        RunConfig.from_dict({"method": "trt", "hyperparameters": value})


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'seed'"):
        RunConfig().seed = 1


# --- to and from plain dicts ---

CONFIGS = [
    RunConfig(),
    RunConfig(method="tet", dataset="event-digits", num_steps=8, augment=True, hyperparameters={"mse_weight": 0.001}),
    RunConfig(method="trt", train_examples=40, seed=2**70, learning_rate=5e-4, hyperparameters={"decay": 0}),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.method)
def test_round_trip_through_json(config):
    plain = json.loads(json.dumps(config.to_dict(), allow_nan=False))
    assert plain == config.to_dict()
    assert RunConfig.from_dict(plain) == config
    assert RunConfig.from_dict(plain).to_dict() == plain


def test_plain_dict_writes_every_field_out_defaults_included():
    assert RunConfig(method="trt", hyperparameters={"decay": 0.5}).to_dict() == {
        "method": "trt",
        "dataset": "digits",
        "model": "tiny",
        "num_steps": 4,
        "epochs": 20,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "train_examples": None,
        "augment": False,
        "seed": 0,
        "hyperparameters": {
            "strength": 1e-5,
            "decay": 0.5,
            "epsilon": 1e-5,
            "mse_weight": 0.05,
            "penalize": "non_bias",
        },
        "width": 1.0,
        "neuron": None,
        "image_size": None,
        "classes": None,
        "amp": "off",
        "channels_last": False,
        "compile": False,
        "eval_examples": None,
        "stages": [],
    }


def test_what_a_dict_leaves_out_is_the_default():
    assert RunConfig.from_dict({"method": "tet"}) == RunConfig(method="tet")
    assert RunConfig.from_dict({}) == RunConfig()


def test_unknown_keys_are_refused():
    said = (
        "The configuration has unknown keys lr, method_; allowed are method, dataset, model, num_steps, epochs, "
        "batch_size, learning_rate, train_examples, augment, seed, hyperparameters, width, neuron, image_size, classes, "
        "amp, channels_last, compile, eval_examples, stages, weights."
    )
    with pytest.raises(ValueError, match=sentence(said)):
        RunConfig.from_dict({"method_": "sdt", "lr": 0.1, "seed": 1})


@pytest.mark.parametrize(("value", "kind"), [([], "list"), ("sdt", "str"), (None, "NoneType")])
def test_what_is_no_dict_is_refused(value, kind):
    with pytest.raises(ValueError, match=sentence(f"The configuration is {kind}; give a JSON object.")):
        RunConfig.from_dict(value)


def test_a_value_in_a_dict_is_checked_as_any_other():
    with pytest.raises(ValueError, match=r"^epochs is '20'; give a whole number of at least 1.$"):
        RunConfig.from_dict({"epochs": "20"})


def test_later_changes_to_the_dict_given_change_nothing():
    given = {"decay": 0.5}
    config = RunConfig(method="trt", hyperparameters=given)
    given["decay"] = 0.75
    assert config.objective() == TRT(decay=0.5)


# --- what follows from it ---


def test_objective_has_the_hyperparameters_given_and_the_papers_others():
    assert RunConfig(method="tet", hyperparameters={"mse_weight": 0.001}).objective() == TET(0.001, 1.0)
    assert RunConfig(method="trt").objective() == TRT()


def test_run_name_tells_dataset_model_method_and_seed():
    assert RunConfig(method="trt", dataset="event-digits", seed=3).run_name() == "event-digits-tiny-trt-seed3"


def test_derived_seeds_are_distinct_per_purpose_and_seed():
    pairs = itertools.product(range(50), ("weights", "order", "augmentation", "noise"))
    found = [derived_seed(seed, purpose) for seed, purpose in pairs]
    assert len(set(found)) == 200
    assert all(0 <= seed < 2**63 for seed in found)  # what torch.Generator takes
    assert derived_seed(7, "order") == derived_seed(7, "order")


# --- stages ---

TIT = RunConfig(
    method="tet",
    num_steps=6,
    hyperparameters={"mse_weight": 0.2},
    stages=[{"epochs": 3, "num_steps": 2}, {"epochs": 2}],
)
SWITCH = RunConfig(
    method="trt",
    hyperparameters={"decay": 0.5},
    stages=[{"epochs": 2, "method": "sdt"}, {"epochs": 4, "optimizer": "continue"}, {"epochs": 1}],
)


def test_a_stage_takes_what_it_leaves_out_from_the_run():
    tet = {"mse_weight": 0.2, "mse_target": 1.0}
    assert TIT.stages == (Stage(3, 2, "tet", tet), Stage(2, 6, "tet", tet))
    assert SWITCH.stages[0].hyperparameters == {}  # another method's are no concern of it
    assert SWITCH.stages[1].hyperparameters["decay"] == 0.5


def test_a_stage_that_names_one_hyperparameter_keeps_the_others_of_the_run():
    given = {"mse_weight": 0.2, "mse_target": 0.5}
    stages = [{"epochs": 1, "hyperparameters": {"mse_target": 2.0}}, {"epochs": 1}]
    config = RunConfig(method="tet", hyperparameters=given, stages=stages)
    assert config.stages[0].hyperparameters == {"mse_weight": 0.2, "mse_target": 2.0}
    assert config.hyperparameters == given


def test_the_control_arm_has_a_name_of_its_own():
    assert RunConfig(method="trt", hyperparameters={"decay": 0}).run_name() == "digits-tiny-trt-l2-seed0"
    assert RunConfig(method="trt").run_name() == "digits-tiny-trt-seed0"


def test_a_run_of_stages_is_called_after_what_it_ends_as():
    assert (TIT.epochs, TIT.num_steps, TIT.method) == (5, 6, "tet")
    config = RunConfig(num_steps=8, stages=[{"epochs": 1, "method": "tet"}, {"epochs": 2, "num_steps": 3}])
    assert (config.epochs, config.num_steps, config.method, config.hyperparameters) == (3, 3, "sdt", {})
    assert TIT.run_name() == "digits-tiny-tet-T2+6-seed0" and SWITCH.run_name() == "digits-tiny-sdt+trt-seed0"


@pytest.mark.parametrize("config", [TIT, SWITCH], ids=["tit", "switch"])
def test_stages_survive_json(config):
    plain = json.loads(json.dumps(config.to_dict(), allow_nan=False))
    assert plain == config.to_dict() and RunConfig.from_dict(plain) == config


def test_which_stage_an_epoch_belongs_to():
    found = [SWITCH.stages.index(SWITCH.stage_at(epoch)) for epoch in range(8)]
    assert found == [0, 0, 0, 1, 1, 1, 1, 2]
    assert RunConfig(epochs=2).stage_at(2) == Stage(2)
    with pytest.raises(ValueError, match=r"^The run has 7 epochs, so there is none 1 epochs later\.$"):
        SWITCH.stage_at(8)


def test_a_stage_that_continues_stretches_the_cosine():
    assert [SWITCH.cosine_at(epoch) for epoch in range(1, 8)] == [*((i, 6) for i in range(6)), (0, 1)]
    assert [TIT.cosine_at(epoch) for epoch in range(1, 6)] == [(0, 3), (1, 3), (2, 3), (0, 2), (1, 2)]
    with pytest.raises(ValueError, match=r"^epoch is 8; give a whole number from 1 to 7\.$"):
        SWITCH.cosine_at(8)


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([{"epochs": 3}], "stages has one stage; give method, num_steps and epochs instead, or at least two stages."),
        (5, "stages is 5; give a list of stages."),
        ([{"epochs": 1}, 3], "Stage 2 is 3; give an object with epochs, num_steps, method, ..."),
        ([{"num_steps": 1}, {"epochs": 1}], "Stage 1 does not say its epochs; give a whole number of at least 1."),
        ([{"epochs": 1}, {"epochs": 0}], "Stage 2: epochs is 0; give a whole number of at least 1."),
        ([{"epochs": 1}, {"epochs": 1, "T": 2}],
         "Stage 2 has unknown keys T; allowed are epochs, num_steps, method, hyperparameters, optimizer."),
        ([{"epochs": 1, "optimizer": "continue"}, {"epochs": 1}],
         "Stage 1 has optimizer 'continue', but there is none before it; give 'restart'."),
        ([{"epochs": 1}, {"epochs": 1, "optimizer": "keep"}],
         "Stage 2: optimizer is 'keep'; give one of 'restart', 'continue'."),
        ([{"epochs": 1}, {"epochs": 1, "hyperparameters": {"decay": 1}}],
         "Stage 2: sdt has no hyperparameter 'decay'; it has none."),
    ],
)  # fmt: skip
def test_impossible_stages_are_refused(stages, said):
    with pytest.raises(ValueError, match=sentence(said)):
        RunConfig(stages=stages)


# --- network, precision, classes ---


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"width": 0}, "width is 0; give a finite number above 0."),
        ({"amp": "half"}, "amp is 'half'; give one of 'off', 'bf16', 'fp16'."),
        ({"channels_last": 1}, "channels_last is 1; give true or false."),
        ({"compile": "no"}, "compile is 'no'; give true or false."),
        ({"image_size": 0}, "image_size is 0; give a whole number of at least 1."),
        ({"neuron": "LIF"}, "neuron is 'LIF'; give an object of names and values."),
        ({"neuron": {"tau": 2.0}}, "neuron has unknown keys tau; allowed are leak, scale_input, threshold, reset, "
                                   "detach_reset, surrogate, sharpness."),
        ({"neuron": {"leak": 2}}, "leak is 2; give a number from 0 (no memory) to 1 (integrate-and-fire)."),
        ({"classes": ["cat"]}, "classes is \"['cat']\"; give a list of at least two different class names."),
        ({"classes": ["cat", "cat"]}, "classes is \"['cat', 'cat']\"; give a list of at least two different class names."),
    ],
)  # fmt: skip
def test_impossible_systems_are_refused(changed, said):
    with pytest.raises(ValueError, match=sentence(said)):
        RunConfig(**changed)


def test_the_neuron_is_written_out_in_full():
    config = RunConfig(neuron={"leak": 0.25}, classes=["a", "b"])
    assert config.to_dict()["neuron"] == {
        "leak": 0.25, "scale_input": False, "threshold": 1.0, "reset": "hard", "detach_reset": False,
        "surrogate": "triangle", "sharpness": None,
    }  # fmt: skip
    assert config.neuron_options().leak == 0.25 and RunConfig().neuron_options() is None
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_stage_to_and_from_a_plain_dict():
    stage = Stage(3, num_steps=6, method="trt", hyperparameters={"decay": 0.5}, optimizer="continue")
    plain = json.loads(json.dumps(stage.to_dict()))
    assert plain["hyperparameters"]["strength"] == 1e-5 and Stage.from_dict(plain) == stage
    with pytest.raises(ValueError, match=r"^A stage has unknown keys epoch; allowed are epochs, num_steps, "):
        Stage.from_dict({"epoch": 3})
    with pytest.raises(ValueError, match=r"^A stage does not say its epochs; give a whole number of at least 1\.$"):
        Stage.from_dict({})
    with pytest.raises(ValueError, match=r"^A stage is list; give a JSON object\.$"):
        Stage.from_dict([])
