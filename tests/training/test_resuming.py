"""A run resumes to the bit, from its own checkpoint only, and no checkpoint holds what is not finite."""

import math

import pytest
import torch

from cm_ray.errors import UserError
from cm_ray.runs.checkpoint import CheckpointStore
from tests.training.engines import VARIANTS, engine, run, small, teacher, weights


@pytest.mark.parametrize(
    ("variant", "at"),
    [
        *((variant, 3) for variant in VARIANTS),
        *(("pd", at) for at in (1, 4)),  # a round ends at 3
        *(
            pytest.param(variant, at, marks=pytest.mark.exhaustive)
            for variant in VARIANTS
            for at in (1, 4)
            if variant != "pd"
        ),
    ],
)
def test_a_resumed_run_ends_with_the_same_bits(variant, at, tmp_path):
    config = small(variant)
    whole = engine(config)
    run(whole)
    first = engine(config)
    run(first, at)
    store = CheckpointStore(tmp_path, keep=1)
    store.save(first.checkpoint())
    store.close()
    second = engine(small(variant))
    torch.manual_seed(99)  # whatever global state the new process has
    second.restore(store.load(at))
    run(second)
    ended, expected = second.checkpoint(), whole.checkpoint()
    assert ended.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert torch.equal(ended.tensors[name], tensor), name


def test_training_starts_from_given_weights():
    config = small()
    given = teacher(engine(config).spec).network.state_dict()
    made = engine(config, initial=given)
    for name, value in made.student.network.state_dict().items():
        assert torch.equal(value, given[name])
    for name, value in made.averaged_weights().items():
        assert torch.equal(value, given[name])
    with pytest.raises(UserError, match=r"init_from\.model belongs to another network"):
        engine(small("wider"), initial=given)


def test_a_loss_that_is_not_finite_stops_before_a_checkpoint():
    made = engine(small("diverging"))
    with pytest.raises(
        UserError, match=r"The loss is (nan|inf) at step \d. Start again in another directory"
    ):
        run(made)
    made = engine(small())
    run(made, 1)
    made.losses.add(1, torch.tensor(math.nan))
    with pytest.raises(UserError, match="nan at step 1"):
        made.checkpoint()
    made.student.network.out[2].bias.data[0] = math.inf  # as gradients of another worker may do
    with pytest.raises(UserError, match="The weights are not finite after step 1"):
        made.checkpoint()


def test_a_checkpoint_of_another_network_is_refused():
    made = engine(small())
    with pytest.raises(UserError, match="belongs to another network"):
        engine(small("wider")).restore(made.checkpoint())
    with pytest.raises(UserError, match="has no target"):
        engine(small("paper")).restore(made.checkpoint())


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    a = weights(engine(small()))
    state = torch.get_rng_state()
    b = weights(engine(small()))
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    assert torch.equal(a, b)
    assert not torch.equal(a, weights(engine(small(seed=1))))
