"""Pictures of many kinds, and what Pillow and torchvision's rules make of them: OpenCLIP's pixels.

    python3 pictures.py FOLDER [--large]

Writes FOLDER/pictures.tar (a pool: KEY.png|jpg|webp, KEY.txt) and FOLDER/expected.tar: KEY/SIZE (the square of the
evaluation transform), KEY/SIZE/INTERPOLATION-MODE (the same by another transform of open_clip) and
KEY/SIZE/LEFT,TOP,WIDTH,HEIGHT (a crop, stretched), rows of RGB bytes. Without --large
pictures are small: that is how tests/data/pictures.tar.gz and expected.tar.gz were made (Pillow 13.0.0).
"""

import io
import random
import sys
import tarfile

import open_clip
from PIL import Image, ImageDraw

SIZES = [32, 224]


def scene(width, height, seed, mode="RGB"):
    """Slopes, edges and noise: what photos and drawings have."""
    draw = random.Random(seed)
    small = Image.new("RGB", (max(2, width // 9), max(2, height // 9)))
    small.putdata([tuple(draw.randrange(256) for _ in range(3)) for _ in range(small.width * small.height)])
    image = small.resize((width, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = draw.randrange(width), draw.randrange(height)
        box = [x, y, x + draw.randrange(1, width + 1), y + draw.randrange(1, height + 1)]
        color = tuple(draw.randrange(256) for _ in range(3))
        if draw.random() < 0.5:
            pen.ellipse(box, fill=color)
        else:
            pen.line(box, fill=color, width=draw.randrange(1, 5))
    if mode == "RGBA":
        image.putalpha(small.convert("L").resize((width, height)).point(lambda v: 0 if v < 90 else v))
    return image


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png16(width, height, color, seed):
    """A PNG of 16 bits a channel, which Pillow writes for greys alone."""
    import struct
    import zlib

    draw = random.Random(seed)
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    phase = [draw.random() * 6 for _ in range(channels)]
    rows = b""
    for y in range(height):
        row = [int(32767 + 32767 * ((x * (c + 2) + y * 3) % 41 / 41 - 0.5 + (phase[c] - 3) / 6)) for x in range(width) for c in range(channels)]
        rows += b"\0" + b"".join(struct.pack(">H", min(65535, max(0, v))) for v in row)

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pictures(large):
    k = 4 if large else 1
    shapes = [(50, 37), (33, 91), (120, 40), (31, 32), (32, 32), (9, 5), (64, 64)][: 7 if large else 5]
    for at, (width, height) in enumerate(shapes):
        width, height = width * k, height * k
        yield f"rgb{at}", "png", encoded(scene(width, height, at), "PNG")
        # Chroma at full, half and quarter resolution.
        for subsampling in (0, 1, 2):
            options = {"quality": 80 + 5 * subsampling, "subsampling": subsampling, "progressive": at % 2 == 1}
            yield f"jpeg{at}-{subsampling}", "jpg", encoded(scene(width, height, at), "JPEG", **options)
        yield f"lossy{at}", "webp", encoded(scene(width, height, at), "WEBP", quality=80)
        yield f"lossless{at}", "webp", encoded(scene(width, height, at, "RGBA"), "WEBP", lossless=True, exact=True)
    width, height = 45 * k, 36 * k
    plain, clear = scene(width, height, 91), scene(width, height, 91, "RGBA")
    yield "rgba", "png", encoded(clear, "PNG")
    yield "lossy-alpha", "webp", encoded(clear, "WEBP", quality=70, exact=True)
    yield "la", "png", encoded(clear.convert("LA"), "PNG")
    yield "l", "png", encoded(plain.convert("L"), "PNG")
    yield "l-trns", "png", encoded(plain.convert("L"), "PNG", transparency=128)
    yield "rgb-trns", "png", encoded(plain, "PNG", transparency=plain.getpixel((0, 0)))
    yield "bits", "png", encoded(plain.convert("1"), "PNG")
    for colors, bits in [(2, 1), (4, 2), (13, 4), (200, 8)]:
        palette = plain.quantize(colors)
        yield f"palette{colors}", "png", encoded(palette, "PNG", bits=bits)
        yield f"palette{colors}-trns", "png", encoded(palette, "PNG", bits=bits, transparency=bytes([0, 128]))
    yield "grey-jpeg", "jpg", encoded(plain.convert("L"), "JPEG", quality=90)
    yield "cmyk", "jpg", encoded(plain.convert("CMYK"), "JPEG", quality=95)
    for color, name in [(2, "rgb16"), (6, "rgba16"), (4, "la16"), (0, "l16")]:
        yield name, "png", png16(width, height, color, color)
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "turned", "jpg", encoded(plain, "JPEG", quality=90, exif=exif)
    yield "turned-png", "png", encoded(plain, "PNG", exif=exif)
    # Of an animation the first picture.
    yield "moving", "webp", encoded(plain, "WEBP", save_all=True, append_images=[scene(width, height, 3)], lossless=True)
    yield "moving-png", "png", encoded(plain, "PNG", save_all=True, append_images=[scene(width, height, 3)])


def square(image, size):
    """torchvision's Resize(size) and CenterCrop(size)."""
    width, height = image.size
    if width <= height:
        width, height = size, int(size * height / width)
    else:
        width, height = int(size * width / height), size
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = int(round((width - size) / 2.0)), int(round((height - size) / 2.0))
    return image.crop((left, top, left + size, top + size))


def transformed(image, size, interpolation, mode):
    """open_clip's own, but for the last steps, which make numbers of bytes."""
    transform = open_clip.image_transform(size, is_train=False, interpolation=interpolation, resize_mode=mode)
    for step in transform.transforms:
        if type(step).__name__ not in ("function", "ToTensor", "MaybeToTensor", "Normalize"):
            image = step(image)
    return image


MODES = [(i, mode) for i in ("bicubic", "bilinear") for mode in ("shortest", "longest", "squash")][1:]


def main():
    folder, large = sys.argv[1], "--large" in sys.argv
    draw = random.Random(5)
    pool = tarfile.open(f"{folder}/pictures.tar", "w")
    expected = tarfile.open(f"{folder}/expected.tar", "w")

    def add(tar, name, data):
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))

    for at, (key, kind, data) in enumerate(pictures(large)):
        add(pool, f"{key}.{kind}", data)
        add(pool, f"{key}.txt", key.encode())
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            # Pillow makes white of all greys of 16 bits above 255; the upper 8 bits are what was meant.
            image = opened.point(lambda v: v / 256).convert("L").convert("RGB") if key == "l16" else opened.convert("RGB")
        for size in SIZES if large else SIZES[:1]:
            add(expected, f"{key}/{size}", square(image, size).tobytes())
            for number, (interpolation, mode) in enumerate(MODES):
                # Decoders of JPEG differ, which the squares above show; here it is resizing that is compared.
                if kind != "jpg" and (large or at % 10 == 2 * number):
                    pixels = transformed(image, size, interpolation, mode)
                    assert pixels.size == (size, size), (key, pixels.size)
                    add(expected, f"{key}/{size}/{interpolation}-{mode}", pixels.tobytes())
            width, height = draw.randrange(1, image.width + 1), draw.randrange(1, image.height + 1)
            left, top = draw.randrange(image.width - width + 1), draw.randrange(image.height - height + 1)
            crop = image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BICUBIC)
            if large or at % 4 == 0:
                add(expected, f"{key}/{size}/{left},{top},{width},{height}", crop.tobytes())
    pool.close()
    expected.close()


main()
