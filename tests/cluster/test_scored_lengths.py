"""`cm-ray averages` on Ray: the scores of a notebook, resumed after a kill, with the best model exported."""

import pytest

import cm_ray as cm
from cm_ray.cluster.evaluation import averages as module
from cm_ray.cluster.evaluation.averages import choose_average
from cm_ray.command_line.settings.averages import AverageLengths
from cm_ray.errors import UserError
from cm_ray.evaluation.lengths import LENGTHS_SEED, read_lengths
from cm_ray.networks.formats.reading import load_model
from cm_ray.recipes.measuring import ActorSettings
from cm_ray.runs.snapshots import KeptAverages
from cm_ray.settings.tree import to_dict
from cm_ray.storage.files import read_json, write_json
from tests.averaged import copied

ONE = ActorSettings(count=1)


@pytest.fixture
def run(averaged_run, tmp_path):
    return copied(averaged_run, tmp_path / "run")


def asked(run, **settings):
    return AverageLengths(run=str(run.root), actors=ONE, **settings)


def without_extractor(run):
    """Let the run's recipe have no extractor."""
    values = to_dict(run.config())
    values["evaluation"]["extractor"] = "none"
    write_json(run.config_file, values)


def equal_weights(model, weights):
    return all((model.network.state_dict()[name] == tensor).all() for name, tensor in weights.items())


def test_the_pool_scores_as_this_process_does(run, averaged_run, tmp_path, ray_cluster):
    """Two lengths are scored on the pool beside those that the run has; the best of three is exported."""
    before = read_lengths(run)
    choice = choose_average(
        asked(run, lengths=("0.05,0.12", "0.1"), samples=80, export=str(tmp_path / "best"))
    )
    assert [each.length for each in choice.scored] == [0.05, 0.12, 0.1]
    assert choice.scored[2] == before[2], "it is not scored again"
    assert choice.length == min(choice.scored, key=lambda each: each.score.value).length
    assert choice.files == [run.root / "averages.md", run.root / "averages.png", tmp_path / "best"]
    exported = load_model(tmp_path / "best")
    assert exported.spec.ema_length == choice.length
    assert equal_weights(exported, KeptAverages.of(run, run.config(), 24).weights(choice.length))
    here = cm.load(copied(averaged_run, tmp_path / "here").root).averages((0.05, 0.12), samples=80)
    for on_pool, in_process in zip(choice.scored[:2], here, strict=True):
        assert on_pool.score.value == pytest.approx(in_process.score.value, rel=1e-5)
        assert on_pool.score.key == in_process.score.key
        assert on_pool.score.key["seed"] == LENGTHS_SEED
        assert on_pool.influence == pytest.approx(in_process.influence, rel=1e-3, abs=1e-3)
    assert {each.length for each in read_lengths(run)} == {0.04, 0.07, 0.1, 0.14, 0.05, 0.12}
    assert not run.scoring_work.exists()
    table = (run.root / "averages.md").read_text()
    assert [line.split(" | ")[0].strip("| *") for line in table.splitlines()[4:]] == [
        *("0.04", "0.05", "0.07", "0.1", "0.12", "0.14")
    ]
    with pytest.raises(UserError, match="exists already"):
        choose_average(asked(run, export=str(tmp_path / "best")))


def test_a_killed_command_goes_on(run, monkeypatch, ray_cluster):
    """Finished work is not sampled again: neither lengths, nor groups of samples of the next one."""
    sampled, stop = [], 25
    generate_all = module.SamplerPool.generate_all

    def counted(pool, model, requests, outputs, progress=None):
        for result in generate_all(pool, model, requests, outputs, progress):
            if len(sampled) == stop:
                raise KeyboardInterrupt
            sampled.append(result)
            yield result

    monkeypatch.setattr(module.SamplerPool, "generate_all", counted)
    settings = asked(run, lengths=("0.05", "0.12"), samples=60, seed=3)
    with pytest.raises(KeyboardInterrupt):
        choose_average(settings)
    assert [each.length for each in read_lengths(run)][4:] == [0.05]
    stop = 1000
    assert [each.length for each in choose_average(settings).scored] == [0.05, 0.12]
    assert len(sampled) == 40, "20 groups of each length, once"


def test_one_length_is_exported_without_a_score(run, tmp_path):
    choice = choose_average(asked(run, lengths=("0.06",), export=str(tmp_path / "one")))
    assert (choice.length, choice.scored, choice.files) == (0.06, [], [tmp_path / "one"])
    kept = KeptAverages.of(run, run.config(), 24)
    assert equal_weights(load_model(tmp_path / "one"), kept.weights(0.06))
    choose_average(asked(run, lengths=("0.06",), step=18, export=str(tmp_path / "earlier")))
    earlier = KeptAverages.of(run, run.config(), 18)
    assert equal_weights(load_model(tmp_path / "earlier"), earlier.weights(0.06))
    assert read_json(tmp_path / "earlier" / "model.json")["ema_length"] == 0.06


def test_without_an_extractor_it_says_what_it_exports(run, tmp_path, capsys):
    without_extractor(run)
    choice = choose_average(asked(run, export=str(tmp_path / "best")))
    assert choice.length == 0.05
    assert "the one of length 0.05, the first that was tracked, is exported" in capsys.readouterr().err
    kept = KeptAverages.of(run, run.config(), 24)
    assert equal_weights(load_model(tmp_path / "best"), kept.weights(0.05))
    for settings in (asked(run), asked(run, lengths=("0.05", "0.1"), export=str(tmp_path / "two"))):
        with pytest.raises(UserError, match="has no extractor to score averages by; set extractor"):
            choose_average(settings)
    assert not (tmp_path / "two").exists()


def test_runs_that_have_no_choice_are_refused(run, tmp_path):
    with pytest.raises(UserError, match="nowhere is not a training run"):
        choose_average(AverageLengths(run=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match=r"length 0\.004 cannot be made of the snapshots"):
        choose_average(asked(run, lengths=("0.004",)))
    with pytest.raises(UserError, match="has kept no averages of step 5; choose one of 3, 6, 9"):
        choose_average(asked(run, step=5))
    values = to_dict(run.config()) | {"averages": {"kind": "constant", "decays": [0.9]}}
    write_json(run.config_file, values)
    with pytest.raises(UserError, match="trained with averages constant, whose decays are fixed"):
        choose_average(asked(run))
    run.result_file.unlink()
    with pytest.raises(UserError, match="is not finished; repeat its command first"):
        choose_average(asked(run))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lengths": ("0.05,x",)}, "--lengths takes numbers such as 0.05, not 'x'"),
        ({"lengths": ("nan",)}, "--lengths takes numbers such as 0.05, not 'nan'"),
        ({"lengths": ("0.05", "0.3")}, r"--lengths must be in \(0, 0\.2887\], not 0\.3"),
        ({"lengths": ("0",)}, r"--lengths must be in \(0, 0\.2887\], not 0"),
        ({"samples": 1}, "--samples must be at least 2 for a score, or 0, not 1"),
        ({"step": -1}, "--step must be at least 0, not -1"),
        ({"batch_size": -1}, "--batch-size must be at least 0, not -1"),
        ({"seed": -1}, "--seed must be at least 0, not -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        AverageLengths(run="runs/demo", **settings)


def test_lengths_are_separated_by_spaces_or_commas():
    assert AverageLengths(run="x", lengths=("0.02,0.05,", "0.1", "0.05")).numbers == (0.02, 0.05, 0.1)
