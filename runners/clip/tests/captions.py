"""Writes what `src/caption` and its test read. Needs open_clip_torch 3.3.0 and ftfy 6.3.1:

    python3 captions.py tables > ../src/caption/tables.json      # then gzip -9n: tables.json.gz
    python3 captions.py golden > captions.tsv                    # then gzip -9n: captions.tsv.gz
"""

import html
import html.entities
import json
import random
import sys
import unicodedata

import ftfy
from ftfy import badness, chardata

SENTENCES = [
    "El niño comió piñas en España", "à la crème brûlée, voilà l’été", "Größe: 5½ m² – schön & süß", "São João às vezes é açúcar",
    "Zażółć gęślą jaźń", "Příliš žluťoučký kůň úpěl ďábelské ódy", "Árvíztűrő tükörfúrógép", "Ąžuolas šlama, žąsys gagena",
    "İstanbul’da güneşli bir gün, ığdır", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία", "Съешь же ещё этих мягких французских булок",
    "שלום עולם", "مرحبا بالعالم", "日本語の写真、東京タワー", "中国长城的照片", "한국어 사진", "हिन्दी में चित्र", "ภาพถ่ายไทย",
    "“Quoted” ‘text’ — it’s here…", "5 € per kg • £3 © 2019 ™ ®", "🐢 turtle 😀👍🏽 family 👨‍👩‍👧", "½ cup, 10°C ± 2 µm × 3", "naïve café Ångström Øre ÅÄÖ",
    "¿Qué pasa? ¡Nada! «así»", "tschüß STRASSE ß ẞ", "L’œuvre d’art à l’Œuvre", "Perfect ✔ No problems ★★★☆☆",
]
CODECS = ["latin-1", "sloppy-windows-1252", "sloppy-windows-1251", "sloppy-windows-1250", "sloppy-windows-1253",
          "sloppy-windows-1254", "sloppy-windows-1257", "iso-8859-2", "macroman", "cp437"]


def tables():
    """Facts about characters: named references of HTML, single-byte encodings, ftfy's classes of characters."""
    maps = {name: bytes(range(128, 256)).decode(name) for name in chardata.CHARMAP_ENCODINGS}
    return {"entities": html.entities.html5, "maps": maps, "classes": badness.MOJIBAKE_CATEGORIES, "clues": chardata.UTF8_CLUES}


def broken(text, codec):
    """What becomes of UTF-8 that is read as something else."""
    return text.encode("utf-8").decode(codec, "replace")


def lines():
    draw = random.Random(11)
    yield from SENTENCES
    for text in SENTENCES:
        for codec in CODECS:
            once = broken(text, codec)
            yield once
            if draw.random() < 0.4:
                yield once.replace("\xa0", " ")
            if draw.random() < 0.3:
                yield broken(once, draw.choice(CODECS[:4]))
            if draw.random() < 0.3:
                other = draw.choice(SENTENCES)
                yield f"{other} {once}" if draw.random() < 0.5 else f"{once} | {broken(other, draw.choice(CODECS))}"
            if draw.random() < 0.3:
                at = draw.randrange(len(once))
                yield once[:at] + draw.choice("?\ufffd \x1a") + once[at + 1 :]
        yield text.encode("utf-8").decode("windows-1252", "replace")
        yield "".join(f"&#{ord(c)};" if ord(c) > 126 else c for c in text)
        yield "".join(f"&amp;#x{ord(c):X};" if ord(c) > 126 else c for c in text)
        yield text.upper()
    names = sorted(html.entities.html5)
    for _ in range(120):
        parts = []
        for _ in range(draw.randrange(1, 5)):
            name = draw.choice(names)
            kind = draw.randrange(5)
            name = [name, name.rstrip(";"), name.upper(), name.capitalize(), name][kind]
            parts.append(f"&{'amp;' * draw.randrange(3)}{name}" + draw.choice(["", " ", "x", "1"]))
        yield "a" + "".join(parts)
    for number in [0, 1, 9, 11, 13, 27, 28, 31, 127, 128, 129, 133, 146, 150, 159, 160, 173, 0x2019, 0xD83D, 0xDCA9, 0xFDD0, 0xFFFE,
                   0x1F600, 0x10FFFF, 0x110000, 2**40]:
        yield f"x&#{number};y &#x{number:x} z&amp;#{number};"
    yield from [
        "<b>bold</b> &amp; &lt;i&gt;", "&lt;3 love &amp;lt;3", "a < b &eacute;\nsecond &eacute; line", "AT&T Q&A R&D &c.", "fish &amp chips &ampamp; &notit; &notin;",
        "P&EACUTE;REZ &SZLIG; &nTILDE; &NTILDE;", "&quot;quoted&quot; &apos;s &#39;t &#x27;ll", "&nbsp;&nbsp;spaced&nbsp;out&ensp;", "&;&#;&#x; &#xZ; & &&amp;&", "a&#8217;s",
        "ＬＯＵＤ　ＮＯＩＳＥＳ １２３", "Ｕﾀｰﾝ ｶﾞｷﾞ ﾊﾟ", "ﾡﾢ ￠￡￢￣￤￥￦ ￨￩", "ﬂuﬃeﬆ ﬁne oﬀer ﬄ ﬅ", "Ĳsselmeer ĳs ŉ Ǆ ǅ ǆ Ǉ ǈ ǉ Ǌ ǋ ǌ Ǳ ǲ ǳ", "æ œ Æ Œ ﬓ",
        "\ufeffbom at the start", "zero\u200bwidth\u200cjoin\u200der\u2060", "soft\xadhyphen", "bell\x07 null\x00 esc\x1b del\x7f", "\x1b[36;44mblue\x1b[0m text", "\x1b[31mred \x1b[1;2",
        "one\u2028two\u2029three\x85four\r\nfive\rsix\x0bseven\x0ceight", "tab\ttab  double   triple", "\u3000\u2003em\u2009thin\u202fnarrow\u205f\u1680", "\x1cfile\x1dgroup\x1erecord\x1funit",
        "e\u0301 n\u0303 A\u030a o\u0308", "\u212b \u2126 \u1e9b\u0323 \uac00 \u1100\u1161", "10³ ² ¹ ½ Ⅷ ⅷ ① ㎏ ﷺ", "ſtrange 'S 'LL don'T I'VE we'RE i'm HE'D", "İ I ı i ΑΣ ΑΣΣ Σ ὈΔΥΣΣΕΎΣ",
        "<start_of_text>hi<end_of_text>", "<START_OF_TEXT> !<end_of_text>", "<|endoftext|>", "#hashtag @user http://a.b/c?d=e&f=g&copy=1&reg=2", "a_b-c.d,e;f:g!h?i/j\\k|l~m`n^o", "1234567890 12.5% $5 3x4",
        "...!!! ??? ---", "٠١٢ ४५ 五 一二", "𝒥ohn 𝟙𝟚 ℋ 🄰", "👩🏽‍🚀🏳️‍🌈 ☃️ ❤", "â€™ â€œ â€ â€“ Ã© Ã¨ Ã  Ã¢ Ã", "Ã la mode Ã quel point Ã s vezes", "voilÃ le travail", "cafÃ©s Â© Â® Â£5 Â°", "IÃ±tÃ«rnÃ¢tiÃ´nÃ\xa0lizÃ¦tiÃ¸n",
        "\x91quoted\x92 \x93text\x94 \x96 \x85", "caf\x8e \x80 5", "Ð\x9fÑ€Ð¸Ð²ÐµÑ‚", "ÐŸÑ€Ð¸Ð²ÐµÑ‚ Ð¼Ð¸Ñ€", "рџђў turtle", "ðŸ˜€ grin ðŸ˜€", "ð\x9f\x98\x80", "í\xa0½í¸\x80 surrogates", "í\xa0½ alone", "À\x80 null",
        "ï¿½ and � alone", "schÃ¶n â€“ nice â€” ok", "l’humanitÃ©", "Â\xa0 Â  non breaking", "Ãƒâ€šÃ‚Â©", "ÃƒÂ©tÃƒÂ©", "ã\x81\x82ã\x81\x84 japan", "æ—¥æœ¬èªž", "ä¸\xadæ–‡", "à¤¹à¤¿à¤¨à¥\x8dà¤¦à¥€", "Ã\x83Â©",
        "‚Äútext‚Äù macroman", "caf√© cr√®me", "Caf├⌐ cp437 ΓÇô dash", "вЂњquotedвЂќ вЂ“", "Â«guillemetsÂ»", "Å‚Ã³dÅº ÅÃ³dÅº", "Ä°stanbul ÄŸ ÅŸ", "â™¥ â˜… âœ” â†’ â€¢", "Ω≈ç√∫˜µ≤≥÷ åß∂ƒ©˙∆˚¬", "┌─┐│└┘ ░▒▓ box",
        "(╯°□°)╯︵ ┻━┻ ¯\\_(ツ)_/¯ ಠ_ಠ", "Ö Ü ö ü ô õ ò °ʖ°", "El PaÃ­s & MÃ©xico &amp; PerÃº", "&Atilde;&copy; &acirc;&euro;&trade;s", "&#195;&#169;", "&amp;eacute;&amp;amp;", "  ", "a", "é", "",
    ]
    for _ in range(250):
        parts = [draw.choice(SENTENCES) for _ in range(2)]
        parts[0] = broken(parts[0], draw.choice(CODECS[:8]))[: draw.randrange(3, 20)]
        parts[1] = draw.choice([str.lower, str.upper, str.title, html.escape])(parts[1])[: draw.randrange(3, 30)]
        yield draw.choice([" ", "", ", ", "\n", "\xa0", "&nbsp;"]).join(parts)
    yield from mixtures(random.Random(12))


def mixtures(draw):
    """Lines without end: pieces of several languages, each broken in its own way, or in two."""
    references = sorted(html.entities.html5)
    odd = "\ufeff\u200b\u00ad\x07\x1b\u2028\u3000\xa0\ufffd\x80\x9d\u0301\U0001f3fd\u202e\ufe0f"

    def piece():
        text = draw.choice(SENTENCES)
        at = draw.randrange(len(text))
        text = text[at : at + draw.randrange(2, 24)]
        for _ in range(draw.choice([0, 0, 1, 1, 1, 2, 3])):
            text = broken(text, draw.choice(CODECS))
        change = draw.randrange(12)
        if change == 0:
            text = html.escape(text)
        elif change == 1:
            text = "".join(f"&#{ord(c)};" if ord(c) > 126 else c for c in text)
        elif change == 2:
            text = draw.choice([str.upper, str.title, str.swapcase])(text)
        elif change == 3:
            text += "&" + draw.choice(references)
        elif change == 4:
            # A byte that is lost or another one's.
            data = bytearray(text.encode("utf-8"))
            data[draw.randrange(len(data))] = draw.randrange(256)
            text = data.decode(draw.choice(["utf-8", "latin-1", "cp1252"]), "replace")
        elif change == 5:
            at = draw.randrange(len(text) + 1)
            text = text[:at] + draw.choice(odd) + text[at:]
        elif change == 6:
            text = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
        return text

    while True:
        yield draw.choice(["", " ", " ", ", ", "; ", "&nbsp;", "\n"]).join(piece() for _ in range(draw.randrange(1, 4)))


def golden():
    from open_clip.tokenizer import SimpleTokenizer, _clean_lower

    tokenizer = SimpleTokenizer()
    seen = set()
    for line in lines():
        cleaned = _clean_lower(line)
        # Whether a character that Unicode has not given out yet is a letter depends on the version of a library.
        if line in seen or any(unicodedata.category(c) == "Cn" for c in cleaned):
            continue
        seen.add(line)
        print(json.dumps(line), json.dumps(cleaned), " ".join(map(str, tokenizer.encode(line))), sep="\t")
        if len(seen) == 4000:
            break


if sys.argv[1] == "tables":
    print(json.dumps(tables(), sort_keys=True))
else:
    golden()
