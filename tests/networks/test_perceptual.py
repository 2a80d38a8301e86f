"""LPIPS keeps a distance's promises with each trunk, resizes as OpenAI does, and needs the true weights."""

import copy
import functools
import http.server
import threading

import pytest
import torch

from cm_ray.errors import UserError
from cm_ray.networks import perceptual
from cm_ray.networks.lpips_distance import LPIPS
from cm_ray.networks.perceptual import perceptual_distance
from cm_ray.networks.vision import torchvision
from cm_ray.recipes import RECIPES
from tests.core.test_distance import DistanceContract

MODELS = {"vgg": "vgg16", "alex": "alexnet", "squeeze": "squeezenet1_1"}
LAYERS = {"vgg": (4, 9, 16, 23, 30), "alex": (2, 5, 8, 10, 12), "squeeze": (2, 5, 8, 10, 11, 12, 13)}
NETS = tuple(MODELS)


def config(net, size=64, **changes):
    return LPIPS(net=net, size=size, **changes)


@pytest.fixture(scope="module", autouse=True)
def no_classifiers():
    """Leave unwritten what LPIPS drops: VGG's classifier has 124 million numbers, no convolution has 4."""
    normal = torch.nn.init.normal_

    def of_convolutions(tensor, *moments, **generator):
        return tensor if tensor.numel() > 4e6 else normal(tensor, *moments, **generator)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.nn.init, "normal_", of_convolutions)
        patched.setattr(torch.nn.Linear, "reset_parameters", lambda self: None)
        yield


@functools.cache
def random_distance(net, size=64):
    """The trunk is random: the weights cannot be in the repository."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return perceptual_distance(config(net, size), random_trunk=True)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TestVGG(DistanceContract):
    distance = property(lambda self: random_distance("vgg"))


class TestAlexNet(DistanceContract):
    distance = property(lambda self: random_distance("alex"))


class TestSqueezeNet(DistanceContract):
    distance = property(lambda self: random_distance("squeeze"))


@pytest.mark.parametrize("net", NETS)
def test_gradients_are_finite_also_where_no_feature_responds(net):
    """LPIPS divides by the norm of the features, whose own gradient is infinite at 0."""
    distance = copy.deepcopy(random_distance(net))
    for parameter in distance.metric.net.parameters():
        parameter.zero_()
    a = noise(2, 3, 64, 64).requires_grad_()
    distance(a, noise(2, 3, 64, 64, seed=1)).sum().backward()
    assert torch.equal(a.grad, torch.zeros_like(a))


@pytest.mark.parametrize("net", NETS)
def test_small_images_are_resized_and_grey_ones_repeated(net):
    distance = random_distance(net)
    seen = []
    scaling = distance.metric.scaling_layer
    watch = scaling.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    small, whole, large = noise(2, 1, 8, 8), noise(2, 3, 64, 64), noise(2, 3, 80, 80)
    for images in (small, whole, large):
        distance(images, images.flip(0))
    watch.remove()
    resized = torch.nn.functional.interpolate(small, size=(64, 64), mode="bilinear")
    torch.testing.assert_close(seen[0], resized.repeat(1, 3, 1, 1))
    assert torch.equal(seen[2], whole)
    assert torch.equal(seen[4], large)


def distance_and_gradient(distance, a, b):
    """Return the distances, and the gradient of their mean with respect to the first images."""
    a = a.clone().requires_grad_()
    values = distance(a, b)
    values.mean().backward()
    return values.detach(), a.grad


def away(reference, other):
    """Return how far the distances and the gradient are from others, relative to their length."""
    return [float((b - a).norm() / a.norm()) for a, b in zip(reference, other, strict=True)]


@pytest.mark.parametrize("net", NETS)
def test_it_is_the_packages_distance(net):
    """To rounding: the sums over channels and pixels are taken in another order."""
    distance = random_distance(net)
    a, b = noise(3, 3, 64, 64), noise(3, 3, 64, 64, seed=1)
    theirs = distance_and_gradient(lambda x, y: distance.metric(x, y).flatten(), a, b)
    assert max(away(theirs, distance_and_gradient(distance, a, b))) < 1e-5


@pytest.mark.parametrize("net", NETS)
def test_the_trunk_computes_in_a_precision_and_the_rest_in_float32(net):
    """In bfloat16 the distances differ by 0.1 % at most, and by 15 % or more without one of the slices.

    A few of every thousand features change their sign, where a ReLU has a kink: the gradient is up to 0.3 of
    its length away, but at right angles. Along itself it is shorter by half the square of that, 4 %.
    """
    distance = copy.deepcopy(random_distance(net))
    a, b = noise(3, 3, 64, 64), noise(3, 3, 64, 64, seed=1)
    reference = distance_and_gradient(distance, a, b)
    distance.precision = "bfloat16"
    assert {features.dtype for features in distance.features(a)} == {torch.bfloat16}
    values, gradient = distance_and_gradient(distance, a, b)
    assert values.dtype == gradient.dtype == torch.float32
    assert 1e-5 < (values / reference[0] - 1).abs().max() < 0.005
    along = (gradient * reference[1]).sum() / reference[1].square().sum()
    assert along == pytest.approx(1, abs=0.08)
    distance.metric.lins[0].model[-1].weight.zero_()
    wrong, _ = distance_and_gradient(distance, a, b)
    assert (wrong / reference[0] - 1).abs().min() > 0.1


def test_the_target_keeps_no_activations():
    """The regression target has no gradient: of its pass through the trunk nothing is kept."""
    distance = random_distance("squeeze")
    a, b = noise(2, 3, 64, 64).requires_grad_(), noise(2, 3, 64, 64, seed=1)
    assert all(features.requires_grad for features in distance.features(a))
    assert not any(features.requires_grad for features in distance.features(b))


@pytest.mark.parametrize(("net", "smallest"), [("vgg", 16), ("alex", 31), ("squeeze", 17)])
def test_size_0_keeps_images_down_to_what_the_trunk_can_see(net, smallest):
    distance = random_distance(net, size=0)
    images = noise(2, 3, smallest, smallest)
    values = distance(images, images.flip(0))
    assert torch.isfinite(values).all()
    assert (values > 0).all()
    with pytest.raises(UserError, match=f"needs {smallest} pixels, but the images have 8; set distance.size"):
        distance(noise(2, 3, 8, 8), noise(2, 3, 8, 8))


def test_the_papers_default_is_vgg_at_224():
    assert (LPIPS().net, LPIPS().size) == ("vgg", 224)


@pytest.fixture(params=NETS)
def published(request, tmp_path, monkeypatch):
    """A file as torchvision publishes it, with random numbers: the net's name, its model, the file."""
    net = request.param
    with torch.device("meta"):  # the classifier's 124 million numbers are of no interest
        model = getattr(torchvision().models, MODELS[net])(weights=None).eval()
    model.features.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(1)
    for parameter in model.features.parameters():
        fan_in = parameter[0].numel()
        torch.nn.init.normal_(parameter, std=(2 / fan_in) ** 0.5, generator=generator)
    state = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("features.")}
    state["classifier.6.bias"] = torch.zeros(1000)  # the classifier is there, too, and of no interest
    file = tmp_path / f"{net}.pth"
    torch.save(state, file)
    address = (f"https://example.org/{file.name}", perceptual.sha256_of(file))
    monkeypatch.setitem(perceptual._TRUNKS, net, address)
    return net, model, file


def test_a_trunk_of_published_weights_sees_what_torchvisions_model_sees(published):
    net, model, file = published
    trunk = perceptual_distance(config(net, weights=str(file))).metric.net
    images = noise(2, 3, 64, 64)
    with torch.no_grad():
        features = trunk(images)
        expected = [model.features[:end](images) for end in LAYERS[net]]
    assert len(features) == len(expected)
    for ours, theirs in zip(features, expected, strict=True):
        assert theirs.any()
        torch.testing.assert_close(
            ours, theirs, rtol=1e-4, atol=1e-4
        )  # in another order of memory: equal to rounding


def features_by_hand(model, images, pool):
    """Run torchvision's layers one by one, with `pool` in the place of each layer that pools."""
    found = []
    for layer in model.features:
        pools = isinstance(layer, torch.nn.MaxPool2d)
        images = pool(images, layer.kernel_size, layer.stride) if pools else layer(images)
        found.append(images)
    return found


@pytest.mark.parametrize("published", ["vgg", "alex"], indirect=True)
def test_average_pooling_takes_the_means_of_the_windows(published):
    """OpenAI's code for ImageNet 64x64 and LSUN 256x256 averages where the published trunk takes maxima."""
    net, model, file = published
    images = noise(2, 3, 64, 64)
    functional = torch.nn.functional
    for pooling, pool in (("max", functional.max_pool2d), ("average", functional.avg_pool2d)):
        trunk = perceptual_distance(config(net, weights=str(file), pooling=pooling)).metric.net
        with torch.no_grad():
            expected = features_by_hand(model, images, pool)
            for ours, end in zip(trunk(images), LAYERS[net], strict=True):
                torch.testing.assert_close(ours, expected[end - 1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        *((f"{method}_cifar10", "max") for method in ("cd", "ct")),
        *((f"{method}_{data}", "average") for method in ("cd", "ct") for data in ("imagenet64", "lsun256")),
    ],
)
def test_recipes_pool_as_openais_code_for_their_data(name, pooling):
    assert RECIPES[name]().method.distance == LPIPS(pooling=pooling)


@pytest.mark.parametrize("published", ["alex"], indirect=True)
def test_a_trunk_is_downloaded_once_and_checked(published, tmp_path, monkeypatch):
    net, model, file = published
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "cache"))
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path)
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{file.name}"
        digest = perceptual._TRUNKS[net][1]
        monkeypatch.setitem(perceptual._TRUNKS, net, (address, digest))
        for _ in range(2):
            trunk = perceptual_distance(config(net)).metric.net
            assert torch.equal(trunk.state_dict()["slice1.0.weight"], model.features[0].weight)
        assert asked == [f"/{file.name}"]
        monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "other"))
        monkeypatch.setitem(perceptual._TRUNKS, net, (address, "0" * 64))
        with pytest.raises(UserError, match="another SHA-256"):
            perceptual_distance(config(net))
        server.shutdown()


@pytest.mark.parametrize(
    ("net", "digest"), [("vgg", "397923af"), ("alex", "7be5be79"), ("squeeze", "b8a52dc0")]
)
def test_other_weights_are_refused(net, digest, tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"something else")
    with pytest.raises(UserError, match=rf"is not the file from https://.* with SHA-256 {digest}"):
        perceptual_distance(config(net, weights=str(file)))


def test_missing_weights_say_where_to_put_them(monkeypatch, tmp_path):
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path))
    address = "http://127.0.0.1:9/vgg16.pth"  # nobody answers there
    monkeypatch.setitem(perceptual._TRUNKS, "vgg", (address, "0" * 64))
    with pytest.raises(UserError, match=r"Could not download .* put it at .*vgg16.pth"):
        perceptual_distance(LPIPS())
