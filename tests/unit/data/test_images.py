"""What an image model receives: the output of the checkpoint's own processor, of images as every viewer shows them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import transformers
from PIL import Image

from raysoft.data import images
from raysoft.data.digits import pixel_values
from raysoft.data.images import encode_images
from raysoft.data.raw import RawSamples
from raysoft.errors import ConfigError
from raysoft.models.image_processor import channels_of, load_processor

SQUARE = {"height": 32, "width": 32}
LARGER = {"height": 36, "width": 36}
CONFIG = SimpleNamespace(num_channels=3, image_size=32, model_type="vit")
PROCESSORS = [
    ("DeiTImageProcessor", {"size": LARGER, "crop_size": SQUARE}),
    ("BeitImageProcessor", {"size": LARGER, "crop_size": SQUARE, "do_center_crop": True}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "crop_pct": 0.875}),
    ("MobileViTImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": SQUARE}),
    ("EfficientNetImageProcessor", {"size": SQUARE}),
    ("EfficientNetImageProcessor", {"size": SQUARE, "rescale_factor": 1 / 127.5, "rescale_offset": True}),
    ("ViTImageProcessor", {"size": SQUARE}),
    ("ViTImageProcessor", {"size": SQUARE, "do_normalize": False, "resample": 0}),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": SQUARE}),
    ("BitImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": SQUARE}),
]


def picture(size=(9, 6), seed=0):
    """Coloured tiles of ten pixels: resizing, cropping and swapped channels all show."""
    tiles = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3))
    return Image.fromarray(np.kron(tiles, np.ones((10, 10, 1))).astype(np.uint8))


def encode(processor, content, channels=3):
    return encode_images(RawSamples(content), processor, channels, "data.path", "m")


@pytest.mark.parametrize("name,settings", PROCESSORS)
def test_the_checkpoints_own_processor_makes_the_pixels(tmp_path, name, settings):
    getattr(transformers, name)(**settings).save_pretrained(tmp_path)
    wide, high = picture(), picture((6, 9), 1)
    own = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    wanted = [own(one, return_tensors="np")["pixel_values"][0] for one in (wide, high)]
    wide.save(tmp_path / "wide.png")
    found = encode(load_processor(str(tmp_path), CONFIG, "m", None), [tmp_path / "wide.png", high])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.stack(wanted))


def plain(tmp_path, channels=3, size=4):
    config = SimpleNamespace(num_channels=channels, image_size=size, model_type="vit")
    return load_processor(str(tmp_path), config, "m", None)


def test_a_folder_without_settings_gets_the_plainest(tmp_path):
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    found = encode(plain(tmp_path), [image])
    np.testing.assert_allclose(found[0], np.moveaxis(np.asarray(image) / 127.5 - 1, -1, 0), atol=1e-6)
    vision = SimpleNamespace(num_channels=3, image_size=4)  # CLIP and SigLIP say it of their vision part
    inside = load_processor(str(tmp_path), SimpleNamespace(vision_config=vision, model_type="clip"), "m", None)
    np.testing.assert_array_equal(encode(inside, [image]), found)
    with pytest.raises(ConfigError, match="nowhere how large"):
        load_processor(str(tmp_path), SimpleNamespace(num_channels=3, model_type="bert"), "m", None)


def test_settings_that_cannot_be_used_are_refused(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "NoSuchProcessor"}))
    with pytest.raises(ConfigError, match=r"^model\.name: 'm' has an image processor that cannot be used"):
        load_processor(str(tmp_path), CONFIG, "m", None)
    (tmp_path / "preprocessor_config.json").write_text("[1")
    with pytest.raises(ConfigError, match="not a JSON object"):
        load_processor(str(tmp_path), CONFIG, "m", None)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(tmp_path, orientation):
    upright = picture((4, 4))
    turned = {
        1: None,
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_90",
        7: "TRANSVERSE",
        8: "ROTATE_270",
    }[orientation]
    stored = upright if turned is None else upright.transpose(Image.Transpose[turned])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    processor = plain(tmp_path, size=40)
    np.testing.assert_array_equal(encode(processor, [tmp_path / "photo.png"]), encode(processor, [upright]))


def test_scans_of_sixteen_bits_keep_their_upper_byte(tmp_path):
    scan = Image.fromarray(np.full((4, 4), 0x4D12, dtype=np.uint16))
    scan.save(tmp_path / "scan.png")
    scan.save(tmp_path / "scan.tif")
    grey = plain(tmp_path, channels=1)
    for content in (scan, tmp_path / "scan.png", tmp_path / "scan.tif"):
        np.testing.assert_allclose(encode(grey, [content], 1), 0x4D / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("kind,words", [(np.int32, "32-bit integers"), (np.float32, "floating-point")])
def test_images_without_an_agreed_scale_are_refused_by_name(tmp_path, kind, words):
    Image.fromarray(np.linspace(0, 1, 16).reshape(4, 4).astype(kind)).save(tmp_path / "wide.tif")
    with pytest.raises(ConfigError, match=rf"^data\.path: .*wide\.tif: not a readable image .*{words}"):
        encode(plain(tmp_path), [tmp_path / "wide.tif"])


@pytest.mark.parametrize("channels,mode", [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_images_come_in_the_channels_of_the_model(tmp_path, channels, mode):
    image = picture((4, 4))
    found = encode(plain(tmp_path, channels, 40), [image], channels)
    wanted = np.asarray(image.convert(mode)).reshape(40, 40, channels) / 127.5 - 1
    np.testing.assert_allclose(found[0], np.moveaxis(wanted, -1, 0), atol=1e-6)


def test_odd_models_and_too_many_images_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="5 channels"):
        encode(plain(tmp_path), [picture()], 5)
    with pytest.raises(ConfigError, match="all alike"):
        encode(lambda images, **_: {"pixel_values": np.zeros((len(images), 7))}, [picture()])
    with pytest.raises(ConfigError, match="not finite"):
        encode(lambda images, **_: {"pixel_values": np.full((1, 3, 2, 2), np.nan)}, [picture()])
    monkeypatch.setattr(images.os, "sysconf", lambda name: 10)
    with pytest.raises(ConfigError, match=r"^data\.max_train_samples: .*data\.max_train_samples=\d+"):
        encode(plain(tmp_path), [picture()])
    assert channels_of(SimpleNamespace(vision_config=SimpleNamespace(num_channels=1))) == 1


def test_the_embedded_digits_are_what_their_processor_makes(tmp_path):
    """To the last bit but one: transformers rounds in another order."""
    digits = list(np.random.default_rng(0).integers(0, 256, (3, 8, 8)).astype(np.uint8))
    assert pixel_values([]).shape == (0, 1, 8, 8)
    found = pixel_values(digits)
    np.testing.assert_allclose(found, encode(plain(tmp_path, 1, 8), digits, 1), atol=4 * 2.0**-24)


def test_an_image_without_pixels_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^data\.path: row 1 of .*no pixels"):
        encode(plain(tmp_path), [Image.new("RGB", (0, 4))])
