"""Every configuration that comes with open_clip is sized as open_clip builds it, or refused with the setting named.

    make test-openclip
"""

import json

import configurations
import golden
import open_clip
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode


@pytest.mark.parametrize("path", configurations.CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_is_sized_or_refused(path):
    row, words = configurations.shown(path)
    config = json.loads(path.read_text())
    text, vision = config["text_cfg"], config["vision_cfg"]
    if row is None:
        foreign = "_siglip_" not in vision.get("timm_model_name", "_siglip_")
        assert foreign or "hf_model_name" in text or "multimodal_cfg" in config, words
        return
    assert ("timm_model_name" in vision or isinstance(vision["layers"], list)) == (configurations.kind(row) == "counted")
    with torch.device("meta"):
        model = open_clip.create_model(path.stem, device="meta", load_weights=False)
    assert row["parameters"] == sum(p.numel() for p in model.parameters())
    side = vision["image_size"]
    with FlopCounterMode(display=False) as counter:
        model.visual(torch.empty(1, 3, side, side, device="meta"))
        model.encode_text(torch.zeros(1, model.context_length, dtype=torch.long, device="meta"))
    assert row["gflops"] == pytest.approx(counter.get_total_flops() / 1e9, rel=1e-12)


def test_the_table_is_that_of_the_documentation():
    assert configurations.FILE.read_text() == configurations.table()


def test_the_study_is_covered():
    """The models of Cherti et al. 2022, table 1."""
    for name in ["ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14", "ViT-g-14", "ViT-bigG-14"]:
        path = next(path for path in configurations.CONFIGS if path.stem == name)
        assert configurations.kind(configurations.shown(path)[0]) == "trained", name


SIZES = {"image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size", "context_length", "vocab_size", "heads"}
SIZES |= {"attn_pooler_queries", "attn_pooler_heads", "eos_id", "hf_tokenizer_name", "tokenizer_kwargs"}


def flags(config):
    """A configuration without its sizes, once for each tower: they share nothing but what stands beside them."""
    top = {key: value for key, value in config.items() if key not in ("embed_dim", "vision_cfg", "text_cfg")}
    for tower in ("vision_cfg", "text_cfg"):
        settings = {key: value for key, value in config[tower].items() if key not in SIZES}
        settings = {key: True if key == "ls_init_value" else value for key, value in settings.items()}
        yield json.dumps([top, tower, settings], sort_keys=True)


def test_each_kind_that_is_trained_has_golden_numbers():
    covered = {tower for config in golden.CASES.values() for tower in flags(config)}
    trained = 0
    for path in configurations.CONFIGS:
        if configurations.kind(configurations.shown(path)[0]) in ("trained", "tokenizer"):
            trained += 1
            assert covered.issuperset(flags(json.loads(path.read_text()))), path.stem
    assert trained == 45


@pytest.mark.parametrize("name", golden.CASES)
def test_golden_numbers_are_open_clip_s(name):
    kept, fresh = json.loads(golden.FILE.read_text())[name], golden.numbers(golden.CASES[name])
    assert kept.keys() == fresh.keys() and kept["config"] == fresh["config"] and kept["ends"] == fresh["ends"]
    for key in ("images", "texts", "loss", "gradient_norm", "parameters", "losses"):
        assert kept[key] == pytest.approx(fresh[key], rel=2e-6, abs=2e-6), key
    for key, values in fresh.get("sigmoid", {}).items():
        assert kept["sigmoid"][key] == pytest.approx(values, rel=2e-6, abs=2e-6), key
