"""Build, check, look at and take apart data sets in TextZoom's format.

    python scripts/lmdb_tool.py build data/mine --images crops --gt gt.txt --lr_dir crops_lr     (your own pairs)
    python scripts/lmdb_tool.py build data/mine --images crops --gt gt.txt --degrade mixed       (LR is made here)
    python scripts/lmdb_tool.py check data/TextZoom/train1 data/TextZoom/test/easy
    python scripts/lmdb_tool.py show data/TextZoom/test/hard --start 100 --count 20 --sheet hard.png
    python scripts/lmdb_tool.py export data/TextZoom/test/easy easy_as_files

Exit status: 0, 1 if `check` found something wrong, 2 if a command could not be carried out.
"""

# ruff: noqa: PLC0415 - imports that take long wait for the arguments: --help is instant

import argparse
import contextlib
import glob
import os
import re
import shutil
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from dataset.listing import Entry
    from dataset.textzoom import LmdbFolder, TextZoomLMDB

ROOT = Path(__file__).resolve().parent.parent
SEVERITIES = ("easy", "medium", "hard")
BICUBIC = "bicubic"
SUFFIXES = {"JPEG": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}  # of Pillow's names; the others are suffixes already
SHEET_BOX = (256, 64)  # width and height of a picture on the contact sheet, in pixels
SHEET_LABEL = 320
SHEET_MAX_ROWS = 400
LISTED = 12  # characters or numbers named in one line of a report


class UserError(ValueError):
    """The command cannot be carried out; the message says why and what to do."""


class LeftOut(ValueError):
    """One sample that is not taken: where it stands, for which kind of reason, and the details."""

    def __init__(self, place: str, kind: str, details: object = "") -> None:
        super().__init__(f"{place}: {kind}" + (f" ({details})" if str(details) else ""))
        self.kind = kind


@dataclass
class Account:
    """How many samples were taken, and what was left out."""

    taken: int = 0
    left_out: list[LeftOut] = field(default_factory=list)

    def close(self, *, strict: bool) -> None:
        """Name on stderr all that was left out.

        Raises:
            UserError: something was, and `strict` is on.
        """
        for error in self.left_out:
            print(f"{'refused' if strict else 'skipped'}: {error}", file=sys.stderr)
        if strict and self.left_out:
            raise UserError(f"{self.summary()}; nothing is written because of --strict")

    def summary(self) -> str:
        """E.g. `12 samples, 2 left out (empty label: 1, no such file: 1)`."""
        kinds = ", ".join(f"{kind}: {count}" for kind, count in Counter(error.kind for error in self.left_out).items())
        return f"{self.taken} samples" + (f", {len(self.left_out)} left out ({kinds})" if kinds else "")


def progress(items: Iterable[Any], total: int) -> Iterable[Any]:
    """A progress bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    return tqdm(items, total=total, unit="sample", disable=None, leave=False)


def find_lr(lr_dir: Path, name: Path) -> Path | None:
    """The LR picture of the same relative name; its file format, and so its suffix, may be another one."""
    same = lr_dir / name
    if same.is_file():
        return same
    stem = same.name.removesuffix(same.suffix)
    others = sorted(same.parent.glob(f"{glob.escape(stem)}.*")) if same.parent.is_dir() else []
    others = [other for other in others if other.name.removesuffix(other.suffix) == stem]
    return others[0] if len(others) == 1 else None


def relative_name(file: Path, images: Path) -> Path | None:
    """The name of a picture below its folder; None if it lies elsewhere."""
    with contextlib.suppress(ValueError):
        return file.resolve().relative_to(images.resolve())
    return None


def as_png(image: "Image.Image") -> bytes:
    """The picture as a PNG file."""
    import io

    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def make_lr(image_hr: "Image.Image", how: str, seed: int, number: int) -> bytes:
    """A PNG of half the size; the same seed and number give the same one."""
    import numpy as np
    from PIL import Image

    from dataset.degradation import degrade
    from dataset.transforms import synthetic_lr

    if how == BICUBIC:
        return as_png(synthetic_lr(image_hr))
    rng = np.random.default_rng((seed, number))
    severity = SEVERITIES[int(rng.integers(len(SEVERITIES)))] if how == "mixed" else how
    return as_png(Image.fromarray(degrade(np.array(image_hr), severity, rng)))


def read_picture(file: Path, place: str) -> tuple[bytes, "Image.Image"]:
    """(file content, decoded picture).

    Raises:
        LeftOut: it cannot be decoded.
    """
    from dataset.transforms import decode_image

    try:
        data = file.read_bytes()
        return data, decode_image(data)
    except (OSError, ValueError) as error:
        raise LeftOut(f"{place} {file}", "undecodable picture", error) from error


def read_sample(entry: "Entry", number: int, images: Path, gt: Path, args: argparse.Namespace) -> dict[str, Any]:
    """What `TextZoomWriter.add` takes, for line `number` of the list.

    Raises:
        LeftOut: something is missing or cannot be used.
    """
    if not entry.label.strip():
        raise LeftOut(f"{entry.place} {entry.name}", "empty label")
    file = next((place for place in (images / entry.name, gt.parent / entry.name) if place.is_file()), None)
    if file is None:
        raise LeftOut(f"{entry.place} {images / entry.name}", "no such file")
    hr, image = read_picture(file, entry.place)
    if args.lr_dir:
        name = relative_name(file, images) or relative_name(file, gt.parent)
        file_lr = find_lr(args.lr_dir, name) if name else None
        if file_lr is None:
            raise LeftOut(f"{entry.place} {args.lr_dir / (name or file.name)}", "no LR picture of that name")
        lr, _ = read_picture(file_lr, entry.place)
        return {"hr": hr, "lr": lr, "label": entry.label}
    try:
        made = None if args.hr_only else make_lr(image, args.degrade, args.seed or 0, number)
    except ValueError as error:
        raise LeftOut(f"{entry.place} {file}", "LR cannot be made", error) from error
    return {"hr": hr, "lr": made, "label": entry.label}


def build(args: argparse.Namespace) -> int:
    """Write an LMDB from files."""
    from dataset.listing import find_list, read_list
    from dataset.textzoom import TextZoomWriter

    if args.seed is not None and args.degrade in (None, BICUBIC):
        raise UserError("--seed has no effect here; it belongs to --degrade easy, medium, hard or mixed")
    if args.seed is not None and args.seed < 0:
        raise UserError(f"--seed {args.seed}: must be 0 or more")
    if args.lr_dir and not args.lr_dir.is_dir():
        raise UserError(f"--lr_dir {args.lr_dir}: no such folder")
    images, gt = find_list(args.images, args.gt)
    writer = TextZoomWriter(args.out)
    entries = read_list(gt)
    account = Account()
    with writer:
        for number, entry in enumerate(progress(entries, len(entries))):
            try:
                writer.add(**read_sample(entry, number, images, gt, args))
                account.taken += 1
            except LeftOut as error:
                account.left_out.append(error)
        account.close(strict=args.strict)
    print(f"wrote {args.out}: {account.summary()}")
    return 0


@dataclass
class Findings:
    """What `check` sees in one LMDB; `wrong` lists what cannot be used."""

    kind: str = ""
    declared: int = 0
    wrong: list[str] = field(default_factory=list)
    sizes: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: {"HR": [], "LR": []})
    ratios: list[tuple[float, float]] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)
    photos: dict[bytes, list[int]] = field(default_factory=lambda: defaultdict(list))
    fingerprint: str = ""


KEY = re.compile(r"(?P<prefix>.+)-(?P<number>\d{9,})")


def numbers_by_prefix(folder: "LmdbFolder") -> dict[str, set[int]]:
    """{key prefix: its 1-based numbers}; keys of another form have no number."""
    found: dict[str, set[int]] = defaultdict(set)
    for key in folder.keys():  # noqa: SIM118 - not a dict
        match = KEY.fullmatch(key)
        if match:
            found[match["prefix"]].add(int(match["number"]))
        else:
            found.setdefault(key, set())
    return found


def declared_size(folder: "LmdbFolder", found: dict[str, set[int]], findings: Findings) -> int:
    """num-samples, or what the keys suggest if it is missing or unreadable."""
    stored = folder.get(b"num-samples")
    if stored is not None:
        with contextlib.suppress(ValueError):
            return int(stored)
    seen = max((max(numbers, default=0) for numbers in found.values()), default=0)
    what = "is missing" if stored is None else f"is {stored[:40]!r}, not a number"
    findings.wrong.append(f"num-samples {what}; the highest number of a key is {seen}")
    return seen


def survey(path: Path) -> Findings:
    """Read and decode everything.

    Raises:
        DataError: it cannot even be opened.
    """
    from dataset.textzoom import HR_PREFIXES, LR_PREFIX, DataError, LmdbFolder, TextZoomLMDB

    findings, folder = Findings(), LmdbFolder(path)
    found = numbers_by_prefix(folder)
    hr_prefix = next((prefix for prefix in HR_PREFIXES if found.get(prefix)), "")
    paired = bool(found.get(LR_PREFIX))
    if not hr_prefix:
        seen = ", ".join(sorted(found)[:5])
        raise DataError(f"{path}: no key image_hr-... or image-... (keys found: {seen or 'none'})")
    if paired:
        findings.kind = f"TextZoom pairs ({hr_prefix}-, {LR_PREFIX}-)"
    else:
        name = "STR format" if hr_prefix == "image" else "HR only"
        findings.kind = f"{name} ({hr_prefix}-, no {LR_PREFIX}-); can be used with --syn"
    findings.declared = declared_size(folder, found, findings)
    used = {"label", hr_prefix} | ({LR_PREFIX} if paired else set())
    beyond = {number for prefix in used for number in found[prefix] if number > findings.declared}
    if beyond:
        findings.wrong.append(f"{len(beyond)} samples lie beyond num-samples = {findings.declared}: {listed(beyond)}")
    for number in progress(range(1, findings.declared + 1), findings.declared):
        survey_sample(folder, number, hr_prefix, paired, findings)
    try:
        findings.fingerprint = TextZoomLMDB(path, synthetic=not paired).fingerprint()
    except DataError as error:
        findings.wrong.append(f"training and testing refuse it: {error}")
    return findings


def survey_sample(folder: "LmdbFolder", number: int, hr_prefix: str, paired: bool, findings: Findings) -> None:
    """Read and decode sample `number` (1-based)."""
    import hashlib

    from dataset.textzoom import LR_PREFIX, CorruptSampleError, key_of
    from dataset.transforms import decode_image

    here: dict[str, tuple[int, int]] = {}
    for name, prefix in (("HR", hr_prefix), ("LR", LR_PREFIX), ("label", "label")):
        if name == "LR" and not paired:
            continue
        key = key_of(prefix, number - 1)
        try:
            data = folder.get(key)
            if data is None:
                findings.wrong.append(f"sample {number}: {key.decode()} is missing")
            elif name == "label":
                findings.labels[number] = data.decode("utf-8")
            else:
                here[name] = decode_image(data).size
                findings.sizes[name].append(here[name])
                if name == "HR":
                    findings.photos[hashlib.blake2b(data, digest_size=16).digest()].append(number)
        except UnicodeDecodeError as error:
            findings.wrong.append(f"sample {number}: {key.decode()} is not UTF-8 ({error.reason})")
        except CorruptSampleError as error:
            findings.wrong.append(f"sample {number}: {error}")
        except (OSError, ValueError) as error:
            findings.wrong.append(f"sample {number}: {key.decode()} cannot be decoded: {error}")
    if len(here) == 2:
        (width, height), (width_lr, height_lr) = here["HR"], here["LR"]
        findings.ratios.append((width / width_lr, height / height_lr))


def listed(numbers: Iterable[int]) -> str:
    """The first numbers of a set, in order."""
    ordered = sorted(numbers)
    more = f" and {len(ordered) - LISTED} more" if len(ordered) > LISTED else ""
    return ", ".join(map(str, ordered[:LISTED])) + more


def spread(values: Sequence[float], form: str = "g") -> str:
    """Smallest, median and largest value."""
    return f"{min(values):{form}} to {max(values):{form}} (median {statistics.median(values):{form}})"


def describe_labels(labels: dict[int, str]) -> Iterator[str]:
    """Lengths, and what each vocabulary would drop."""
    from dataset.charset import VOCABULARIES, filter_text

    lengths = sorted(Counter(map(len, labels.values())).items())
    yield "label length   " + ", ".join(f"{length}: {count}" for length, count in lengths)
    characters = Counter("".join(labels.values()))
    for vocabulary in VOCABULARIES:
        outside = Counter({c: count for c, count in characters.items() if not filter_text(c, vocabulary)})
        dropped = sum(any(c in outside for c in label) for label in labels.values())
        empty = [number for number, label in labels.items() if not filter_text(label, vocabulary)]
        if not dropped and not empty:
            yield f"voc {vocabulary:11}keeps every character"
            continue
        named = " ".join(f"{c!r}x{count}" for c, count in outside.most_common(LISTED))
        more = f" and {len(outside) - LISTED} others" if len(outside) > LISTED else ""
        yield f"voc {vocabulary:11}{dropped} labels lose characters ({named}{more}); {len(empty)} become empty" + (
            f": samples {listed(empty)}" if empty else ""
        )


def describe(findings: Findings) -> Iterator[str]:
    """The report on one LMDB, line by line."""
    yield f"{findings.kind}, num-samples {findings.declared}"
    for name, sizes in findings.sizes.items():
        if sizes:
            widths, heights = zip(*sizes, strict=True)
            yield f"{name} pictures    {len(sizes)}; width {spread(widths)}, height {spread(heights)}"
    if findings.ratios:
        widths, heights = zip(*findings.ratios, strict=True)
        larger = sum(1 for ratios in findings.ratios if min(ratios) < 1)
        yield f"HR / LR        width {spread(widths, '.3g')}, height {spread(heights, '.3g')}" + (
            f"; in {larger} samples LR is the larger one" if larger else ""
        )
    if findings.labels:
        yield from describe_labels(findings.labels)
    twins = [numbers for numbers in findings.photos.values() if len(numbers) > 1]
    groups = "; ".join(" = ".join(map(str, numbers[:LISTED])) for numbers in twins[:LISTED])
    yield f"duplicates     {sum(len(numbers) - 1 for numbers in twins)} HR pictures" + (f" ({groups})" if twins else "")
    yield f"fingerprint    {findings.fingerprint or 'none'}"
    yield f"wrong          {len(findings.wrong) or 'nothing'}"
    yield from (f"  {line}" for line in findings.wrong)


def check(args: argparse.Namespace) -> int:
    """Read every sample of every LMDB and report."""
    from dataset.textzoom import DataError

    missing = [str(path) for path in args.lmdb if not (path / "data.mdb").is_file()]
    if missing:
        raise UserError(f"{', '.join(missing)}: no LMDB there (a folder with data.mdb was expected)")
    sound = True
    known: dict[bytes, Path] = {}
    for path in args.lmdb:
        print(f"{path}")
        try:
            findings = survey(path)
        except DataError as error:
            print(f"  wrong          {error}")
            sound = False
            continue
        for line in describe(findings):
            print(f"  {line}")
        elsewhere = Counter(str(known[photo]) for photo in findings.photos if photo in known)
        for other, count in elsewhere.items():
            print(f"  shared         {count} HR pictures are in {other}, too")
        known.update(dict.fromkeys(findings.photos, path))
        sound = sound and not findings.wrong
    return 0 if sound else 1


def open_any(path: Path) -> "TextZoomLMDB":
    """Open pairs as pairs and HR-only sets as such."""
    from dataset.textzoom import LR_PREFIX, LmdbFolder, TextZoomLMDB

    paired = any(key.startswith(f"{LR_PREFIX}-") for key in LmdbFolder(path).keys())  # noqa: SIM118 - not a dict
    return TextZoomLMDB(path, synthetic=not paired)


def show(args: argparse.Namespace) -> int:
    """List samples; draw them if asked."""
    from dataset.textzoom import CorruptSampleError

    data = open_any(args.lmdb)
    if not 1 <= args.start <= len(data) or args.count < 1:
        raise UserError(
            f"--start {args.start} --count {args.count}: {args.lmdb} has samples 1 to {len(data)}; count is at least 1"
        )
    numbers = range(args.start, min(args.start + args.count, len(data) + 1))
    if args.sheet and len(numbers) > SHEET_MAX_ROWS:
        raise UserError(f"--count {len(numbers)}: a sheet holds at most {SHEET_MAX_ROWS} samples")
    rows = []
    for number in numbers:
        try:
            raw = data.raw(number - 1)
            hr, lr = data.images(raw)
        except CorruptSampleError as error:
            print(f"{number:6}  cannot be read: {error}")
            continue
        made = " (made from HR)" if data.synthetic else ""
        print(f"{number:6}  {raw.label!r}  HR {hr.width}x{hr.height}  LR {lr.width}x{lr.height}{made}")
        rows.append((number, raw.label, hr, lr))
    if args.sheet:
        draw_sheet(rows, args.sheet)
        print(f"wrote {args.sheet}")
    return 0


def draw_sheet(rows: list[tuple[int, str, "Image.Image", "Image.Image"]], file: Path) -> None:
    """HR | LR enlarged pixel by pixel | number and label, one sample a row."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = SHEET_BOX
    gap = 4
    sheet = Image.new("RGB", (2 * (width + gap) + SHEET_LABEL, max(1, len(rows)) * (height + gap)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, (number, label, hr, lr) in enumerate(rows):
        y = row * (height + gap)
        sheet.paste(hr.resize(SHEET_BOX, Image.Resampling.BICUBIC), (0, y))
        sheet.paste(lr.resize(SHEET_BOX, Image.Resampling.NEAREST), (width + gap, y))
        # Pillow's own font has no other characters.
        text = label.encode("ascii", "backslashreplace").decode()
        sizes = f"HR {hr.width}x{hr.height}, LR {lr.width}x{lr.height}"
        draw.text((2 * (width + gap) + 4, y + 10), f"{number}  {text}\n{sizes}", fill="black", font=font)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(file)
    except ValueError as error:  # Pillow's word for an unknown suffix
        raise UserError(f"--sheet {file}: {error}; name a .png file") from error


def suffix_of(data: bytes) -> str:
    """File name suffix of an encoded picture, by its content."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return SUFFIXES.get(str(image.format), f".{str(image.format).lower()}")


def export_sample(data: "TextZoomLMDB", number: int, folder: Path) -> str:
    """Write the picture files of sample `number` (1-based) as they are stored; returns its line of gt.txt.

    Raises:
        LeftOut: it cannot be read, or its label cannot stand in a line.
    """
    from dataset.textzoom import CorruptSampleError

    place = f"{data.path} sample {number}"
    try:
        raw = data.raw(number - 1)
        data.images(raw)
    except CorruptSampleError as error:
        raise LeftOut(place, "cannot be read", error) from error
    if "\n" in raw.label or raw.label.endswith("\r"):
        raise LeftOut(place, "label of several lines", repr(raw.label))
    name = f"{number:09d}{suffix_of(raw.hr)}"
    (folder / "images_hr" / name).write_bytes(raw.hr)
    if raw.lr is not None:
        (folder / "images_lr" / f"{number:09d}{suffix_of(raw.lr)}").write_bytes(raw.lr)
    return f"{name}\t{raw.label}\n"


def export(args: argparse.Namespace) -> int:
    """Write the samples as files and a list of labels."""
    data = open_any(args.lmdb)
    out: Path = args.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists; nothing is overwritten: choose another folder or remove it")
    account, lines = Account(), []
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        partial.chmod(0o755)  # mkdtemp makes it private
        (partial / "images_hr").mkdir()
        if not data.synthetic:
            (partial / "images_lr").mkdir()
        for number in progress(range(1, len(data) + 1), len(data)):
            try:
                lines.append(export_sample(data, number, partial))
                account.taken += 1
            except LeftOut as error:
                account.left_out.append(error)
        (partial / "gt.txt").write_text("".join(lines), encoding="utf-8", newline="\n")
        account.close(strict=args.strict)
        if out.is_dir():
            out.rmdir()  # empty, see above
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"wrote {out}: {account.summary()}")
    return 0


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, Callable[[argparse.Namespace], int]]:
    """The command line and the command it names."""
    from dataset.listing import GT_FORMATS

    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="lmdb_tool.py", description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True, metavar="build|check|show|export")

    about = "write an LMDB from picture files and a list of labels"
    sub = commands.add_parser("build", help=about, description=about + "; pictures are stored as they are.")
    sub.add_argument("out", type=Path, metavar="OUT", help="folder to write; nothing is overwritten")
    sub.add_argument("--images", type=Path, help="folder of HR pictures (default: that of the list)")
    sub.add_argument("--gt", type=Path, help=f"list of labels, UTF-8: {GT_FORMATS} (gt.txt in --images)")
    where = sub.add_mutually_exclusive_group(required=True)
    where.add_argument("--lr_dir", type=Path, help="folder of LR pictures of the same relative names")
    where.add_argument(
        "--degrade", choices=[*SEVERITIES, "mixed", BICUBIC], help="make LR as a worse camera would, or by bicubic"
    )
    where.add_argument("--hr_only", action="store_true", help="store no LR; train with --syn")
    sub.add_argument("--seed", type=int, help="of --degrade, >= 0 (0)")
    sub.add_argument("--strict", action="store_true", help="write nothing if any sample has to be left out")

    about = "read and decode every sample, report what is there and what is wrong (exit status 1)"
    sub = commands.add_parser("check", help=about, description=about)
    sub.add_argument("lmdb", type=Path, nargs="+", metavar="LMDB")

    about = "list samples: number, label, sizes"
    sub = commands.add_parser("show", help=about, description=about)
    sub.add_argument("lmdb", type=Path, metavar="LMDB")
    sub.add_argument("--start", type=int, default=1, help="number of the first one (1)")
    sub.add_argument("--count", type=int, default=10, help="how many (10)")
    sub.add_argument("--sheet", type=Path, help="also draw them into this file, e.g. sheet.png: HR | LR | label")

    about = "write the samples as files: images_hr/, images_lr/, gt.txt"
    sub = commands.add_parser("export", help=about, description=about + "; build makes the same LMDB of them again.")
    sub.add_argument("lmdb", type=Path, metavar="LMDB")
    sub.add_argument("out", type=Path, metavar="OUT", help="folder to write; nothing is overwritten")
    sub.add_argument("--strict", action="store_true", help="write nothing if any sample has to be left out")

    args = parser.parse_args(argv)
    return args, {"build": build, "check": check, "show": show, "export": export}[args.command]


def main(argv: list[str] | None = None) -> int:
    """Carry out one command; returns the exit status."""
    sys.path.insert(0, str(ROOT))  # run as a file: the packages lie one folder up
    args, command = parse(argv)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # labels may have characters that the terminal has not
    try:
        status = command(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"lmdb_tool.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
