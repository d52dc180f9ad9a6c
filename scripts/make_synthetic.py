"""Write a data set in TextZoom's format: rendered words by default, or labelled photos (`--photos`).

    python scripts/make_synthetic.py --out data/synthetic --pairs 2000 --test_pairs 200
    python scripts/make_synthetic.py --out data/mine --photos DIR --gt gt.txt
    python scripts/make_synthetic.py --out data/greek --word_list greek.txt

The result is `<out>/{train1,train2,test/easy,test/medium,test/hard}`. Training pairs mix the three severities; train1
has five times as many as train2, as in TextZoom. The same arguments on the same machine give the same files, whatever
the number of workers. HR is stored as JPEG (quality 95, full colour resolution), LR as PNG.
"""

# ruff: noqa: PLC0415 - imports that take long wait for the arguments: --help and refusals are instant

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataset.rendering.fonts import Face
    from dataset.words import WordList

ROOT = Path(__file__).resolve().parent.parent
SPLITS = {"train1": None, "train2": None, "test/easy": "easy", "test/medium": "medium", "test/hard": "hard"}
STREAM = 1 << 40  # indices between the streams of two splits: no sample of one can turn up in another
SHEET_ROWS = 14  # samples of each split on the contact sheet


@dataclass(frozen=True)
class Photo:
    """A labelled picture: `file`, what it shows, and the place in the list that says so, for messages."""

    file: Path
    label: str
    place: str


@dataclass(frozen=True)
class Task:
    """One sample to make; rendered if there is no photo."""

    seed: int
    index: int
    severity: str | None
    photo: Photo | None = None


Encoded = tuple[bytes, bytes, str]  # HR file, LR file, label


def make(task: Task, fonts: tuple[Face, ...], words: WordList | None) -> Encoded:
    """Render or read, degrade, encode; runs in the workers."""
    import cv2

    from dataset.synthetic import make_sample
    from dataset.words import random_label

    if task.photo is None:
        labels = random_label if words is None else words.draw
        sample = make_sample(task.seed, task.index, task.severity, fonts=fonts, labels=labels)
        hr, lr, label = sample.hr, sample.lr, sample.label
    else:
        hr, lr, label = *photographed(task, task.photo), task.photo.label
    full_colour = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, hr_file = cv2.imencode(".jpg", hr[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95, *full_colour])
    _, lr_file = cv2.imencode(".png", lr[..., ::-1])
    return hr_file.tobytes(), lr_file.tobytes(), label


def photographed(task: Task, photo: Photo) -> tuple:
    """(HR, LR) of a labelled photo."""
    import cv2
    import numpy as np

    from dataset.degradation import SEVERITIES
    from dataset.synthetic import photo_pair

    data = np.frombuffer(photo.file.read_bytes(), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        raise ValueError(f"{photo.place}: {photo.file} is not a picture that OpenCV can read; remove the line")
    rng = np.random.default_rng((task.seed, task.index))
    chosen = list(SEVERITIES)[int(rng.integers(len(SEVERITIES)))]
    return photo_pair(np.ascontiguousarray(picture[..., ::-1]), rng, task.severity or chosen)


def read_photos(photos: Path, gt: Path) -> list[Photo]:
    """What a list of labels names, paths relative to `photos`.

    Raises:
        ValueError: no such list, a line that cannot be used, or a file that is not there; names file and line number.
    """
    from dataset.listing import GT_FORMATS, read_list

    if not gt.is_file():
        raise ValueError(f"{gt} is not there; --gt names the list of labels (lines `path<TAB>label`)")
    found = []
    for entry in read_list(gt):
        if not entry.label.strip():
            raise ValueError(f"{entry.place}: {entry.name!r} has no label; {GT_FORMATS}")
        file = photos / entry.name
        if not file.is_file():
            raise ValueError(f"{entry.place}: {file} is not there; paths are relative to {photos}")
        found.append(Photo(file, entry.label, entry.place))
    return found


def rendered_tasks(args: argparse.Namespace) -> dict[str, list[Task]]:
    """What to render for each split."""
    pairs = 2000 if args.pairs is None else args.pairs
    if pairs < 2 or args.test_pairs < 1:
        raise ValueError(
            f"--pairs {pairs} --test_pairs {args.test_pairs}: at least 2 and 1 are needed, no split may be empty"
        )
    train2 = max(1, pairs // 6)
    sizes = {"train1": pairs - train2, "train2": train2}
    return {
        name: [Task(args.seed, number * STREAM + index, severity) for index in range(sizes.get(name, args.test_pairs))]
        for number, (name, severity) in enumerate(SPLITS.items())
    }


def photo_tasks(args: argparse.Namespace) -> dict[str, list[Task]]:
    """Every photo goes into one split only: at most a tenth into each test set, the rest to train."""
    import numpy as np

    gt = args.gt if args.gt.is_file() else args.photos / args.gt
    photos = read_photos(args.photos, gt)
    if len(photos) < len(SPLITS):
        raise ValueError(f"{gt} lists {len(photos)} photos; at least {len(SPLITS)} are needed, one for each split")
    test = max(1, min(args.test_pairs, len(photos) // 10))
    train = len(photos) - 3 * test if args.pairs is None else min(len(photos) - 3 * test, args.pairs)
    if train < 2:
        raise ValueError(f"--pairs {args.pairs}: at least 2 are needed, no split may be empty")
    train2 = max(1, train // 6)
    sizes = {"train1": train - train2, "train2": train2}
    order = iter(np.random.default_rng(args.seed).permutation(len(photos)).tolist())
    return {
        name: [
            Task(args.seed, number * STREAM + index, severity, photos[next(order)])
            for index in range(sizes.get(name, test))
        ]
        for number, (name, severity) in enumerate(SPLITS.items())
    }


def start_worker() -> None:
    """The processes share the cores already; threads inside them would only get in each other's way."""
    import cv2

    cv2.setNumThreads(1)


def in_parallel(
    tasks: Iterable[Task], fonts: tuple[Face, ...], words: WordList | None, workers: int
) -> Iterator[Encoded]:
    """Every task made, in order, by so many processes."""
    work = functools.partial(make, fonts=fonts, words=words)
    if workers <= 1:
        start_worker()
        yield from map(work, tasks)
        return
    # spawn, not fork: the same on every system, and no thread of the parent can be caught in mid-air
    with multiprocessing.get_context("spawn").Pool(workers, start_worker) as pool:
        yield from pool.imap(work, tasks, chunksize=16)


def check_target(out: Path, *, overwrite: bool) -> None:
    """Refuse to lose anything.

    Raises:
        ValueError: `out` holds something, and either `overwrite` is off or it is not a data set of ours.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; --out names a folder")
    names = {child.name for child in out.iterdir()}
    if not names:
        return
    if not overwrite:
        raise ValueError(f"{out} is not empty ({', '.join(sorted(names)[:5])}); name another --out, or add --overwrite")
    foreign = sorted(names - {"train1", "train2", "test", "source.json"})
    if foreign:
        raise ValueError(
            f"{out} holds {', '.join(foreign[:5])}, which this script did not write; it is not overwritten"
        )


def write(tasks: dict[str, list[Task]], args: argparse.Namespace) -> dict[str, list[Encoded]]:
    """Build the data set beside its place, then put it there; returns the first samples of each split."""
    from tqdm import tqdm

    from dataset.rendered import drawable_list
    from dataset.synthetic import faces
    from dataset.textzoom import TextZoomWriter

    # Looked for here, once: every worker has the same fonts, and none has to read those of the whole system.
    fonts = () if args.photos else faces(*map(str, args.fonts))
    words = drawable_list(args.word_list, fonts) if args.word_list else None
    args.out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{args.out.name}-", dir=args.out.parent))
    building.chmod(0o755)  # mkdtemp makes it private
    shown: dict[str, list[Encoded]] = {name: [] for name in tasks}
    try:
        queue = [task for split in tasks.values() for task in split]
        made = in_parallel(queue, fonts, words, args.workers)
        results = iter(tqdm(made, total=len(queue), unit="pair", disable=None))
        for name, split in tasks.items():
            (building / name).parent.mkdir(exist_ok=True)
            with TextZoomWriter(building / name) as writer:
                for _ in split:
                    hr, lr, label = next(results)
                    writer.add(hr=hr, lr=lr, label=label)
                    if len(shown[name]) < SHEET_ROWS:
                        shown[name].append((hr, lr, label))
        facts = json.dumps(provenance(tasks, args, fonts), indent=2)
        (building / "source.json").write_text(facts + "\n", encoding="utf-8")
        put_in_place(building, args.out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return shown


def provenance(tasks: dict[str, list[Task]], args: argparse.Namespace, fonts: tuple[Face, ...]) -> dict:
    """Where the data set comes from, as its own `source.json` says."""
    facts = {
        "made_by": "scripts/make_synthetic.py",
        "seed": args.seed,
        "pairs": {name: len(split) for name, split in tasks.items()},
    }
    if args.photos:
        return {**facts, "kind": "photos", "photos": str(args.photos), "gt": str(args.gt)}
    names = [f"{Path(face.source).name} {face.weight}" for face in fonts]
    words = {"word_list": str(args.word_list)} if args.word_list else {}
    return {**facts, "kind": "rendered", **words, "faces": names}


def put_in_place(building: Path, out: Path) -> None:
    """Rename; what was there is removed only after the new one has its place."""
    if not out.exists():
        building.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
    out.rename(old / out.name)
    building.rename(out)
    shutil.rmtree(old)


def draw_sheet(shown: dict[str, list[Encoded]], file: Path) -> None:
    """HR and enlarged LR side by side with the label, one column for each split."""
    import io

    from PIL import Image, ImageDraw, ImageFont

    height, width, line = 64, 256, 16
    sheet = Image.new("RGB", (len(shown) * (2 * width + 12), SHEET_ROWS * (height + line + 4) + line), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, (name, samples) in enumerate(shown.items()):
        x = column * (2 * width + 12)
        draw.text((x + 2, 1), f"{name}: HR | LR", fill="black", font=font)
        for row, (hr_file, lr_file, label) in enumerate(samples):
            y = line + row * (height + line + 4)
            hr, lr = Image.open(io.BytesIO(hr_file)), Image.open(io.BytesIO(lr_file))
            sheet.paste(hr.resize((width, height), Image.Resampling.BICUBIC), (x, y))
            sheet.paste(lr.resize((width, height), Image.Resampling.NEAREST), (x + width + 4, y))
            draw.text((x + 2, y + height + 1), f"{label}   {hr.width}x{hr.height}", fill="black", font=font)
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/synthetic"), help="folder to write (data/synthetic)")
    parser.add_argument("--pairs", type=int, help="training pairs (2000; with --photos all that are left)")
    parser.add_argument("--test_pairs", type=int, default=200, help="pairs of each of the three test sets (200)")
    parser.add_argument("--seed", type=int, default=0, help="stream of random numbers, >= 0 (0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (one for each core)")
    parser.add_argument("--fonts", type=Path, nargs="*", default=[], help="folders with further .ttf and .otf fonts")
    parser.add_argument("--word_list", type=Path, help="text file of words to render, one a line (tab, how often)")
    parser.add_argument("--photos", type=Path, help="folder of labelled photos to use instead of rendered words")
    parser.add_argument("--gt", type=Path, default=Path("gt.txt"), help="their list: lines `path<TAB>label` (gt.txt)")
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet, e.g. sheet.png")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set that this script wrote before")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Write the data set; returns the exit status."""
    args = parse(argv)
    sys.path.insert(0, str(ROOT))  # run as a file: the packages lie one folder up
    try:
        check_target(args.out, overwrite=args.overwrite)
        if args.seed < 0:
            raise ValueError(f"--seed {args.seed}: must be 0 or more")
        lost = [str(folder) for folder in args.fonts if not folder.is_dir()]
        if lost:
            raise ValueError(f"--fonts {' '.join(lost)}: no such folder")
        if args.photos and args.word_list:
            raise ValueError(f"--word_list {args.word_list} is for words that are rendered; --photos have their labels")
        tasks = photo_tasks(args) if args.photos else rendered_tasks(args)
        shown = write(tasks, args)
    except ValueError as error:
        print(f"make_synthetic.py: {error}", file=sys.stderr)
        return 2
    if args.sheet:
        draw_sheet(shown, args.sheet)
    sizes = ", ".join(f"{name} {len(split)}" for name, split in tasks.items())
    print(f"wrote {args.out}: {sizes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
