"""Precision reaches the networks alone, compiling changes nothing, and a GPU is never waited for."""

import dataclasses

import pytest
import torch
from torch._inductor import cpp_builder, exc

from cm_ray.errors import UserError
from cm_ray.networks.perceptual import perceptual_distance
from cm_ray.training import arithmetic
from cm_ray.training.optimizer import restore_scaler
from tests.training.engines import batches, engine, run, small, weights

SCALER = torch.amp.GradScaler("cpu")


@pytest.fixture
def fresh_dynamo():
    """Functions that other tests had compiled do not count against the limit of recompilations."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("variant", ["paper", "dropout"])
def test_compiled_networks_train_the_same(variant, monkeypatch):
    """Traced, differentiated ahead of time, but run by PyTorch's kernels: what a C++ compiler would get."""
    monkeypatch.setattr(arithmetic, "BACKEND", "aot_eager")
    config = small("one-level", variant, steps=2)
    plain, compiled = engine(config), engine(dataclasses.replace(config, compile=True))
    for one, other in zip(run(plain), run(compiled), strict=True):
        torch.testing.assert_close(one.loss, other.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights(plain), weights(compiled), rtol=1e-4, atol=1e-5)
    assert plain.checkpoint().tensors.keys() == compiled.checkpoint().tensors.keys()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("variant", ["paper", "dropout"])
def test_compiled_to_cpp_networks_train_the_same(variant):
    """The compiler is the real one; sums are in other orders, equal to the rounding of float32."""
    config = small("one-level", variant, steps=2)
    for one, other in zip(
        run(engine(config)), run(engine(dataclasses.replace(config, compile=True))), strict=True
    ):
        torch.testing.assert_close(one.loss, other.loss, rtol=1e-4, atol=1e-5)


def test_without_a_compiler_it_says_so(monkeypatch):
    def none():
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(UserError, match=r"compile needs a C\+\+ compiler on every node"):
        engine(small(compile=True))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_only_the_networks_arithmetic_is_short(precision):
    """Their inputs, outputs, the loss, and all that is kept are float32; convolutions are not."""
    made = engine(small("paper", precision=precision, steps=1))
    inner = []
    made.student.network.out[2].register_forward_hook(lambda m, inputs, y: inner.append(y.dtype))
    made.student.register_forward_hook(lambda m, inputs, y: inner.append((inputs[0].dtype, y.dtype)))
    distance = made.distance

    def watched(a, b):
        inner.append((a.dtype, b.dtype, torch.is_autocast_enabled("cpu")))
        return distance(a, b)

    made.distance = watched
    run(made)
    short, float32 = getattr(torch, precision), torch.float32
    assert inner == [short, (float32, float32), (float32, float32, False)]
    kept = {name.partition("/")[0]: tensor.dtype for name, tensor in made.checkpoint().tensors.items()}
    assert set(kept) == {"student", "target", "ema0", "ema1", "optimizer"}
    assert set(kept.values()) == {float32}


@pytest.mark.parametrize(("short", "warned"), [(14.0, True), (82.0, False), (321.0, False)])
def test_arithmetic_that_a_cpu_does_slowly_is_told_before_the_training(short, warned, monkeypatch):
    monkeypatch.setattr(arithmetic, "convolution_speeds", lambda precisions, device: [82.0, short])
    said = arithmetic.slow_arithmetic("bfloat16", "cpu")
    sentence = (
        "bfloat16 is 5.9 times slower than float32 on this CPU (14 against 82 GFLOP/s in a convolution): "
        "set precision to float32."
    )
    assert said == (sentence if warned else None)
    assert arithmetic.slow_arithmetic("float32", "cpu") is None


def test_the_speed_of_arithmetic_is_measured():
    speeds = arithmetic.convolution_speeds(("float32", "bfloat16"), torch.device("cpu"))
    assert len(speeds) == 2
    assert all(0.01 < speed < 1e5 for speed in speeds)


def test_what_is_sent_arrives():
    """A batch that is on a GPU already is left there: its memory cannot be pinned."""
    batch = torch.arange(4)
    assert arithmetic.to_device(batch, torch.device("cpu")) is batch
    for device in ["cuda"] * torch.cuda.is_available():
        there = arithmetic.to_device(batch, torch.device(device))
        assert there.is_cuda
        assert arithmetic.to_device(there, there.device) is there


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])  # float16's scaler asks for infinities
@pytest.mark.parametrize(
    "variant",
    ["ict", "paper", "edm", "cd", "pd", "ect", "dropout", "conditional", "accumulated", "ncsn++", "lpips"],
)
@pytest.mark.parametrize("name", ["radam", "adam"])
def test_a_step_never_waits_for_the_gpu(name, variant, precision):
    """After the first steps, which choose kernels and put the grid of times there."""
    config = small(variant, name, "clipped", precision=precision, steps=10_000)
    options = (
        {"distance": perceptual_distance(config.method.distance, random_trunk=True).cuda()}
        if variant == "lpips"
        else {}
    )
    made = engine(config, device="cuda", **options)
    steps = made.train(batches(made))
    for _ in range(3):
        next(steps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    made.check_finite()


@pytest.mark.gpu
def test_adam_is_one_kernel_on_a_gpu_and_goes_on_from_a_checkpoint():
    config = small("adam")
    whole, first, second = (engine(config, device="cuda") for _ in range(3))
    assert whole.optimizer.defaults["fused"]
    run(whole)
    run(first, 3)
    second.restore(first.checkpoint())
    run(second)
    torch.testing.assert_close(weights(second), weights(whole), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("enabled", "saved"), [(True, {}), (False, SCALER.state_dict())])
def test_a_checkpoint_of_another_precision(enabled, saved):
    with pytest.raises(UserError, match=r"^here is of a training of another precision; give the settings of"):
        restore_scaler(torch.amp.GradScaler("cpu", enabled=enabled), saved, "here")
    restore_scaler(again := torch.amp.GradScaler("cpu", init_scale=4.0), SCALER.state_dict(), "here")
    assert again.get_scale() == 65536.0
