"""The step is the papers', resumes to the bit, and does not care how a global batch is split."""

import dataclasses
import math

import pytest
import torch

from cm_ray import recipes
from cm_ray.core.noise import Purpose, normal, uniform
from cm_ray.core.schedules import AdaptiveScales
from cm_ray.core.times import karras_times
from cm_ray.errors import UserError
from cm_ray.networks.model import Model, ModelSpec, from_uint8
from cm_ray.networks.perceptual import lpips_distance
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.sampling.text import own_sampler
from cm_ray.settings.tree import override
from cm_ray.training.batch import Batch, Share
from cm_ray.training.engine import Engine

SMALL = {
    "steps": 6,
    "batch_size": 8,
    "network.channels": 8,
    "network.blocks": 1,
    "network.head_channels": 8,
    "network.norm_groups": 4,
    "ema_decays": (0.5, 0.9),
    "data.horizontal_flip": True,
    "network.conditional": False,
    "optimizer.learning_rate": 1e-3,
    "optimizer.beta2": 0.999,
}
PAPER = {  # consistency training as in the paper, with a distance that needs no weights
    "schedule.scales": "adaptive",
    "schedule.s0": 2,
    "schedule.s1": 20,
    "schedule.target": "adaptive",
    "schedule.mu0": 0.9,
    "schedule.proposal": "uniform",
    "schedule.weight": "uniform",
    "distance.name": "l2",
}
DENOISER = {
    "diffusion.boundary": "none",
    "schedule.target": "constant",
    "schedule.mu0": 0.0,
    "distance.name": "l2",
}
EDM = DENOISER | {"method": "edm", "schedule.proposal": "continuous", "schedule.weight": "karras"}
CD = PAPER | {
    "method": "cd",
    "teacher.model": "given",
    "schedule.scales": "constant",
    "schedule.target": "constant",
    "schedule.mu0": 0.9,
}
PD = DENOISER | {
    "method": "pd",
    "teacher.model": "given",
    "schedule.scales": "halving",
    "schedule.proposal": "uniform",
    "schedule.s0": 1,
    "schedule.s1": 2,
    "schedule.weight": "truncated-snr",
    "optimizer.decay": "linear",
}
ECT = {"schedule.proposal": "continuous", "distance.name": "norm", "optimizer.warmup_steps": 2}
IMAGES = torch.randint(0, 256, (32, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(32) % 10


def small(**changes):
    return override(recipes.ict_digits(), SMALL | {k.replace("__", "."): v for k, v in changes.items()})


def engine(config, **options):
    names = tuple("0123456789")
    spec = ModelSpec(
        network=config.network,
        diffusion=config.diffusion,
        shape=(1, 8, 8),
        class_names=names,
        sampler=own_sampler(config),
    )
    return Engine(config, spec, **{"teacher": teacher(spec)} | options)


def teacher(spec):
    """A denoiser with weights that are not zero anywhere, with dropout that must not be used."""
    diffusion = dataclasses.replace(spec.diffusion, boundary="none")
    network = dataclasses.replace(spec.network, dropout=0.5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = Model(dataclasses.replace(spec, diffusion=diffusion, network=network))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def batches(made):
    """The worker's share of global batches that go round the images."""
    config, share = made.config, made.share
    rows = config.batch_size // share.world
    while True:
        first = made.step * config.batch_size + share.rank * rows
        index = torch.arange(first, first + rows) % len(IMAGES)
        yield Batch(IMAGES[index], LABELS[index])


def run(made, steps=None):
    stats = []
    for one in made.train(batches(made)):
        stats.append(one)
        if one.step == steps:
            break
    return stats


def weights(made):
    return torch.cat([p.detach().flatten() for p in made.student.parameters()])


VARIANTS = {
    "ict": {},
    "paper": PAPER,
    "dropout": {"network.dropout": 0.3},
    "edm": EDM,
    "cd": CD,
    "pd": PD,
    "ect": ECT,
    "conditional": {"network.conditional": True},
    "accumulated": {"accumulate": 2, "optimizer.gradient_clip": 1.0, "optimizer.weight_decay": 0.01},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("at", [1, 3, 4])  # a round of progressive distillation ends at 3
def test_a_resumed_run_ends_with_the_same_bits(variant, at, tmp_path):
    config = override(small(), VARIANTS[variant])
    whole = engine(config)
    run(whole)
    first = engine(config)
    run(first, at)
    store = CheckpointStore(tmp_path, keep=1)
    store.save(first.checkpoint())
    store.close()
    second = engine(override(config, {"seed": config.seed}))
    torch.manual_seed(99)  # whatever global state the new process has
    second.restore(store.load(at))
    run(second)
    ended, expected = second.checkpoint(), whole.checkpoint()
    assert ended.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert torch.equal(ended.tensors[name], tensor), name


@pytest.mark.parametrize("variant", ["ict", "paper", "edm", "cd", "pd", "ect"])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_gradient_in_parts_is_that_of_the_whole(variant, recompute):
    """Two workers with four parts each, with and without recomputing activations, to float32's rounding."""
    config = override(small(batch_size=16), VARIANTS[variant])
    whole = engine(config)
    whole.add_gradients(next(batches(whole)))
    parted = override(config, {"accumulate": 4, "network.gradient_checkpointing": recompute})
    shares = [engine(parted, share=Share(rank, 2)) for rank in range(2)]
    for made in shares:
        made.add_gradients(next(batches(made)))
    for parameter, a, b in zip(*(made.student.parameters() for made in [whole, *shares]), strict=True):
        if parameter.grad is not None:
            torch.testing.assert_close((a.grad + b.grad) / 2, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", ["ict", "paper", "edm", "cd", "pd", "ect"])
def test_parts_of_a_batch_add_up(variant):
    config = override(small(), VARIANTS[variant])
    one, four = engine(config), engine(override(config, {"accumulate": 4}))
    run(one)
    run(four)
    torch.testing.assert_close(weights(one), weights(four), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", ["ict", "edm", "cd", "pd", "ect"])
def test_workers_shares_are_the_global_batch(variant):
    """Gradients of two shares average to that of the whole: the same times, noise and flips."""
    config = override(small(), VARIANTS[variant])
    whole = engine(config)
    whole._loss(next(batches(whole)), 0, 8).backward()
    shares = [engine(config, share=Share(rank, 2)) for rank in range(2)]
    for made in shares:
        made._loss(next(batches(made)), 0, 4).backward()
    for parameter, a, b in zip(*(made.student.parameters() for made in [whole, *shares]), strict=True):
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, (a.grad + b.grad) / 2, rtol=1e-4, atol=1e-6)


def test_a_step_is_algorithm_3():
    """Against the algorithm written out line by line with autograd and torch's own RAdam."""
    config = small(**PAPER, data__horizontal_flip=False)
    made = engine(config)
    torch.manual_seed(0)
    for parameter in made.student.parameters():  # leave the zero initialisation
        parameter.data += 0.05 * torch.randn_like(parameter)
    made.target.load_state_dict(made.student.state_dict())
    reference, target = engine(config).student, engine(config).student
    reference.load_state_dict(made.student.state_dict())
    target.load_state_dict(made.student.state_dict())
    optimizer = torch.optim.RAdam(reference.parameters(), lr=1e-3)
    scales = AdaptiveScales(2, 20, 6)
    for k in range(3):
        batch = next(batches(made))
        stats = made.one_step(batch)
        n, positions = scales(k), torch.arange(8)
        grid = karras_times(n)
        index = (uniform(0, k, positions, Purpose.TIMES, (1,))[:, 0].double() * (n - 1)).long()
        t, s = grid[index + 1].float(), grid[index].float()
        z = normal(0, k, positions, Purpose.NOISE, (1, 8, 8))
        x = from_uint8(batch.images)
        x_t, x_s = x + t.view(-1, 1, 1, 1) * z, x + s.view(-1, 1, 1, 1) * z
        loss = (reference(x_t, t) - target(x_s, s).detach()).square().flatten(1).mean(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mu = math.exp(2 * math.log(0.9) / n)
        with torch.no_grad():
            for old, new in zip(target.parameters(), reference.parameters(), strict=True):
                old.copy_(mu * old + (1 - mu) * new)
        assert stats.gauges == {"num_scales": n, "target_decay": pytest.approx(mu), "learning_rate": 1e-3}
        torch.testing.assert_close(stats.loss, loss.detach(), rtol=1e-5, atol=1e-7)
    for a, b in zip(made.target.parameters(), target.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("variant", ["ict", "paper", "cd"])
def test_student_and_target_see_the_same_dropout_mask(variant, device):
    """With equal weights and s = t, only different masks could make the outputs differ."""
    config = override(small(), VARIANTS[variant] | {"network.dropout": 0.5})
    made = engine(config, device=device)
    for parameter in made.student.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    made.student.train()
    seen = []
    watched = [made.student] if made.target is None else [made.student, made.target]
    if made.target is not None:
        made.target.load_state_dict(made.student.state_dict())
        assert made.target is not made.student
    for model in watched:
        model.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    made.time_pairs = lambda step, uniforms: (torch.ones(8, device=device),) * 2
    made._loss(next(batches(made)), 0, 8)
    assert torch.equal(seen[0], seen[1])
    made._seed_dropout = lambda first: None
    made._loss(next(batches(made)), 0, 8)
    assert not torch.equal(seen[2], seen[3])


def draws(k):
    """The numbers of a step of a batch of 8."""
    positions = torch.arange(8)
    return (
        uniform(0, k, positions, Purpose.TIMES, (1,))[:, 0],
        normal(0, k, positions, Purpose.NOISE, (1, 8, 8)),
    )


def column(t):
    return t.view(-1, 1, 1, 1)


def test_a_step_is_algorithm_2():
    """Distillation, written out: Heun with the teacher's ODE, target average, teacher without dropout."""
    config = override(small(), CD | {"schedule.s1": 17})
    made = engine(config)
    guide = teacher(made.spec).eval()
    reference, target = engine(config).student, engine(config).student
    optimizer = torch.optim.RAdam(reference.parameters(), lr=1e-3)
    for k in range(3):
        batch = next(batches(made))
        stats = made.one_step(batch)
        u, z = draws(k)
        grid = karras_times(18)
        index = (u.double() * 17).long()
        t, s = grid[index + 1].float(), grid[index].float()
        flip = uniform(0, k, torch.arange(8), Purpose.FLIP, (1,))[:, 0] < 0.5
        x = from_uint8(batch.images)
        x = torch.where(column(flip), x.flip(-1), x)
        with torch.no_grad():
            x_t = x + column(t) * z
            first = (x_t - guide(x_t, t)) / column(t)
            euler = x_t + column(s - t) * first
            second = (euler - guide(euler, s)) / column(s)
            aim = target(x_t + column(s - t) * (first + second) / 2, s)
        loss = (reference(x_t, t) - aim).square().flatten(1).mean(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for old, new in zip(target.parameters(), reference.parameters(), strict=True):
                old.copy_(0.9 * old + 0.1 * new)
        assert stats.gauges["num_scales"] == 18
        torch.testing.assert_close(stats.loss, loss.detach(), rtol=1e-4, atol=1e-6)
    for a, b in zip(made.target.parameters(), target.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_denoiser_learns_the_clean_image_by_karras_weight():
    config = override(small(data__horizontal_flip=False), EDM)
    made = engine(config)
    batch = next(batches(made))
    u, z = draws(0)
    t, _ = made.time_pairs(0, u)
    x, sigma = from_uint8(batch.images), 0.75
    error = (made.student(x + column(t) * z, t) - x).square().flatten(1).mean(1)
    expected = ((t**2 + sigma**2) / (t * sigma) ** 2 * error).mean()
    torch.testing.assert_close(made._loss(batch, 0, 8), expected)


def test_rounds_of_progressive_distillation():
    """The student of a round is the teacher of the next; the averages and the optimizer begin anew."""
    made = engine(override(small(), PD))
    assert made.rounds.starts == [0, 3, 6]
    first = made.teacher
    seen = []
    for stats in made.train(batches(made)):
        seen.append((stats.gauges["num_scales"], stats.gauges["learning_rate"], made.round_ended()))
        if stats.step == 3:
            assert made.averaged_spec().sampler == "pd:2"
            assert not made.in_last_round()
            assert made.teacher is first
            ended = weights(made)
        if stats.step == 4:
            of_teacher = torch.cat([p.flatten() for p in made.teacher.parameters()])
            assert torch.equal(of_teacher, ended)
            assert {int(state["step"]) for state in made.optimizer.state.values()} == {1}
            torch.testing.assert_close(
                made.averages[0][0],
                (made._parameters()[0] + made.teacher.state_dict()["network.time_embed.0.weight"]) / 2,
            )
    assert [scales for scales, _, _ in seen] == [3, 3, 3, 2, 2, 2]
    assert [rate for _, rate, _ in seen] == pytest.approx([1e-3, 2e-3 / 3, 1e-3 / 3] * 2)
    assert [end for _, _, end in seen] == [False, False, True, False, False, True]
    assert made.averaged_model().spec.sampler == "pd:1"
    assert made.in_last_round()


@pytest.mark.parametrize("method", ["cd", "pd"])
@pytest.mark.parametrize("column", ["vp", "ve"])
def test_teachers_of_the_other_columns_are_distilled(method, column):
    config = override(small(), VARIANTS[method])
    spec = engine(config).spec
    diffusion = dataclasses.replace(spec.diffusion, column=column)
    other = teacher(dataclasses.replace(spec, diffusion=diffusion))
    made = engine(config, teacher=other)
    assert made.teacher.spec.diffusion.column == column
    loss = run(made, 1)[0].loss
    assert torch.isfinite(loss)
    assert loss != run(engine(config), 1)[0].loss, "another teacher, another lesson"


def test_progressive_distillation_by_lpips():
    """The distance is any: LPIPS here, of a random trunk, on images resized for it."""
    config = override(small(), PD | {"distance.lpips_net": "squeeze", "distance.lpips_size": 17})
    made = engine(config, distance=lpips_distance(config.distance, random_trunk=True))
    before = weights(made).clone()
    assert all(torch.isfinite(stats.loss) for stats in run(made, 2))
    assert not torch.equal(weights(made), before)


def test_training_starts_from_given_weights():
    config = small()
    given = teacher(engine(config).spec).network.state_dict()
    made = engine(config, initial=given)
    for name, value in made.student.network.state_dict().items():
        assert torch.equal(value, given[name])
    for name, value in made.averaged_weights().items():
        assert torch.equal(value, given[name])
    with pytest.raises(UserError, match="--init-from belongs to another network"):
        engine(small(network__channels=16), initial=given)


def test_a_method_without_its_teacher_says_so():
    made = engine(override(small(), CD), teacher=None)
    with pytest.raises(ValueError, match="method cd needs a teacher"):
        made.one_step(next(batches(made)))


def test_averages_follow_the_student():
    made = engine(small())
    expected = weights(made).clone()
    for _ in made.train(batches(made)):
        expected = 0.5 * expected + 0.5 * weights(made)
    averaged = torch.cat([value.flatten() for value in made.averaged_weights(0).values()])
    torch.testing.assert_close(averaged, expected, rtol=1e-4, atol=1e-6)
    model = made.averaged_model(1)
    assert torch.equal(model.network.out[2].weight, made.averaged_weights(1)["out.2.weight"])


def test_point_mass_data_are_learnt():
    """If all data is one image, f is that image everywhere, and the loss goes to 0."""
    config = small(steps=150, schedule__s1=10, optimizer__learning_rate=3e-3, optimizer__beta2=0.99)
    made = engine(config)
    one = Batch(torch.full((8, 1, 8, 8), 200, dtype=torch.uint8), LABELS[:8])
    losses = [float(stats.loss) for stats in made.train(one for _ in range(150))]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_a_loss_that_is_not_finite_stops_before_a_checkpoint():
    made = engine(small(optimizer__learning_rate=1e30))
    with pytest.raises(
        UserError, match=r"The loss is (nan|inf) at step \d. Begin again in another --run-dir"
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
        engine(small(network__channels=16)).restore(made.checkpoint())
    with pytest.raises(UserError, match="has no target"):
        engine(small(**PAPER)).restore(made.checkpoint())


def test_a_short_batch_is_refused():
    made = engine(small())
    with pytest.raises(ValueError, match="expected 8 images, got 7"):
        made.one_step(Batch(IMAGES[:7], LABELS[:7]))


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    a = weights(engine(small()))
    state = torch.get_rng_state()
    b = weights(engine(small()))
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    assert torch.equal(a, b)
    assert not torch.equal(a, weights(engine(small(seed=1))))


def test_bfloat16_trains_close_to_float32():
    one, other = (run(engine(small(precision=precision))) for precision in ("float32", "bfloat16"))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.loss, b.loss, rtol=0.05, atol=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("variant", ["ict", "edm", "cd", "pd", "ect"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_cuda_trains_like_the_cpu(precision, variant):
    config = override(small(precision=precision), VARIANTS[variant])
    here = run(engine(dataclasses.replace(config, precision="float32")))
    there = run(engine(config, device="cuda"))
    tolerance = 1e-3 if precision == "float32" else 0.05
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a.loss, b.loss.cpu(), rtol=tolerance, atol=tolerance)
