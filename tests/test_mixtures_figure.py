"""The figure of mixtures: what its outcome says, and in what its trainings differ."""

import pytest
from helpers.figures import result

from workers.figures import figure, mixtures
from workers.figures.mixtures import AUGMENTED, ES, ONE_FAMILY, RAW, WHOLE, Training

WOBBLE = (-0.002, -0.001, 0.0, 0.001, 0.002)  # of the seeds


def training(variant, seed, end, seconds=100.0):
    losses = [2.0, 2.0 - (2.0 - end) / 2, end * (1 + WOBBLE[seed])]
    return result(Training, variant=variant, seed=seed, losses=losses, seconds=[0.0, seconds / 2, seconds])


def results(seeds=5, **ends):
    """The whole recipe ends at 1, each other variant as given or 5 % above; es takes 12 times as long to the same loss."""
    given = {ONE_FAMILY: 1.05, RAW: 1.05, AUGMENTED: 0.95, ES: 1.0} | {
        name.replace("_", " "): end for name, end in ends.items()
    }
    found = [training(WHOLE, seed, 1.0) for seed in range(seeds)]
    for variant, end in given.items():
        found += [training(variant, seed, end, 1200.0 if variant == ES else 100.0) for seed in range(seeds)]
    return found


@pytest.mark.parametrize(
    "ends, holds",
    [({}, True), ({"one_family": 0.9}, False), ({"no_normalizer": 1.0}, None), ({"augmented": 1.1}, False)],
)
def test_outcome_needs_every_part(ends, holds):
    assert mixtures.outcome(results(**ends)).holds is holds


def test_outcome_of_few_seeds_is_undecided_and_says_the_numbers():
    found = mixtures.outcome(results(seeds=3))
    assert (
        found.holds is None
        and "fewer than 5 samples" in found.sentence
        and "one family (ends at 1.05" in found.sentence
    )


def test_outcome_pairs_the_seeds_that_both_have():
    some = [one for one in results() if not (one.variant == RAW and one.seed < 2)]
    pairs = mixtures.by_variant(some)
    assert mixtures.against(pairs[RAW], pairs[WHOLE]).loss.value == pytest.approx(1.05, rel=1e-3)


def test_losses_are_compared_at_the_cpu_time_of_the_shorter_run():
    whole, slower = training(WHOLE, 2, 1.0), training(ES, 2, 1.0, seconds=200.0)
    assert mixtures.against([slower], [whole]).loss.value == pytest.approx(1.5)
    assert mixtures.against([slower], [whole]).seconds.value == pytest.approx(0.5)


def test_trainings_differ_in_what_their_variant_says():
    """All share rule, outer optimizer and curriculum; es holds no window, because no rp says when."""
    chosen = mixtures.SCALES["mini"]
    configs = {job.variant: figure.config_of(job.settings) for job in mixtures.jobs("mini", []) if job.seed == 1}
    whole = configs[WHOLE]
    assert configs.keys() == chosen.variants.keys() and len(whole.members) == 8
    assert (
        len(
            {
                (c.optimizer, c.outer.learning_rate, c.outer.clip_value, c.outer.batch_samples, c.seed)
                for c in configs.values()
            }
        )
        == 1
    )
    alone = configs[ONE_FAMILY].members
    conv = next(member.config for member in whole.members if member.name == "conv")
    assert (alone[0].config.task, alone[0].config.dataset.image_size) == (conv.task, conv.dataset.image_size)
    assert (configs[ONE_FAMILY].estimator, configs[ONE_FAMILY].curriculum) == (whole.estimator, whole.curriculum)
    assert {member.config.task.normalizer for member in configs[RAW].members} == {"none"}
    assert all(member.config.task.augment for member in configs[AUGMENTED].members)
    assert (configs[ES].estimator.use, configs[ES].curriculum.hold) == ("es", False)
    unseen = figure.config_of(chosen.judge).members
    assert all(member.config.optimizer == whole.optimizer for member in unseen)
    trained_on = [member.config.task for member in whole.members]
    assert not any(member.config.task in trained_on for member in unseen)
