"""TOML to Config and back: nothing is lost, unknown and ill-typed keys are named, later overrides win."""

from dataclasses import asdict, fields, is_dataclass, replace

import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import configfile
from common.config import Config, OuterConfig, TaskConfig
from common.configfile import dump, from_dict, load, merge, parse
from common.errors import UserError


def error_of(text="", *overrides):
    with pytest.raises(UserError) as error:
        from_dict(merge(parse(text, "run.toml"), overrides))
    return str(error.value)


def test_from_dict_empty_tree_gives_the_defaults():
    assert from_dict({}) == Config()


def test_load_override_wins_over_the_preset():
    changed = load("quickstart", ["outer.updates=7"])
    assert changed == replace(load("quickstart"), outer=replace(load("quickstart").outer, updates=7))


def test_load_paper_preset_has_the_papers_numbers():
    paper = load("paper")
    assert (paper.task.units, paper.task.strides, paper.task.inner_steps) == ((32, 32, 32), (2, 1, 1), 10_000)
    assert (paper.curriculum.start, paper.curriculum.end, paper.curriculum.updates) == (50, 10_000, 5000)
    assert paper.estimator.sigma**2 == pytest.approx(0.01)
    assert (paper.estimator.outer_batches, paper.estimator.clamp, paper.outer.batch_samples) == (5, 10.0, 128)
    release = load("paper-release").outer
    assert (release.learning_rate, release.schedule, release.options) == (1e-5, "constant", {"b1": 0.5})
    assert release.clip_value == 0.05  # of the mean of two branches, whose sum the release clips at 0.1
    assert replace(load("paper-release"), outer=paper.outer) == paper


def test_load_paper_preset_can_move_theta_as_far_as_needed():
    """The rates of Adam bound the displacement of a coordinate; a tenth of those learned at mini moved by 0.35 or more."""

    def reach(outer):
        shape = optax.cosine_decay_schedule(1.0, outer.updates) if outer.schedule == "cosine" else lambda step: 1.0
        return outer.learning_rate * sum(float(shape(step)) for step in range(0, outer.updates, 100)) * 100

    assert reach(load("paper-release").outer) == pytest.approx(0.1) and reach(load("paper").outer) > 2 * 0.35


@pytest.mark.parametrize("name", configfile.preset_names())
def test_load_every_preset_survives_a_round_trip(name):
    config = load(name)
    assert from_dict(parse(dump(config), "dump")) == config


def test_dump_holds_every_key():
    tree = parse(dump(Config()), "dump")
    want = asdict(Config())
    assert set(tree) == set(want) - {"mixture"}  # an empty list of tables cannot be written
    assert all(set(tree[key]) == set(want[key]) for key in want if isinstance(want[key], dict))


LEAF = st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
OPTIONS = st.dictionaries(
    st.text(), st.recursive(LEAF, lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=4), max_size=3
)


@given(st.text(), OPTIONS, OPTIONS, st.floats(1e-300, 1e300))
def test_dump_any_text_and_options_survive_a_round_trip(path, task_options, outer_options, rate):
    tree = {
        "task": {"family": "my.tasks:family", "options": task_options},
        "dataset": {"path": path},
        "outer": {"options": outer_options, "learning_rate": rate},
    }
    config = from_dict(tree)
    assert config.dataset.path == path and config.outer.learning_rate == rate
    assert from_dict(parse(dump(config), "dump")) == config


SECTIONS = [f.name for f in fields(Config) if is_dataclass(getattr(Config(), f.name))]


@pytest.mark.parametrize("section", SECTIONS)
def test_from_dict_unknown_key_names_the_nearest(section):
    for key in asdict(getattr(Config(), section)):
        misspelt = key[:-1] + "zz" if len(key) > 3 else key + "z"
        assert error_of(f"[{section}]\n{misspelt} = 1") == (
            f"unknown key {section}.{misspelt}: did you mean {section}.{key}?"
        )


@pytest.mark.parametrize("section", SECTIONS)
def test_from_dict_unknown_section_names_the_nearest(section):
    assert error_of(f"[{section}z]") == f"unknown key {section}z: did you mean {section}?"


def test_from_dict_key_unlike_any_lists_the_known_ones():
    assert "known keys are workers.count, workers.segment" in error_of("[workers]\nxyzzy = 1")


@pytest.mark.parametrize(
    "text, parts",
    [
        ("seed = 1.0", ("seed = 1.0", "int is expected, not float")),
        ("seed = true", ("seed", "int is expected, not bool")),
        ("task = 3", ("task = 3", "[task]")),
        ('[outer]\nupdates = "10"', ("outer.updates = '10'", "int is expected, not str")),
        ("[outer]\nlearning_rate = true", ("outer.learning_rate", "float is expected, not bool")),
        ("[outer]\nlearning_rate = nan", ("outer.learning_rate = nan", "finite")),
        ("[estimator]\nclamp = inf", ("estimator.clamp = inf", "finite")),
        ("[estimator]\nclamp = -inf", ("estimator.clamp = -inf", "finite")),
        ("[outer]\njournal = 1", ("outer.journal = 1", "bool is expected, not int")),
        ("[task]\nfamily = 1", ("task.family = 1", "str is expected")),
        ("[task]\nunits = 4", ("task.units = 4", "a list of int")),
        ("[task]\nunits = [4, 4.5, 4]", ("task.units = 4.5", "int is expected, not float")),
        ("[task]\noptions = 4", ("task.options = 4", "a table is expected")),
        ("[task.options]\nrate = nan", ("task.options.rate = nan", "finite")),
        ("[task.options]\na = {b = [2024-01-01]}", ("task.options.a.b = 2024-01-01", "not a date")),
        ("seed = 9223372036854775808", ("seed needs 65 bits", "at most 64 bits")),
        ("[outer]\nlearning_rate = 1" + 400 * "0", ("outer.learning_rate needs 1330 bits", "at most 64 bits")),
        ("seed = ", ("run.toml", "not valid TOML")),
    ],
)
def test_from_dict_wrong_type_is_rejected_by_name(text, parts):
    sentence = error_of(text)
    assert all(part in sentence for part in parts), sentence


def test_from_dict_int_is_converted_to_float():
    rate = from_dict({"outer": {"learning_rate": 1}}).outer.learning_rate
    assert rate == 1.0 and type(rate) is float


def test_merge_toml_and_bare_words_last_override_wins():
    overrides = ["outer.updates=3", "estimator.use=es", "task.units = [4, 4]", "task.strides=[1,2]", "outer.updates=7"]
    overrides += ["task.family=a:b", "task.options.dimension=5", "outer.options={b1 = 0.5}", "seed=4"]
    config = from_dict(merge({}, overrides))
    assert config.outer == OuterConfig(updates=7, options={"b1": 0.5})
    assert config.task == TaskConfig(family="a:b", units=(4, 4), strides=(1, 2), options={"dimension": 5})
    assert config.estimator.use == "es" and config.seed == 4


def test_merge_does_not_change_its_argument():
    tree = {"task": {"options": {"dimension": 2}}}
    assert merge(tree, ["task.options.dimension=5"])["task"]["options"] == {"dimension": 5}
    assert tree == {"task": {"options": {"dimension": 2}}}


@pytest.mark.parametrize(
    "override, part",
    [
        ("outer.updates", "write section.key=value"),
        ("=3", "write section.key=value"),
        ("outer.update=3", "did you mean outer.updates?"),
        ("updates=3", "unknown key updates"),
        ("outer.updates=many", "int is expected, not str"),
        ("outer.updates=", "int is expected, not str"),
        ("seed.x=3", "seed = {'x': 3}"),
        ("task.family.x=3", "task.family = {'x': 3}"),
        ("estimator.sigma=0", "leaves es undefined"),
    ],
)
def test_merge_bad_override_is_rejected(override, part):
    assert part in error_of("", override)


def test_merge_override_below_a_value_is_rejected():
    assert "seed is a value, not a section" in error_of("seed = 1", "seed.x=3")


def test_load_unreadable_file_lists_the_presets(tmp_path):
    good = tmp_path / "run.toml"
    good.write_bytes('[dataset]\npath = "Bücher"'.encode())
    assert load(str(good)).dataset.path == "Bücher"
    (tmp_path / "latin.toml").write_bytes('[dataset]\npath = "Bücher"'.encode("latin1"))
    for bad in (tmp_path, tmp_path / "latin.toml", tmp_path / "missing.toml", "quickstrat"):
        with pytest.raises(UserError, match=r"presets are .*paper, paper-release, quickstart"):
            load(str(bad))


@pytest.mark.parametrize(
    "override, value",
    [
        ("outer.learning_rate=.003", 0.003),
        ("outer.learning_rate=1.", 1.0),
        ("outer.learning_rate=-.5e-3", None),
        ("outer.journal=True", True),
        ("outer.journal=FALSE", False),
        ("dataset.path=2012", "2012"),
        ("dataset.path=1.50", "1.50"),
        ("dataset.path=2012-01-01", "2012-01-01"),
        ("dataset.path=true", "true"),
        ('dataset.path="2012"', "2012"),
        ("task.units=16,16,16", (16, 16, 16)),
        ("task.units=16, 8,4", (16, 8, 4)),
        ("evaluation.baselines=adam", ("adam",)),
        ("evaluation.baselines=adam,sgd", ("adam", "sgd")),
        ('evaluation.baselines="adam, sgd"', ("adam", "sgd")),
        ('task.units="16,8,4"', (16, 8, 4)),
        ('task.augment=""', ()),
    ],
)
def test_override_follows_the_type_of_its_key(override: str, value: object) -> None:
    if value is None:
        with pytest.raises(UserError, match=r"-0\.0005: must be more than 0"):
            load("quickstart", [override])
        return
    section, _, key = override.partition("=")[0].partition(".")
    assert getattr(getattr(load("quickstart", ["task.family=conv", override]), section), key) == value


@pytest.mark.parametrize(
    "override, part",
    [
        ("outer.updates=5.", "int is expected, not str"),
        ("outer.updates=5.0", "int is expected, not float"),
        ("outer.journal=1", "bool is expected, not int"),
        ("outer.learning_rate=abc", "float is expected, not str"),
        ("task.units=16,x", "int is expected, not str"),
        ("dataset.path=[1]", "str is expected, not list"),
        ("seed=1,2", "int is expected, not str"),
    ],
)
def test_override_of_another_type_stays_rejected(override: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        load("quickstart", [override])
