"""The avatars: captions and drawn pictures say the same, and both trainings run and resume."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax as dj
from ddpm_jax.models import AutoencoderKL, CLIPTextModel, UNet2DConditionModel
from ddpm_jax.schedulers import DDIMScheduler
from ddpm_jax.text.tokenizer import CLIPTokenizer
from ddpm_jax.training import Optimizer, TrainState, init_state, make_train_step, make_update

for package in ("dicebear", "dicebear_styles", "resvg_py"):
    pytest.importorskip(package, reason=f"needs {package}: pip install -e '.[test]'")

from examples import classifier  # noqa: E402
from examples.avatars import (  # noqa: E402
    captions,
    draw,
    features,
    judge,
    loop,
    measure,
    people,
    sets,
    tokens,
    train,
    train_vae,
)
from examples.avatars.people import COLORS, NONE, SKINS, TRAITS, Person  # noqa: E402

TEXT = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1} | {
    "num_attention_heads": 2,
    "max_position_embeddings": tokens.LENGTH,
}
UNET = train.UNET | {
    "block_out_channels": (8,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
    "norm_num_groups": 2,
    "attention_head_dim": 2,
    "cross_attention_dim": 8,
}
VAE = train_vae.VAE | {
    "block_out_channels": (4,),
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
    "norm_num_groups": 2,
}


def drawn(count: int, seed: int = 0) -> Iterator[tuple[Person, np.random.Generator]]:
    rng = np.random.default_rng(seed)
    return ((people.draw_person(rng), rng) for _ in range(count))


def test_captions_say_what_is_there():
    """Every word of a color, a thing or a mood is the person's own, and each is said some time."""
    said: set[str] = set()
    for person, rng in drawn(500):
        text = captions.caption(person, rng)
        text = text.replace("gray", "grey").replace("blonde", "blond")
        said |= set(re.findall(r"[a-z]+", text))
        allowed = {
            r"(\w+) hair": {person["hair"], person["length"]},
            r"(\w+) skin": {person["skin"]},
            r"(\w+) (?:shirt|top|t-shirt)": {person["clothing"]},
            r"(\w+) hat\b": {"no"} if person["hat"] == NONE else {"a", person["hat"]},
            r"\b(short|long)\b": {person["length"]},
            r"(?<!no )\b((?:sun)?glasses)": {person["glasses"]},
            r"no (glasses|beard)": {x for x in ("glasses", "beard") if person[x] == NONE},
            r"(?<!no )(beard)": {person["beard"]},
            r"(smiling|happy|sad|frowning)": set(captions.MOODS[person["mouth"]]),
        }
        for words, own in allowed.items():
            assert set(re.findall(words, text)) <= own, (text, words)
    assert {word for trait in TRAITS.values() for word in trait if word != NONE} <= said


def test_full_captions_tell_all_people_apart():
    everyone = [
        dict(zip(TRAITS, words, strict=True)) for words in itertools.product(*TRAITS.values())
    ]
    found = {captions.full_caption(person) for person in everyone[::7]}
    assert len(found) == len(everyone[::7])
    assert all(people.from_numbers(people.to_numbers(one)) == one for one in everyone[::97])


def test_pictures_have_the_named_colors():
    for person, rng in drawn(12):
        options = draw.options(person, rng)
        image, masks = draw.picture(options), draw.masks(options)
        assert image.shape == (32, 32, 3)
        np.testing.assert_array_equal(image[::2, ::2], image[1::2, 1::2])  # cells of 2x2 pixels
        assert masks["hair"].sum() >= draw.LEAST_HAIR
        wanted = {
            "hair": COLORS[person["hair"]],
            "skin": SKINS[person["skin"]],
            "clothing": COLORS[person["clothing"]],
        }
        for part, color in wanted.items():
            seen = np.median(image[masks[part]].astype(float), axis=0)
            named = np.array([*(SKINS if part == "skin" else COLORS).values()])
            nearest = np.square(named - seen[None]).sum(1).argmin()
            assert tuple(named[nearest]) == color
        assert (image == people.BACKGROUND).all(-1).any()


def test_held_out_colors_are_not_trained_on_together_but_in_pairs():
    parts = ["hair", "skin", "clothing"]
    colors = itertools.product(*(TRAITS[part] for part in parts))
    whole = [dict(zip(parts, words, strict=True)) for words in colors]
    held = [one for one in whole if people.is_held_out(one)]
    assert len(held) == len(whole) // 10
    for first, second in itertools.combinations(parts, 2):
        pairs = {(one[first], one[second]) for one in whole if not people.is_held_out(one)}
        assert len(pairs) == len(TRAITS[first]) * len(TRAITS[second])
    rng = np.random.default_rng(0)
    assert not any(people.is_held_out(draw.person_to_train_on(rng)) for _ in range(100))


def test_a_file_of_avatars(tmp_path: Path):
    draw.main([str(tmp_path / "a.npz"), "--num", "3", "--seed", "1"])
    data = np.load(tmp_path / "a.npz")
    assert data["image"].shape == (3, 32, 32, 3)
    rng = np.random.default_rng(1)
    assert train.read_people(data) == [draw.person_to_train_on(rng) for _ in range(3)]


def test_distances_count_cells():
    rng = np.random.default_rng(0)
    training = rng.integers(0, 256, (5, 16, 16, 3), np.uint8).repeat(2, 1).repeat(2, 2)
    images = training[[3, 1]]
    images[1, :4, :2] ^= 128  # two cells
    apart, near = measure.distances(images, training)
    assert apart.tolist() == [0, 2]
    assert near[:, 0].tolist() == [3, 1]


def test_agreement_counts_what_is_worn_apart():
    asked = [{"hat": NONE}, {"hat": "red"}, {"hat": "blue"}]
    found = judge.agreement({"hat": [NONE, "red", "red"]}, asked)
    assert found == {"hat": pytest.approx(2 / 3), "hat, if any": 0.5}


def test_words_of_people():
    numbers = {name: np.array([0, len(named) - 1]) for name, named in TRAITS.items()}
    first, last = (
        [np.eye(len(named), dtype=int)[place] for named in TRAITS.values()] for place in (0, -1)
    )
    np.testing.assert_array_equal(
        features.words(numbers), [np.concatenate(first), np.concatenate(last)]
    )


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The file of a classifier of 200 drawn people, and scikit-learn's network."""
    folder, kept = tmp_path_factory.mktemp("classifier"), []
    save = classifier.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "TESTED", 40)
        patch.setattr(classifier, "save", lambda *all: (kept.append(all[1]), save(*all)))
        draw.main([str(folder / "a.npz"), "--num", "200"])
        features.main([str(folder / "a.npz"), "--epochs", "40"])
    return folder / features.NAME, kept[0]


def test_features_are_the_hidden_units_of_the_classifier(classified: tuple[Path, Any]):
    """scikit-learn's last layer on our features gives scikit-learn's probabilities."""
    path, network = classified
    images = draw.pictures([person for person, _ in drawn(9)], np.random.default_rng(0))
    found = dj.collect_features(features.features(path), [images], ["features"]).features
    assert found is not None
    assert (found.max(0) > 0).mean() > 0.95  # hidden units that tell pictures apart
    logits = found @ network.coefs_[1] + network.intercepts_[1]
    wanted = network.predict_proba(classifier.rows(images))
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), wanted, atol=1e-5)
    with pytest.raises(ValueError, match="no classes"):
        dj.collect_features(features.features(path), [images], ["logits"])


def test_the_classifier_reads_traits_of_colors_that_it_has_not_seen(classified: tuple[Path, Any]):
    path, network = classified
    rng = np.random.default_rng(11)
    crowd = captions.held_out_people(rng, 40)
    images = draw.pictures(crowd, rng)
    likely = network.predict_proba(classifier.rows(images))[:, : len(TRAITS["hair"])]
    right = [
        TRAITS["hair"][place] == one["hair"]
        for place, one in zip(likely.argmax(1), crowd, strict=True)
    ]
    read = features.accuracy_of(path)
    assert read["hair"] == pytest.approx(np.mean(right))
    assert read["clothing"] > 0.3  # one of ten by chance


def test_files_of_other_classifiers_are_refused(classified: tuple[Path, Any], tmp_path: Path):
    with pytest.raises(ValueError, match=r"of 3072 numbers, not of shape \(8, 8, 1\)"):
        classifier.features(classified[0], "digits", (8, 8, 1), exclusive=True)
    np.savez(tmp_path / "x.npz", hidden_kernel=np.zeros((3072, 2)))
    with pytest.raises(ValueError, match="it lacks accuracy, hidden_bias, last_bias, last_kernel"):
        features.features(tmp_path / "x.npz")


def test_drawn_sets_are_near(classified: tuple[Path, Any]):
    """Drawn again they are nearer than in other colors, by every metric."""
    network, rng = features.features(classified[0]), np.random.default_rng(2)
    crowd, strangers = ([person for person, _ in drawn(60, seed)] for seed in (0, 1))
    real, again = draw.pictures(crowd, rng), draw.pictures(crowd, rng)
    others = draw.pictures(strangers, rng)
    near, far = (sets.compared(network, one, real, others) for one in (again, 255 - again))
    assert near["frechet_same"] < near["frechet"] < far["frechet"] / 3
    assert near["frechet_same"] < far["frechet_same"] / 5
    assert near["kid"] < far["kid"] / 5
    assert near["precision"] > 0.5 > far["precision"]
    assert near["recall"] > 0.5 > far["recall"]
    assert sets.rank(network, real[:7]) == 6


def test_hidden_units_have_unit_variance(classified: tuple[Path, Any]):
    path, _ = classified
    with np.load(path.with_name("a.npz")) as file:
        found = dj.collect_features(features.features(path), [file["image"]], ["features"])
    assert found.features is not None
    spread = found.features.std(0)
    np.testing.assert_allclose(spread[spread > 0], 1, rtol=1e-4)


def test_what_is_missing_is_named_before_work(
    classified: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = classified[0].with_name("a.npz")
    alone = tmp_path / "a.npz"
    alone.write_bytes(data.read_bytes())
    for line, said in (
        ([str(tmp_path / "no.npz")], "examples.avatars.draw"),
        ([str(alone)], "examples.avatars.features"),
        ([str(data), "--num", "128"], "--num must be above 128"),
    ):
        with pytest.raises(SystemExit):
            measure.main([line[0], "avatars", *line[1:], "--out", str(tmp_path)])
        assert said in capsys.readouterr().err


def test_the_text_of_the_results_is_of_their_numbers():
    result = json.loads((measure.HERE / "results.json").read_text())
    assert measure.markdown(result) == (measure.HERE / "results.md").read_text()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    folder = tmp_path_factory.mktemp("avatars") / "tokenizer"
    return train.learned_tokenizer(folder)


def test_a_word_is_a_token(tokenizer: CLIPTokenizer):
    ids = tokenizer(["a sad person with short blonde hair, wearing an orange t-shirt", ""])
    begin, end = ids[1, :2]
    assert ids.shape == (2, tokens.LENGTH)
    assert (ids[1, 1:] == end).all()
    assert (
        ids[0].tolist().index(end) == 1 + len("a sad person with short blonde hair".split()) + 1 + 6
    )
    assert ids[0, 0] == begin


@pytest.fixture
def pictures(tokenizer: CLIPTokenizer) -> train.Pictures:
    rng = np.random.default_rng(0)
    crowd = [person for person, _ in drawn(8)]
    mean, std = rng.standard_normal((2, 8, 8, 8, 4)).astype(np.float32)
    return train.Pictures(crowd, mean, abs(std), 0.5, tokenizer, size=2)


def test_training_resumes_where_it_was_killed(pictures: train.Pictures, tmp_path: Path):
    """Two updates; and one, then a second in a new call: the same bits."""

    def loss(params: Any, batch: Any, key: jax.Array) -> Any:
        noise = jax.random.normal(key, batch["image"].shape)
        value = jnp.square(params["scale"] * batch["image"] - noise).mean() + batch["ids"].mean()
        return value, {"loss": value}

    adam = Optimizer(learning_rate=0.1, warmup_steps=0).make(2)
    update = make_train_step(make_update(loss, adam))

    def trained(name: str, steps: int) -> TrainState:
        state = init_state({"scale": jnp.ones(())}, adam, jax.random.key(0))
        return loop.run(tmp_path / name, state, update, pictures.batch, steps)

    whole = trained("whole", 2)
    trained("killed", 1)
    resumed = trained("killed", 2)
    assert int(resumed.step) == 2
    assert float(resumed.params["scale"]) == float(whole.params["scale"]) != 1


def test_a_pass_has_each_picture_once():
    passes = [
        np.concatenate([loop.shuffled(10, 3, 0, 3 * n + k) for k in range(3)]) for n in (0, 1)
    ]
    assert [len(set(one.tolist())) for one in passes] == [9, 9]
    assert passes[0].tolist() != passes[1].tolist()


@pytest.mark.slow
def test_the_networks_train(pictures: train.Pictures, tmp_path: Path):
    networks = train.make_networks(pictures.tokenizer.vocab_size, TEXT, UNET)
    update, first = train.begin(networks, steps=10)
    state = loop.run(tmp_path / "run", first(), update, pictures.batch, 2)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, first().params)
    for part in ("text_encoder", "unet"):
        assert (
            np.mean(jax.tree.leaves(changed[part])) > 0.9
        )  # not keys' biases: softmax undoes them
    train.save(networks, state.ema, tmp_path)
    _, params = UNet2DConditionModel.from_pretrained(tmp_path)
    kernel = state.ema["unet"]["conv_in"]["kernel"]
    np.testing.assert_array_equal(params["conv_in"]["kernel"], kernel)
    text, _ = CLIPTextModel.from_pretrained(tmp_path)
    assert text.eos_token_id == pictures.tokenizer.vocab_size - 1
    assert DDIMScheduler.from_pretrained(tmp_path) == train.SCHEDULER


@pytest.mark.slow
def test_the_autoencoder_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train_vae, "BATCH", 2)
    images = np.stack([draw.picture(draw.options(*one))[::4, ::4] for one in drawn(4)])
    train_vae.train(images, tmp_path, 1, VAE)
    vae, params = AutoencoderKL.from_pretrained(tmp_path)
    latents: Any = np.load(tmp_path / "latents.npz")
    assert latents["mean"].shape == (4, 8, 8, 4)
    variance = latents["mean"].var() + (latents["std"] ** 2).mean()
    assert vae.scaling_factor**2 * variance == pytest.approx(1, rel=1e-5)
    encoded = vae.apply({"params": params}, train_vae.to_floats(images), method="encode")
    np.testing.assert_allclose(encoded[0], latents["mean"], rtol=1e-5, atol=1e-6)
