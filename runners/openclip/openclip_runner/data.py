"""Training pairs for open_clip_train: which, in which order, and how they become tensors.

Takes the place of `open_clip_train.data.get_data`, whose epochs are whole numbers of passes over shards, rounded, and
whose shuffling is not seeded. Here the pairs are the first U of the pool, each pass over them is a permutation of its
own, and what a position holds, its random crop included, is a function of seed and position alone: a job that is
resumed sees what it would have seen. Decoding, crops, normalisation and tokens are open_clip's.
"""

import functools
import hashlib
import io
import os

import numpy
import torch
from PIL import Image

from openclip_runner.errors import BadInput


def picture(pair, alpha):
    """The image of a pair as RGB: as open_clip's reader gives it, or laid on white."""
    with open(pair.shard, "rb") as file:
        encoded = os.pread(file.fileno(), pair.length, pair.offset)
    try:
        image = Image.open(io.BytesIO(encoded))
        image.load()
    except Exception as error:
        raise BadInput(
            f"the image of sample `{pair.key}` in `{pair.shard}` can't be decoded ({error}): take it out of the pool "
            "(clip-runner passes over such pairs, this runner does not)"
        ) from error
    if alpha == "white" and (image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


class Positions(torch.utils.data.Dataset):
    """The sample at each position of training."""

    def __init__(self, pairs, seed, alpha, transform, tokenizer):
        self.pairs, self.seed, self.alpha, self.transform = pairs, seed, alpha, transform
        self.tokens = functools.lru_cache(1 << 20)(lambda caption: tokenizer(caption)[0])
        self.order = functools.lru_cache(2)(
            lambda turn: numpy.random.default_rng([seed, turn]).permutation(len(pairs))
        )

    def __getitem__(self, position):
        turn, place = divmod(position, len(self.pairs))
        pair = self.pairs[self.order(turn)[place]]
        image = picture(pair, self.alpha)
        seed = int.from_bytes(hashlib.sha256(f"{self.seed} {position}".encode()).digest()[:7], "big")
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        image = self.transform(image)
        torch.set_rng_state(state)
        return image, self.tokens(pair.caption)


class Stream:
    """What `open_clip_train` takes for the data of its epochs: parts of one stream that goes on where the last ended.

    `before(epoch)` is called where an epoch begins, which is after the checkpoint of the last one was saved.
    """

    def __init__(self, job, pairs, args, transform, tokenizer, epoch, epoch_steps, before):
        self.before, self.num_batches = before, epoch_steps * job.accum
        self.num_samples = epoch_steps * job.batch
        dataset = Positions(pairs, job.spec["seed"], job.recipe.get("alpha", "drop"), transform, tokenizer)
        part = args.batch_size
        batches = [
            range(start := job.batch * step + (args.world_size * turn + args.rank) * part, start + part)
            for step in range(epoch * epoch_steps, job.steps) for turn in range(job.accum)
        ]
        workers = 0 if job.device == "cpu" else job.threads
        self.batches = iter(torch.utils.data.DataLoader(
            dataset, batch_sampler=batches, num_workers=workers, pin_memory=job.device != "cpu",
        ))

    @property
    def dataloader(self):
        return self

    def set_epoch(self, epoch):
        self.before(epoch)

    def __iter__(self):
        for _ in range(self.num_batches):
            yield next(self.batches)
