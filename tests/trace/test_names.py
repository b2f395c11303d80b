"""Which activations a pattern means, and what is said when it means none."""

import pytest

from persimmon_lab.trace.names import first_tensor, matches, sites
from tests.models import ids, tiny


@pytest.mark.parametrize(
    ("pattern", "does"),
    [
        ("model.layers.3.mlp", True),
        ("layers.3.mlp", True),
        ("mlp", True),
        ("*.mlp", True),
        ("layers.[0-3].mlp", True),
        ("*mlp", True),
        ("model.layers.?.mlp", True),
        ("lp", False),
        ("layers.3", False),
        ("model.layers.3", False),
        ("ayers.3.mlp", False),
        ("MLP", False),
        ("", False),
    ],
)
def test_a_pattern_is_a_whole_path_or_its_end_after_a_dot(pattern, does):
    assert matches("model.layers.3.mlp", [pattern]) is does
    assert matches("model.layers.3.mlp", ["nothing", pattern]) is does


def test_no_patterns_are_not_an_empty_list():
    assert matches("lm_head", None)
    assert not matches("lm_head", [])


def test_a_layer_is_not_the_layer_with_one_digit_more():
    model = tiny(num_hidden_layers=11)
    assert [site.name for site in sites(model, ["layers.1"])] == ["model.layers.1"]


def test_places_come_in_the_models_order_with_inputs_before_outputs():
    model = tiny()
    names = [site.name for site in sites(model, ["lm_head", "layers.1:input", "layers.1", "mlp:input", "layers.0.mlp"])]
    assert names == [
        "model.layers.0.mlp:input",
        "model.layers.0.mlp",
        "model.layers.1:input",
        "model.layers.1",
        "model.layers.1.mlp:input",
        "lm_head",
    ]
    assert [site.name for site in sites(model, "lm_head")] == ["lm_head"]


def test_everything_is_every_output_of_what_runs():
    model = tiny()
    assert {site.path: site.module for site in sites(model, None)} == {
        path: module for path, module in model.named_modules() if path not in ("", "model.layers")
    }
    assert not any(site.is_input for site in sites(model, None))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("patern", "'pattern'"),
        ("layers.0.mpl", "'layers.0.mlp'"),
        ("rotated_qery:input", "'rotated_query'"),
        ("model.layers.9.mlp", "'model.layers.[01].mlp'"),
        ("zzz", "names look like 'lm_head'"),
        ("layers", "'layers.0'|no module"),
    ],
)
def test_a_pattern_for_nothing_suggests_names_that_look_like_it(pattern, message):
    with pytest.raises(ValueError, match=f"no module matches '{pattern}'.*{message}"):
        sites(tiny(), ["lm_head", pattern])


def test_the_first_tensor_of_what_a_module_made():
    tensor = ids().float()
    assert first_tensor(tensor) is tensor
    assert first_tensor((tensor, None)) is tensor
    assert first_tensor((None, tensor)) is None
    assert first_tensor(()) is first_tensor("text") is first_tensor(ids()) is None
