"""Two small tokenizers of Hugging Face and what open_clip's `HFTokenizer` makes of captions with them, for clip-runner's own
tests. Needs `transformers`, which nothing else here does:

    python runners/clip/tests/python/hugging_face.py      writes runners/clip/tests/tokenizers
"""

import json
import pathlib

from open_clip.tokenizer import HFTokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "tokenizers"
CAPTIONS = [
    "a photo of a cat", "A_Photo of  Two\tCATS, sitting!", "", "caf\u00e9 &amp; na\u00efve \u201cr\u00e9sum\u00e9\u201d", "[SEP] in the text </s>",
    "an unknown \u4e2d\u6587 word", "a very long caption about a dog that runs over a green field while the sun goes down behind hills",
    "2-for-1: 50% off", "x", "the the the", "\U0001f600 a smiling face", "don't stop_me now",
]
WORDS = CAPTIONS + ["a photo of a dog", "a drawing of the sun over the hills", "green field", "two cats and a dog"]


def wordpiece():
    """As BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(WORDS, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", ends)
    return tokenizer, {
        "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]",
        "sep_token": "[SEP]",
    }


def unigram():
    """As SigLIP's: a sentencepiece of T5's kind, padded with the token that ends a text."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(WORDS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    return tokenizer, {
        "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": {"__type": "AddedToken", "content": "</s>"},
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }


def main():
    cases = []
    for name, (tokenizer, config), settings in [
        ("wordpiece", wordpiece(), [{}, {"strip_sep_token": True}]),
        ("unigram", unigram(), [{"clean": "canonicalize"}, {"clean": "lower"}]),
    ]:
        folder = FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n")
        for kwargs in settings:
            encode = HFTokenizer(str(folder), context_length=12, **kwargs)
            cases.append({"tokenizer": name, "kwargs": kwargs, "ids": encode(CAPTIONS).tolist()})
    text = json.dumps({"captions": CAPTIONS, "cases": cases})
    (FOLDER / "golden.json").write_text(text.replace('{"tokenizer"', '\n{"tokenizer"') + "\n")


if __name__ == "__main__":
    main()
