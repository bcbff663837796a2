"""Random numbers: reproducible, independent of the batch they are drawn in, with the right law."""

import numpy as np
import pytest
import torch
from helpers import HELPFUL, seeded
from scipy.stats import kstest

from kodm_lite.randomness import generators_from_seeds, normal, one_generator_per_seed, uniform


@pytest.mark.parametrize(("draw", "law"), [(normal, "norm"), (uniform, "uniform")])
@pytest.mark.parametrize("generator", [seeded(1), generators_from_seeds(range(20))], ids=["one", "one per image"])
def test_numbers_have_their_law(draw, law, generator):
    x = draw(torch.empty(20, 500, dtype=torch.float64), generator)
    assert kstest(x.flatten().numpy(), law).pvalue > 0.01


@pytest.mark.parametrize("draw", [normal, uniform])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_look_like_their_model(draw, dtype):
    like = torch.zeros(2, 3, 4, dtype=dtype)
    for generator in (None, seeded(0), generators_from_seeds([4, 5])):
        x = draw(like, generator)
        assert x.shape == like.shape and x.dtype == dtype
    assert torch.equal(like, torch.zeros_like(like))


@pytest.mark.parametrize("draw", [normal, uniform])
def test_an_image_with_its_own_generator_does_not_depend_on_the_batch(draw):
    batch = draw(torch.empty(3, 2, 5), generators_from_seeds([10, 11, 12]))
    for k, seed in enumerate([10, 11, 12]):
        assert torch.equal(batch[k], draw(torch.empty(1, 2, 5), generators_from_seeds([seed]))[0])
        assert torch.equal(batch[k], draw(torch.empty(2, 5), seeded(seed)))
    assert torch.equal(draw(torch.empty(2, 2, 5), tuple(generators_from_seeds([12, 10]))), batch[[2, 0]])


@pytest.mark.parametrize("draw", [normal, uniform])
def test_the_same_seed_repeats_and_a_generator_moves_on(draw):
    generator = seeded(3)
    first, second = draw(torch.empty(5), generator), draw(torch.empty(5), generator)
    assert torch.equal(first, draw(torch.empty(5), seeded(3)))
    assert not torch.equal(first, second)


def test_without_a_generator_the_global_one_is_used():
    torch.manual_seed(7)
    first = normal(torch.empty(5))
    torch.manual_seed(7)
    assert torch.equal(first, normal(torch.empty(5)))


def test_a_given_generator_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    normal(torch.empty(5), seeded(0))
    uniform(torch.empty(2, 5), generators_from_seeds([0, 1]))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("shape", "seeds"), [((3, 2), [1, 2]), ((1, 2), [1, 2]), ((), [1])])
def test_another_number_of_generators_than_images_is_refused(shape, seeds):
    with pytest.raises(ValueError, match=HELPFUL):
        normal(torch.empty(shape), generators_from_seeds(seeds))


def test_seeds_make_generators_in_order():
    assert [g.initial_seed() for g in generators_from_seeds([5, 3, 2**40])] == [5, 3, 2**40]


@pytest.mark.parametrize(
    "seeds", [(3, 1), np.array([3, 1]), np.array([3, 1], np.uint8), torch.tensor([3, 1]), list(np.array([3, 1]))]
)
def test_seeds_may_be_any_sequence_of_integers(seeds):
    for generators in (generators_from_seeds(seeds), one_generator_per_seed(seeds, 2, None, "cpu")):
        assert [g.initial_seed() for g in generators] == [3, 1]
    assert len(one_generator_per_seed(range(4), 4, None, "cpu")) == 4
    assert [g.initial_seed() for g in generators_from_seeds([-(2**63), 2**64 - 1])] == [2**63, 2**64 - 1]


@pytest.mark.parametrize(
    ("seeds", "named"),
    [
        ([0.1, 0.2], "0.1"),
        (np.array([0.0, 1.0]), "0.0"),
        (torch.ones(2), "1.0"),
        ("12", "'12'"),
        (["1", "2"], "'1'"),
        (b"12", "b'12'"),
        (np.arange(2)[None], "array"),
        (torch.tensor(3), "tensor"),
        ({1, 2}, "{1, 2}"),
        (7, "7"),
        ([2**65, 1], str(2**65)),
        ([1, -(2**63) - 1], str(-(2**63) - 1)),
    ],
    ids=repr,
)
def test_what_are_no_seeds_is_refused_and_named(seeds, named):
    for make in (generators_from_seeds, lambda seeds: one_generator_per_seed(seeds, 2, None, "cpu")):
        with pytest.raises(ValueError, match=HELPFUL) as refused:
            make(seeds)
        assert f"seeds: got {named}" in str(refused.value)


@pytest.mark.parametrize("generator", [3, [1, 2], "ab", [seeded(0), 3], np.random.default_rng(0)])
def test_what_are_no_generators_is_refused(generator):
    for draw in (normal, uniform, lambda like, g: one_generator_per_seed(None, 2, g, "cpu")):
        with pytest.raises(ValueError, match=f"generator: {HELPFUL[4:]}"):
            draw(torch.empty(2, 5), generator)
