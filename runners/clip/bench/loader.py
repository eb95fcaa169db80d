"""Images a second from the same shards, one core each: clip-runner beside webdataset, Pillow and torchvision.

    scripts/bench-data.sh [ROUNDS]      make bench-data

Each round measures one and then the other; what is said is the median over rounds of processor time an image (other
processes take turns on the core, which the clock counts and processor time does not) and of the rounds' ratios.
"""

import glob
import io
import os
import re
import statistics
import subprocess
import sys
import tarfile
import time

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PHOTOGRAPHS, SIDE = 100, 512


def peer(shards, image_size, images):
    """Milliseconds of processor time an image: read, decoded, cropped as OpenCLIP crops, normalised, in batches of 64."""
    import torch
    import webdataset
    from torchvision import transforms

    torch.set_num_threads(1)
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                image_size, scale=(0.9, 1.0), interpolation=transforms.InterpolationMode.BICUBIC
            ),
            lambda image: image.convert("RGB"),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    data = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).repeat()
    data = data.shuffle(500).decode("pilrgb").rename(image="jpg;png", text="txt")
    batches = iter(data.map_dict(image=transform).to_tuple("image", "text").batched(64))
    next(batches)
    started, made = time.process_time(), 0
    while made < images:
        made += len(next(batches)[0])
    return 1e3 * (time.process_time() - started) / made


def ours(runner, pool, image_size, images):
    command = [runner, "bench-data", pool, "--image-size", str(image_size), "--images", str(images), "--batch", "64"]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(re.search(r"([0-9.]+) ms of processor time", said)[1])


def photographs(stamps, out):
    """The squares of the stamps that make the largest JPEGs of 512 x 512 pixels at quality 95, as img2dataset writes."""
    from PIL import Image

    if os.path.exists(f"{out}/00000.tar"):
        return
    found = []
    for shard in sorted(glob.glob(f"{stamps}/*.tar")):
        with tarfile.open(shard) as members:
            for member in members:
                if not member.name.endswith(".png"):
                    continue
                image = Image.open(io.BytesIO(members.extractfile(member).read())).convert("RGBA")
                opaque = image.getchannel("A")
                paper = Image.new("RGB", image.size, "white")
                paper.paste(image, mask=opaque)
                paper = paper.crop(opaque.getbbox())
                left, top = ((side - min(paper.size)) // 2 for side in paper.size)
                square = paper.crop((left, top, left + min(paper.size), top + min(paper.size)))
                jpeg = io.BytesIO()
                square.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(jpeg, "JPEG", quality=95)
                found.append((len(jpeg.getvalue()), member.name, jpeg.getvalue()))
    found.sort(reverse=True)
    os.makedirs(out, exist_ok=True)
    with tarfile.open(f"{out}/part.tmp", "w") as shard:
        for at, (_, _, jpeg) in enumerate(found[:PHOTOGRAPHS]):
            for name, content in [(f"{at:05}.jpg", jpeg), (f"{at:05}.txt", b"a photograph")]:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    os.rename(f"{out}/part.tmp", f"{out}/00000.tar")


def main(runner, data, rounds):
    photographs(f"{data}/stamps/test", f"{data}/photographs")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cases = [
        ("PNG 64 px to 32 px", "emoji/train", 32, 1024),
        ("PNG 64 px to 224 px", "emoji/train", 224, 512),
        ("JPEG 512 px to 224 px", "photographs", 224, 256),
    ]
    print("| | webdataset, ms an image | clip-runner, ms an image | times | least, most of the rounds |")
    print("|---|---|---|---|---|")
    for what, pool, image_size, images in cases:
        shards = sorted(glob.glob(f"{data}/{pool}/*.tar"))
        of_peer, of_ours = [], []
        for _ in range(rounds):
            command = [sys.executable, __file__, "peer", str(image_size), str(images), *shards]
            of_peer.append(float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
            of_ours.append(ours(runner, f"{data}/{pool}", image_size, 4 * images))
        ratios = [peer / own for peer, own in zip(of_peer, of_ours)]
        least, most = min(ratios), max(ratios)
        median = statistics.median
        print(f"| {what} | {median(of_peer):.3f} | {median(of_ours):.3f} | {median(ratios):.1f} | {least:.1f}, {most:.1f} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "peer":
        print(peer(sys.argv[4:], int(sys.argv[2]), int(sys.argv[3])))
    else:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
