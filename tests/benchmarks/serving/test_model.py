"""A loaded model scores images as its trial did: every method, from pixels and from files."""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ltbench
from ltbench.benchmarks.analysis.record_files.sealed import write_sealed
from ltbench.benchmarks.serving.portable import Portable
from ltbench.datasets.images.augmentation import Augmentation
from ltbench.datasets.images.decoding import read_image
from ltbench.datasets.loading import SplitDataset
from ltbench.errors import UserError
from ltbench.files import read_json
from ltbench.registry import load_plugin


def test_files_are_decoded_sized_and_normalised_as_for_the_trial(
    trained: Any, tiny_dataset: SplitDataset, tmp_path: Path
) -> None:
    model = ltbench.load_model(trained())
    assert model.stored_size == 19 and model.record.result.data.stored_size == 19
    store, (ids, _) = tiny_dataset.store(), tiny_dataset.manifest.part("test")
    paths = [tmp_path / f"{number}.png" for number in range(len(ids))]
    for path, row in zip(paths, store.rows(ids), strict=True):
        Image.fromarray(store.pixels[row].transpose(1, 2, 0)).save(path)
    _, _, recorded = model.record.test_predictions()
    with torch.no_grad():
        logits = model(torch.stack([model.preprocess(path) for path in paths])).numpy()
    np.testing.assert_allclose(logits, recorded, atol=1e-5)
    with Image.open(paths[0]) as image:
        assert model.preprocess(image).equal(model.preprocess(str(paths[0])))
    expected = (torch.from_numpy(recorded).double() / model.temperature).softmax(1)
    torch.testing.assert_close(model.predict_proba(paths), expected, atol=1e-5, rtol=0)
    with pytest.raises(UserError, match=r"cannot read the image .*none\.png: No such file"):
        model.preprocess(tmp_path / "none.png")


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "test_vit", "tune": "adaptformer", "tta": "five_crop"},
        {"backbone": "test_vit", "tune": "lora", "augmentation": Augmentation(interpolation="bicubic")},
        {"tune": "head", "frozen_features": True},
    ],
)
def test_adapters_crops_bicubic_images_and_heads_on_features(changes: Any, trained: Any, tiny_dataset: Any) -> None:
    model = ltbench.load_model(trained(changes=changes))
    _, _, recorded = model.record.test_predictions()
    pixels = tiny_dataset.part("test").gather(np.arange(len(recorded)))
    with torch.no_grad():
        exported, _ = Portable(model).eval()(pixels.float() / 255)
        for logits in (model.scores(pixels), exported):
            np.testing.assert_allclose(logits.numpy(), recorded, atol=1e-4)
    assert np.ptp(recorded, axis=0).max() > 0.01


def test_a_large_jpeg_goes_through_the_decoder_of_training(trained: Any, tmp_path: Path) -> None:
    model, path = ltbench.load_model(trained()), tmp_path / "large.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    assert (model.decode(path) == read_image(str(path), 19)).all()


def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder.parent, tmp_path / "row")) / folder.name


def test_records_of_earlier_versions_lack_the_stored_size(trained: Any, tmp_path: Path) -> None:
    folder = copied(trained(), tmp_path)
    value = read_json(folder / "result.json")
    write_sealed(folder / "result.json", {name: own for name, own in value.items() if name != "stored_size"})
    model = ltbench.load_model(folder)
    assert model.record.result.data.stored_size is None and model.stored_size == 19


def forget_plugins() -> None:
    for module in [name for name in sys.modules if name.startswith("ltbench_plugin_")]:
        del sys.modules[module]


def test_a_plug_in_is_found_by_its_record_and_refused_where_it_is_missing_or_changed(
    trained: Any, tiny_dataset: SplitDataset, tmp_path: Path
) -> None:
    text = (Path(__file__).parents[2] / "plugins" / "temperature.py").read_text()
    plugin = tmp_path / "temperature.py"
    plugin.write_text(text)
    load_plugin(plugin)
    folder = trained("temperature", plugins=[plugin])
    forget_plugins()
    model = ltbench.load_model(folder)
    pixels = tiny_dataset.part("test").gather(np.arange(5))
    with torch.no_grad():
        np.testing.assert_allclose(model.scores(pixels).numpy(), model.record.test_predictions()[2][:5], atol=1e-5)
    forget_plugins()
    plugin.write_text(f"{text}\n")
    with pytest.raises(UserError, match=r"trained with temperature, a plug-in of the SHA-256 .* is not that"):
        ltbench.load_model(folder)
    forget_plugins()
    plugin.unlink()
    with pytest.raises(UserError, match=r"temperature is a plug-in, and .* is missing; give its file with --plugin"):
        ltbench.load_model(folder)


def test_what_is_no_trial_is_one_line(trained: Any, tmp_path: Path) -> None:
    folder = copied(trained(), tmp_path)
    with pytest.raises(UserError, match=r"row is no folder of a finished trial; did you mean .*row/trial0\?"):
        ltbench.load_model(folder.parent)
    with pytest.raises(UserError, match=r"nowhere is no folder of a finished trial; give results/"):
        ltbench.load_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        ltbench.load_model(folder, device="gpu")
    (folder / "predictions.npz").unlink()
    with pytest.raises(UserError, match=r"predictions\.npz is not readable"):
        _ = ltbench.load_model(folder).temperature
    (folder / "model.pt").write_bytes(b"another")
    with pytest.raises(UserError, match=r"model\.pt is not the file that"):
        ltbench.load_model(folder)
