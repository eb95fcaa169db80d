"""Every configuration that comes with open_clip is sized as open_clip builds it, or refused with the setting named.

    make test-openclip
"""

import json
import os
import pathlib
import subprocess

import open_clip
import pytest
import torch

SWEEP = os.environ["SWEEP"]
CONFIGS = sorted((pathlib.Path(open_clip.__file__).parent / "model_configs").glob("*.json"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_is_sized_or_refused(path):
    shown = subprocess.run([SWEEP, "model", path, "--json"], capture_output=True, text=True)
    config = json.loads(path.read_text())
    if shown.returncode != 0:
        assert shown.returncode == 2 and "`" in shown.stderr and "built" in shown.stderr, shown.stderr
        # What is refused has a setting that clip-runner's towers do not have.
        text, vision = config["text_cfg"], config["vision_cfg"]
        foreign = {"timm_model_name", "no_ln_pre", "attentional_pool", "output_tokens"} & vision.keys()
        foreign |= {"hf_model_name", "hf_tokenizer_name", "embed_cls", "no_causal_mask"} & text.keys()
        assert foreign or isinstance(vision["layers"], list), shown.stderr
        return
    with torch.device("meta"):
        model = open_clip.create_model(path.stem, device="meta", load_weights=False)
    assert json.loads(shown.stdout)["parameters"] == sum(p.numel() for p in model.parameters())


def test_the_study_is_covered():
    """The models of Cherti et al. 2022, table 1."""
    for name in ["ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14", "ViT-g-14", "ViT-bigG-14"]:
        path = next(path for path in CONFIGS if path.stem == name)
        assert subprocess.run([SWEEP, "model", path, "--json"], capture_output=True).returncode == 0, name
