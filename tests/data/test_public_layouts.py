"""Layouts of public data sets, rebuilt small from their descriptions: CIFAR-100, tiny-imagenet, ImageNet."""

import json

import pytest

from cm_ray.data.open_source import open_source
from cm_ray.errors import UserError
from tests.data.trees import image_bytes, left, opened, plant, seen

FISH, SHARK, HEN = "n01443537", "n01484850", "n01514859"
WORDS = {FISH: "goldfish, Carassius auratus", SHARK: "great white shark, white shark", HEN: "hen"}


@pytest.fixture(params=["folder", "zip"])
def form(request):
    return request.param


def cifar100(names=("beaver", "dolphin", "aquarium_fish", "ray")):
    """Class folders of each split, https://www.cs.toronto.edu/~kriz/cifar.html."""
    files = {f"train/{name}/{i}.png": 10 * n + i for n, name in enumerate(names) for i in range(2)}
    return files | {f"test/{name}/0.png": 100 + n for n, name in enumerate(names)}


def test_cifar100(form, tmp_path):
    source = opened(form, tmp_path, cifar100())
    fish = "aquarium_fish"
    assert source.class_names == (fish, "beaver", "dolphin", "ray")
    wanted = {
        0: "beaver",
        1: "beaver",
        10: "dolphin",
        11: "dolphin",
        20: fish,
        21: fish,
        30: "ray",
        31: "ray",
    }
    assert seen(source) == wanted
    source = opened(form, tmp_path / "test", cifar100(), "test")
    assert seen(source) == {100: "beaver", 101: "dolphin", 102: fish, 103: "ray"}


def test_cifar100_with_superclasses(form, tmp_path):
    files = cifar100(("mammals/beaver", "mammals/dolphin", "fish/aquarium_fish", "fish/ray"))
    source = opened(form, tmp_path, files, "test")
    assert source.class_names == ("fish", "mammals")
    assert seen(source) == {100: "mammals", 101: "mammals", 102: "fish", 103: "fish"}
    assert source.layout.startswith("image files in class folders, which hold other folders")


def tiny_imagenet(top=""):
    """The archive of CS231n, http://cs231n.stanford.edu/tiny-imagenet-200.zip."""
    jpeg = {n: image_bytes(n, "jpeg") for n in range(0, 256, 10)}
    files = {"wnids.txt": f"{HEN}\n{FISH}\n{SHARK}\n"}  # not sorted, as there
    files["words.txt"] = "n00001740\tentity\n" + "".join(f"{wnid}\t{name}\n" for wnid, name in WORDS.items())
    for n, wnid in enumerate((FISH, SHARK, HEN)):
        files[f"train/{wnid}/{wnid}_boxes.txt"] = f"{wnid}_0.JPEG\t0\t0\t62\t63\n"
        for i in range(2):
            files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = jpeg[60 * n + 10 * i]
    files |= {f"val/images/val_{i}.JPEG": jpeg[200 + 10 * i] for i in range(3)}
    boxes = [f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n" for i, wnid in enumerate((HEN, FISH, HEN))]
    files["val/val_annotations.txt"] = "".join(boxes)
    files |= {f"test/images/test_{i}.JPEG": jpeg[240 + 10 * i] for i in range(2)}
    return {top + path: value for path, value in files.items()}


def about(found):
    """The labels in the order of the images; JPEG changes the numbers a little."""
    return list(found.values())


@pytest.mark.parametrize("top", ["", "tiny-imagenet-200/"])
def test_tiny_imagenet(form, tmp_path, top):
    fish, shark, hen = WORDS.values()
    source = opened(form, tmp_path, tiny_imagenet(top))
    assert source.class_names == (fish, shark, hen)
    assert about(seen(source)) == [fish, fish, shark, shark, hen, hen]
    assert "3 files ending in .txt: not images" in left(source)
    source = opened(form, tmp_path / "val", tiny_imagenet(top), "val")
    assert source.class_names == (fish, shark, hen)
    assert about(seen(source)) == [hen, fish, hen]
    assert "labels in val_annotations.txt" in source.layout
    source = opened(form, tmp_path / "test", tiny_imagenet(top), "test")
    assert (about(seen(source)), source.class_names) == ([None, None], ())


def test_the_folder_of_a_split_of_tiny_imagenet(tmp_path):
    plant(tmp_path, tiny_imagenet())
    for split, wanted in [("train", [0, 0, 1, 1, 2, 2]), ("val", [2, 0, 2])]:
        source = open_source(str(tmp_path / split))
        assert source.class_names == tuple(WORDS.values())
        assert [source.class_names.index(name) for name in seen(source).values()] == wanted


def test_classes_without_class_folders_for_training(form, tmp_path):
    files = {path: value for path, value in tiny_imagenet().items() if not path.startswith("train")}
    source = opened(form, tmp_path, files, "val")
    assert (about(seen(source)), len(source.class_names)) == ([WORDS[HEN], WORDS[FISH], WORDS[HEN]], 3)
    del files["wnids.txt"]
    source = opened(form, tmp_path / "two", files, "val")
    assert source.class_names == (WORDS[FISH], WORDS[HEN])


def test_annotations_that_do_not_fit(form, tmp_path):
    files = tiny_imagenet()
    files["val/val_annotations.txt"] = f"val_0.JPEG\t{HEN}\t0\n"
    with pytest.raises(UserError, match=r"val_annotations.txt has no class for val_[12].JPEG; correct it"):
        opened(form, tmp_path / "few", files, "val")
    files["val/val_annotations.txt"] = "".join(f"val_{i}.JPEG\tn09999999\t0\n" for i in range(3))
    with pytest.raises(UserError, match="the class n09999999, which has no folder for training; correct it"):
        opened(form, tmp_path / "odd", files, "val")
    files = tiny_imagenet()
    files["val/val_annotations.txt"] += f"val_9.JPEG\t{HEN}\t0\n"
    assert "1 annotations: their images are not there" in left(opened(form, tmp_path / "more", files, "val"))


TENCH, CRANE_BIRD, CRANE = "n01440764", "n02012849", "n03126707"
SYNSETS = {TENCH: "tench, Tinca tinca", CRANE_BIRD: "crane", CRANE: "crane"}
NAMES = ("tench, Tinca tinca", f"crane ({CRANE_BIRD})", f"crane ({CRANE})")
LINES = "".join(f"{wnid} {name}\n" for wnid, name in SYNSETS.items())
INDEX = {str(i): [wnid, name] for i, (wnid, name) in enumerate(SYNSETS.items())}


def imagenet(names, text, validation):
    """Class folders of ILSVRC 2012, https://image-net.org/download-images.php, with a file of names."""
    files = {names: text} if names else {}
    for n, wnid in enumerate(SYNSETS):
        for i in range(2):
            files[f"train/{wnid}/{wnid}_{i}.JPEG"] = image_bytes(60 * n + 10 * i, "jpeg")
    rows = ["ImageId,PredictionString"]
    for i, wnid in enumerate((CRANE, TENCH, CRANE_BIRD)):
        image = f"ILSVRC2012_val_{i + 1:08d}"
        folder = f"val/{wnid}" if validation == "folders" else "val"
        files[f"{folder}/{image}.JPEG"] = image_bytes(200 + 20 * i, "jpeg")
        rows.append(f"{image},{wnid} 85 1 499 272 {wnid} 1 1 2 2")
    return files | ({"LOC_val_solution.csv": "\n".join(rows)} if validation == "solution" else {})


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("LOC_synset_mapping.txt", LINES),
        ("synset_words.txt", LINES),
        ("words.txt", LINES.replace("764 ", "764\t")),
        ("map_clsloc.txt", "".join(f"{wnid} {i} {name}\n" for i, (wnid, name) in enumerate(SYNSETS.items()))),
        ("imagenet_synset_to_human_label_map.txt", LINES.replace("764 ", "764\t")),
        ("imagenet_class_index.json", json.dumps(INDEX)),
        ("Labels.json", json.dumps(SYNSETS)),
        ("train/synset_words.txt", LINES),
    ],
)
def test_imagenet(form, tmp_path, names, text):
    source = opened(form, tmp_path, imagenet(names, text, "folders"))
    assert source.class_names == NAMES  # in the order of the identifiers
    assert about(seen(source)) == [name for name in NAMES for _ in range(2)]


@pytest.mark.parametrize("names", ["", "words.txt"])
def test_imagenet_without_names(form, tmp_path, names):
    source = opened(form, tmp_path, imagenet(names, "not a list of synsets", "folders"))
    assert source.class_names == tuple(SYNSETS)


def test_imagenet_with_a_name_missing(form, tmp_path):
    source = opened(form, tmp_path, imagenet("synset_words.txt", f"{TENCH} tench\n", "folders"))
    assert source.class_names == ("tench", CRANE_BIRD, CRANE)


def test_a_class_has_the_same_name_in_every_split(form, tmp_path):
    files = imagenet("words.txt", LINES, "flat")
    files = {path: value for path, value in files.items() if not path.startswith("val")}
    files[f"val/{CRANE}/a.JPEG"] = image_bytes(5, "jpeg")
    assert opened(form, tmp_path, files, "val").class_names == (NAMES[2],)


def test_the_file_that_names_the_classes_is_taken(form, tmp_path):
    files = imagenet("words.txt", LINES, "folders") | {
        "synsets.txt": f"{TENCH}\n",
        "labels.txt": f"{TENCH} fish\n",
    }
    assert opened(form, tmp_path, files).class_names == NAMES


@pytest.mark.parametrize("validation", ["folders", "solution"])
def test_imagenet_validation(form, tmp_path, validation):
    source = opened(form, tmp_path, imagenet("LOC_synset_mapping.txt", LINES, validation), "val")
    assert source.class_names == NAMES
    assert about(seen(source)) == [NAMES[2], NAMES[0], NAMES[1]]


def test_imagenet_with_a_flat_validation_split(form, tmp_path):
    source = opened(form, tmp_path, imagenet("LOC_synset_mapping.txt", LINES, "flat"), "val")
    assert (about(seen(source)), source.class_names, source.layout[:11]) == ([None] * 3, (), "image files")


def test_imagenet_as_kaggle_packs_it(form, tmp_path):
    files = imagenet("LOC_synset_mapping.txt", LINES, "solution")
    files = {f"ILSVRC/Data/CLS-LOC/{p}" if p.endswith("JPEG") else p: value for p, value in files.items()}
    files |= {f"ILSVRC/Annotations/CLS-LOC/train/{TENCH}/a.xml": "<a/>", "ILSVRC/ImageSets/train.txt": "x"}
    files |= {"ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG": image_bytes(50, "jpeg")}
    files |= {"LOC_sample_submission.csv": "x", "LOC_train_solution.csv": "ImageId,PredictionString"}
    assert about(seen(opened(form, tmp_path, files))) == [name for name in NAMES for _ in range(2)]
    assert about(seen(opened(form, tmp_path / "v", files, "val"))) == [NAMES[2], NAMES[0], NAMES[1]]
    assert about(seen(opened(form, tmp_path / "t", files, "test"))) == [None]
