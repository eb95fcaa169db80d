"""Numbers of open_clip that clip-runner's own tests hold it against: for each way a model can be built a small one, its
embeddings, loss, gradient norm, and the losses of 50 steps of AdamW; with a bias of the logits those of the sigmoid loss too.

    scripts/kernels-python.sh runners/clip/tests/python/golden.py      writes runners/clip/src/model/golden.json

The i-th value of the k-th parameter by name is 0.2 sin(0.37 i^2 + k), plus 1 for weights of layer norms; `logit_scale` and
`logit_bias` stay at their starts. Pixel i of step s is sin(0.05 i^2 + 0.3 s), step 0 being what the embeddings are of. All is
computed in double precision, so that what differs is the rounding of one side.
"""

import json
import pathlib

import torch
from open_clip.loss import ClipLoss, SigLipLoss
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

FILE = pathlib.Path(__file__).parents[2] / "src/model/golden.json"
VISION = {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 7, "vocab_size": 40, "width": 16, "heads": 2, "layers": 2}
TOKENS = [[38, 5, 9, 39, 0, 0, 0], [38, 1, 2, 3, 4, 5, 39], [38, 7, 39, 0, 0, 0, 0]]
KEPT = [0, 2, 3]
torch.set_num_threads(1)
STEPS, LR, DECAY, BETAS, EPS = 50, 5e-4, 0.2, (0.9, 0.98), 1e-6

CLIPA_IMAGE = {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}
CLIPA_TEXT = {"no_causal_mask": True, "pool_type": "last"}
SIGLIP_TEXT = {**CLIPA_TEXT, "proj_bias": True, "norm_kwargs": {"eps": 1e-6}}
COCA_IMAGE = {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 2}


def case(name, vision=None, text=None, **top):
    config = {"embed_dim": 8, **top, "vision_cfg": {**VISION, **(vision or {})}, "text_cfg": {**TEXT, **(text or {})}}
    return name, config


CASES = dict([
    case("plain"),
    case("quick GELU and LayerScale", {"ls_init_value": 0.5}, {"ls_init_value": 0.5}, quick_gelu=True),
    case("quick GELU", quick_gelu=True),
    case("LayerScale", {"ls_init_value": 0.5}, {"ls_init_value": 0.5}),
    case("widths of MLPs", {"mlp_ratio": 4.3637}, {"mlp_ratio": 3.7362}),
    case("CLIPA", CLIPA_IMAGE, CLIPA_TEXT),
    case("patch dropout", {**CLIPA_IMAGE, "patch_dropout": 0.5}, CLIPA_TEXT),
    case("patch dropout before a pooled class token", {"patch_dropout": 0.5}),
    case("mean after the last norm", {"pool_type": "avg"}, {"pool_type": "first"}),
    case("class token before the last norm", {"final_ln_after_pool": True}, {"pool_type": "last"}),
    case("MetaCLIP worldwide", None, {"pool_type": "eos", "eos_id": 39}),
    case("MetaCLIP worldwide, quick GELU", None, {"pool_type": "eos", "eos_id": 39}, quick_gelu=True),
    case("SigLIP's text tower", None, SIGLIP_TEXT, custom_text=True, init_logit_scale=2.302585, init_logit_bias=-10),
    case(
        "SigLIP 2's text tower",
        {"norm_kwargs": {"eps": 1e-6}},
        {**SIGLIP_TEXT, "act_kwargs": {"approximate": "tanh"}},
        custom_text=True,
        init_logit_bias=-10,
        nonscalar_logit_scale=True,
    ),
    case("no projection of texts", {"act_kwargs": {"approximate": "tanh"}}, {"proj_type": "none", "width": 8}),
    case("CoCa's towers", COCA_IMAGE, {"embed_cls": True}, custom_text=True),
    case("CoCa's towers of one width", COCA_IMAGE, {"embed_cls": True, "pad_id": 5}, custom_text=True, embed_dim=32),
    case(
        "mean of attentional pooling, class token without a causal mask",
        {**COCA_IMAGE, "pool_type": "avg"},
        {"embed_cls": True, "no_causal_mask": True},
        custom_text=True,
    ),
])


def model_of(config):
    config = {**config}
    custom = config.pop("custom_text", False)
    return (CustomTextCLIP if custom else CLIP)(
        config.pop("embed_dim"),
        CLIPVisionCfg(**config.pop("vision_cfg")),
        CLIPTextCfg(**config.pop("text_cfg")),
        **config,
    )


def set_weights(model):
    with torch.no_grad():
        for k, (name, parameter) in enumerate(sorted(model.named_parameters())):
            if name.startswith("logit_"):
                continue
            values = 0.2 * torch.sin(0.37 * torch.arange(parameter.numel(), dtype=torch.float64) ** 2 + k)
            shift = 1 if ".ln_" in f".{name}" and name.endswith("weight") else 0
            parameter.copy_((values + shift).view(parameter.shape))


def pixels(step):
    return torch.sin(0.05 * torch.arange(3 * 3 * 16 * 16, dtype=torch.float64) ** 2 + 0.3 * step).view(3, 3, 16, 16)


def places(text):
    """Where the token that is pooled stands."""
    kind = text.get("pool_type", "argmax")
    if kind == "eos":
        return [row.index(text["eos_id"]) for row in TOKENS]
    return [{"first": 0, "last": 6}.get(kind, row.index(max(row))) for row in TOKENS]


def loss_of(model, images, sigmoid=False):
    out = model(images, torch.tensor(TOKENS))
    loss = SigLipLoss() if sigmoid else ClipLoss()
    return (*out[:2], loss(out[0], out[1], out[2], out[3] if len(out) > 3 else None))


def rounded(values):
    return [round(value, 9) for value in values]


def gradient_norm(model):
    return sum(p.grad.double().square().sum() for p in model.parameters() if p.grad is not None).sqrt().item()


def prepared(config):
    torch.manual_seed(0)
    model = model_of(config).double().train()
    set_weights(model)
    if config["vision_cfg"].get("patch_dropout"):
        model.visual.patch_dropout = torch.nn.Identity()
        embeds = model.visual._embeds
        # LayerNorm is a token's own, so rows may be left out behind it.
        model.visual._embeds = lambda x: embeds(x)[:, KEPT]
    return model


def trained(model, sigmoid=False):
    """The loss and gradient norm of the first step, and the losses of 50."""
    loss = loss_of(model, pixels(0), sigmoid)[2]
    loss.backward()
    found = {"loss": loss.item(), "gradient_norm": gradient_norm(model), "losses": []}
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS)
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, pixels(step), sigmoid)[2]
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.605170185988092)
        found["losses"] += rounded([loss.item()])
    return found


def numbers(config):
    model = prepared(config)
    images, texts, _ = loss_of(model, pixels(0))
    found = {
        "config": config,
        "ends": places(config["text_cfg"]),
        "images": rounded(images.detach().flatten().tolist()),
        "texts": rounded(texts.detach().flatten().tolist()),
        "parameters": sum(p.numel() for p in model.parameters()),
        **trained(model),
    }
    if config["vision_cfg"].get("patch_dropout"):
        found["kept"] = KEPT
    if "init_logit_bias" in config:
        found["sigmoid"] = trained(prepared(config), sigmoid=True)
    return found


if __name__ == "__main__":
    text = json.dumps({name: numbers(config) for name, config in CASES.items()}, separators=(",", ":"))
    FILE.write_text(text.replace('},"', '},\n"').replace('],"', '],\n"') + "\n")
