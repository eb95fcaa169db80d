"""Writes crops.tsv: width, height and the crop that torchvision's RandomResizedCrop draws (left, top, width, height), with
draws that a test can repeat.  python3 crops.py > crops.tsv  (torchvision 0.26.0)"""

import math
import random

import torch
from torchvision.transforms import RandomResizedCrop

state = [0, 0]


def draw():
    state[1] += 1
    return math.modf((state[0] * 97 + state[1]) * 0.618033988749895)[0]


class Blank:
    """What `torch.empty(1)` is to `get_params`."""

    def uniform_(self, low, high):
        return torch.tensor(float(low) + (float(high) - float(low)) * draw(), dtype=torch.float64)


torch.empty = lambda *_: Blank()
torch.randint = lambda low, high, size: torch.tensor(low + math.floor(draw() * (high - low)))

shapes = random.Random(3)
for case in range(300):
    state[:] = [case, 0]
    width = shapes.randrange(1, 900)
    height = max(1, round(width * math.exp(shapes.uniform(-0.7, 0.7)))) if case % 5 else shapes.randrange(1, 900)
    top, left, h, w = RandomResizedCrop.get_params(torch.zeros(3, height, width), [0.9, 1.0], [3 / 4, 4 / 3])
    print(width, height, left, top, w, h, sep="\t")
