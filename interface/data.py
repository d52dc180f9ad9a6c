"""Data sets of a run: what is trained on, what chooses `best.pth`, what is tested on."""

from pathlib import Path

import torch
from easydict import EasyDict

from dataset.loading import LoaderSpec, PairLoader, WordPairs, build_loader, split_held_out, split_names
from dataset.rendered import VALIDATION_SEED, RenderedWords, drawable_list, find_faces
from interface.evaluation import Split
from interface.targets import TargetCache, Targets, memory_share
from loss.stroke_focus import count_strokes

CPU = torch.device("cpu")
HELD_OUT, RENDERED = "held_out", "rendered"


def loader_spec(config: EasyDict, *, rank: int, world_size: int, device: torch.device = CPU) -> LoaderSpec:
    """How this run reads pictures."""
    train = config.TRAIN
    return LoaderSpec(
        width=train.width,
        height=train.height,
        scale=train.down_sample_scale,
        mask=config.MODEL.get("mask", False),  # recognisers have neither of the two
        voc_type=train.get("voc_type", ""),
        synthetic=train.syn,
        cache=train.cache,
        corrupt=train.corrupt,
        workers=train.workers,
        batch_size=train.batch_size,
        seed=train.seed,
        rank=rank,
        world_size=world_size,
        pin_memory=device.type == "cuda",
        device=device if device.type == "cuda" and train.cache_on_device else None,
    )


def training_data(config: EasyDict, spec: LoaderSpec) -> tuple[PairLoader, list[Split]]:
    """The training loader and the validation sets.

    Raises:
        ValueError: a data set, the word list or the fonts cannot be used.
    """
    paths, val = config.TRAIN.train_data_dir, config.TRAIN.VAL
    stream = rendered_words(config)
    pairs = spec.pairs(paths, stream=stream)
    splits: list[Split] = []
    if val.get("select_on") == "test":
        splits = named_splits(config.TEST.test_data_dir, spec)
    elif val.val_data_dir:
        splits = named_splits(val.val_data_dir, spec)
    elif paths:
        kept, held = split_held_out(spec.pairs(paths), val.held_out)
        pairs = spec.pairs(paths, kept, stream)
        held_out = build_loader(spec.pairs(paths, held), spec, train=False)
        splits = [_split(HELD_OUT, ", ".join(paths), held_out, spec)]
    if stream is not None and not val.val_data_dir:
        unseen = RenderedWords(val.rendered, seed=VALIDATION_SEED, fonts=stream.fonts, words=stream.words)
        splits.append(_split(RENDERED, unseen.path, build_loader(spec.of_sources([unseen]), spec, train=False), spec))
    return build_loader(pairs, spec, train=True), splits


def rendered_words(config: EasyDict) -> RenderedWords | None:
    """The words that a training renders, if it does.

    Raises:
        ValueError: the word list or the fonts cannot be used.
    """
    train = config.TRAIN
    if not train.get("rendered"):  # networks for super-resolution have no such option
        return None
    fonts = find_faces(train.font_dirs)
    words = drawable_list(train.word_list, fonts) if train.word_list else None
    return RenderedWords(train.rendered, seed=train.seed, fonts=fonts, words=words)


def cache_folder(config: EasyDict) -> Path:
    """Where values that no training changes are kept for later runs."""
    return Path(config.TEST.cache_dir or Path(config.TRAIN.ckpt_dir) / ".cache")


def target_cache(config: EasyDict, pairs: WordPairs, spec: LoaderSpec, *, processes: int) -> Targets:
    """Where a system keeps what its frozen networks make of the training samples; see `TRAIN.target_cache`.

    Args:
        config: the configuration.
        pairs: the training data.
        spec: how it is read.
        processes: of this run on this machine, each of which keeps its own in memory.
    """
    train = config.TRAIN
    if train.target_cache == "none":
        return Targets()
    folder: Path | None
    folder, limit = cache_folder(config) / "targets", train.target_cache_gb * 2**30
    if train.target_cache == "memory":
        folder, limit = None, min(limit / processes, memory_share(processes))

    def key() -> str:
        precision = f"{train.mixed_precision} {config.LOSS.precision}"
        return f"{pairs.fingerprint()} {_prepared(spec)} {spec.mask} {spec.voc_type} {precision}"

    return TargetCache(
        len(pairs),
        longest=pairs.longest_label() if config.LOSS.text_focus else 0,
        longest_strokes=max(map(count_strokes, pairs.labels())) if config.LOSS.stroke_focus else 0,
        key=key,
        folder=folder,
        dtype=train.target_cache_dtype,
        limit=limit,
    )


def named_splits(paths: list[str], spec: LoaderSpec) -> list[Split]:
    """Data sets to evaluate on, named after their folders.

    Raises:
        DataError: a data set cannot be used, or is named twice.
    """
    names = split_names(paths)
    loaders = [build_loader(spec.pairs([path]), spec, train=False) for path in paths]
    return [_split(name, path, loader, spec) for name, path, loader in zip(names, paths, loaders, strict=True)]


def _split(name: str, path: str, loader: PairLoader, spec: LoaderSpec) -> Split:
    return Split(name, path, loader, f"{loader.pairs.fingerprint()}-{_prepared(spec)}")


def _prepared(spec: LoaderSpec) -> str:
    return f"{spec.width}x{spec.height}/{spec.scale}-{'syn' if spec.synthetic else 'pair'}"
