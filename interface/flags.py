"""Tables of the command line: flags, choices, limits, and what published programs offered and this one does not."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Flag:
    """One command-line flag and the key it sets."""

    name: str
    path: str
    help: str
    metavar: str | None = None


# Boolean keys get --NAME and --no-NAME, lists take several values; types and defaults come from the YAML.
FLAGS = (
    Flag("arch", "arch", "network to build"),
    Flag("STN", "MODEL.STN", "rectify the LR image while training"),
    Flag("mask", "MODEL.mask", "fourth image plane with the dark strokes"),
    Flag("srb", "MODEL.srb", "residual blocks"),
    Flag("hd_u", "MODEL.hd_u", "hidden units; the feature width is twice that"),
    Flag("triple_clues", "MODEL.triple_clues", "linguistic clue beside the recognition prior"),
    Flag("visual_clue", "MODEL.visual_clue", "third clue: the recognised text, drawn"),
    Flag("language_model", "MODEL.language_model", "weights of a pre-trained language model", "FILE"),
    Flag("stu_iter", "MODEL.stu_iter", "stages of the cascade"),
    Flag("sr_share", "MODEL.sr_share", "one SR network for all stages"),
    Flag("tpg_share", "MODEL.tpg_share", "one text-prior generator for all stages"),
    Flag("tpg", "MODEL.tpg", "text-prior generator"),
    Flag("tpg_pretrained", "MODEL.tpg_pretrained", 'its starting weights, or "random"', "FILE"),
    Flag("tpg_language", "MODEL.tpg_language", "starting weights of that generator's language model (lemma)", "FILE"),
    Flag("freeze_tpg", "MODEL.freeze_tpg", "leave the text-prior generator as it is"),
    Flag("gradient", "LOSS.gradient", "gradient-profile loss"),
    Flag("use_distill", "LOSS.use_distill", "pull the student's prior to the teacher's on HR"),
    Flag("use_label", "LOSS.use_label", "CTC loss of the student against the label"),
    Flag("training_stablize", "LOSS.training_stablize", "leave out the pictures of a batch with the largest errors"),
    Flag("ssim_loss", "LOSS.ssim_loss", "add 1 - SSIM"),
    Flag("tssim_loss", "LOSS.tssim_loss", "the SR of a turned LR, turned back, must agree with SR and HR"),
    Flag("text_focus", "LOSS.text_focus", "attention and recognition terms of a text recogniser"),
    Flag("text_focus_pretrained", "LOSS.text_focus_pretrained", "the recogniser behind --text_focus", "FILE"),
    Flag(
        "loss_precision", "LOSS.precision", "arithmetic of the recognisers behind losses: same as the networks, or bf16"
    ),
    Flag("confusion", "LOSS.confusion", "table that weighs confusions of characters in --text_focus", "FILE"),
    Flag("stroke_loss", "LOSS.stroke_focus", "attention term of a recogniser of strokes"),
    Flag("stroke_focus_pretrained", "LOSS.stroke_focus_pretrained", "the recogniser behind --stroke_loss", "FILE"),
    Flag("lca", "LOSS.lca", "local contour awareness (HOG) loss"),
    Flag("language_loss", "LOSS.language", "what the language model learns from: labels (ctc) or teacher (distill)"),
    Flag(
        "charset",
        "MODEL.charset",
        "what it can read: 36, 62, 94, strokes (for --stroke_loss), or a text file with all characters in a line",
        "SET",
    ),
    Flag("pretrained", "MODEL.pretrained", "weights to begin with, such as those of another run", "FILE"),
    Flag("train_data_dir", "TRAIN.train_data_dir", "training sets (TextZoom LMDBs)", "DIR"),
    Flag("rendered", "TRAIN.rendered", "words rendered in each epoch, beside the training sets, new ones each time"),
    Flag("word_list", "TRAIN.word_list", "text file of words to render, one a line, for other languages", "FILE"),
    Flag("font_dirs", "TRAIN.font_dirs", "folders with further fonts to render with", "DIR"),
    Flag("val_data_dir", "TRAIN.VAL.val_data_dir", "validation sets; default: a part of the training data", "DIR"),
    Flag("test_data_dir", "TEST.test_data_dir", "test sets", "DIR"),
    Flag("syn", "TRAIN.syn", "HR-only data: make LR by bicubic reduction"),
    Flag("batch_size", "TRAIN.batch_size", "images per step and process"),
    Flag("width", "TRAIN.width", "HR width in pixels"),
    Flag("height", "TRAIN.height", "HR height in pixels"),
    Flag("lr_share", "TRAIN.lr_share", "share of the words that are read in their LR picture, not in HR"),
    Flag("augment", "TRAIN.augment", "how much training pictures are changed: 0 (not at all) to 1"),
    Flag("rotate_train", "TRAIN.rotate_train", "turn training pictures by up to so many degrees", "DEGREES"),
    Flag("cache", "TRAIN.cache", "keep resized pictures in memory"),
    Flag("target_cache", "TRAIN.target_cache", "where what frozen networks make of training pictures is kept"),
    Flag("workers", "TRAIN.workers", "decoding threads, or loader processes with --no-cache"),
    Flag("epochs", "TRAIN.epochs", "passes over the training data"),
    Flag("steps", "TRAIN.steps", "stop after so many steps in all; 0: after the epochs"),
    Flag("learning_rate", "TRAIN.lr", "peak learning rate"),
    Flag("lr_scaling", "TRAIN.lr_scaling", "how the rate grows with the images of a step: none, linear or sqrt"),
    Flag("lr_position", "TRAIN.lr_position", "learning rate of the recogniser inside of the network (lemma, sgenet)"),
    Flag("schedule", "TRAIN.schedule", "course of the learning rate"),
    Flag("accumulate", "TRAIN.accumulate", "batches per optimizer step"),
    Flag("seed", "TRAIN.seed", "seed of weights, sampling and dropout"),
    Flag("device", "TRAIN.device", "auto, cpu, cuda, cuda:N or mps"),
    Flag("mixed_precision", "TRAIN.mixed_precision", "arithmetic of the forward pass"),
    Flag("cuda_graphs", "TRAIN.cuda_graphs", "on a GPU record what networks ask for, and replay it"),
    Flag("compile", "TRAIN.compile", "translate the networks by torch.compile, which takes minutes at first"),
    Flag(
        "resume",
        "TRAIN.resume",
        "run folder to continue or test; exported weights, published folder or checkpoint file",
        "PATH",
    ),
    Flag("ckpt_dir", "TRAIN.ckpt_dir", "where run folders lie", "DIR"),
    Flag("logs_dir", "TRAIN.logs_dir", "TensorBoard events; default: in the run folder", "DIR"),
    Flag("save_interval", "TRAIN.saveInterval", "steps between checkpoints"),
    Flag("log_interval", "TRAIN.displayInterval", "steps between log lines"),
    Flag("val_interval", "TRAIN.VAL.valInterval", "steps between validations; 0: each epoch"),
    Flag("select_on", "TRAIN.VAL.select_on", "what chooses best.pth; test is the published practice"),
    Flag("vis_dir", "TRAIN.VAL.vis_dir", "name of the run folder", "NAME"),
    Flag("vis", "TRAIN.VAL.vis", "write LR, SR and HR pictures in tests"),
    Flag("crnn_pretrained", "TRAIN.VAL.crnn_pretrained", "weights of --test_model CRNN", "FILE"),
    Flag("rec_pretrained", "TRAIN.VAL.rec_pretrained", "weights of --test_model ASTER", "FILE"),
    Flag("moran_pretrained", "TRAIN.VAL.moran_pretrained", "weights of --test_model MORAN", "FILE"),
    Flag("test_model", "TEST.test_model", "recognisers that score the result, e.g. CRNN,PPOCR", "NAME"),
    Flag("test_precision", "TEST.precision", "arithmetic of CRNN, ASTER and MORAN as judges: float32 or bf16"),
    Flag("cases", "TEST.cases", "pictures in each gallery of the report"),
    Flag("report_dir", "TEST.report_dir", "where the report goes; default: in the run folder", "DIR"),
    Flag("demo_dir", "TEST.demo_dir", "pictures for --demo", "DIR"),
    Flag("onnx", "TEST.onnx", "what --demo uses: a file of scripts/export_onnx.py, faster on a CPU", "FILE"),
)

# What --loss can list: the key that switches a term on, and its values when on and off.
LOSS_TERMS: dict[str, tuple[str, str | bool, str | bool]] = {
    "mse": ("LOSS.pixel", "mse", "none"),
    "l1": ("LOSS.pixel", "l1", "none"),
    "charbonnier": ("LOSS.pixel", "charbonnier", "none"),
    "gradient": ("LOSS.gradient", True, False),
    "ssim": ("LOSS.ssim_loss", True, False),
    "lca": ("LOSS.lca", True, False),
    "text_focus": ("LOSS.text_focus", True, False),
    "stroke": ("LOSS.stroke_focus", True, False),
    "distill": ("LOSS.use_distill", True, False),
    "label": ("LOSS.use_label", True, False),
}

CHOICES: dict[str, tuple[str, ...]] = {
    "MODEL.tpg": ("CRNN",),
    "MODEL.recurrence": ("columns", "batch"),
    "MODEL.text_form": ("probabilities", "published", "logits"),
    "MODEL.student_passes": ("shared", "published"),
    "LOSS.pixel": ("mse", "l1", "charbonnier", "none"),
    "LOSS.language": ("ctc", "distill"),
    "LOSS.precision": ("same", "bf16"),
    "LOSS.finetune": ("ctc", "positions", "published"),
    "LOSS.finetune_order": ("letters", "digits"),
    "LOSS.hyphen": ("drop", "blank"),
    "LOSS.confusion_columns": ("corrected", "published"),
    "TRAIN.corrupt": ("skip", "published"),
    "TRAIN.target_cache": ("memory", "disk", "none"),
    "TRAIN.target_cache_dtype": ("float32", "float16"),
    "TRAIN.lr_scaling": ("none", "linear", "sqrt"),
    "TRAIN.optimizer": ("Adam", "SGD"),
    "TRAIN.schedule": ("cosine", "constant", "step", "rtsrn_release"),
    "TRAIN.mixed_precision": ("no", "bf16", "fp16"),
    "TRAIN.voc_type": ("digit", "lower", "upper", "all"),
    "TRAIN.VAL.select_on": ("validation", "test"),
    "TEST.precision": ("float32", "bf16"),
    "TEST.test_model": ("CRNN", "ASTER", "MORAN", "PPOCR"),
}

# Published values that this program does not know yet.
NOT_YET = {
    "arch": tuple("srgan textsr".split()),
    "TRAIN.voc_type": ("chinese",),
    "MODEL.tpg": ("OPT",),
}

# Smallest allowed value; the second entry says whether it is itself allowed.
LOWEST: dict[str, tuple[float, bool]] = {
    "MODEL.srb": (1, True),
    "MODEL.hd_u": (1, True),
    "MODEL.stu_iter": (1, True),
    "MODEL.prior_dropout": (0, True),
    "TRAIN.rendered": (0, True),
    "LOSS.stage_growth": (0, True),
    "TRAIN.rotate_train": (0, True),
    "TRAIN.lr_share": (0, True),
    "TRAIN.augment": (0, True),
    "TRAIN.batch_size": (1, True),
    "TRAIN.width": (8, True),
    "TRAIN.height": (8, True),
    "TRAIN.down_sample_scale": (1, True),
    "TRAIN.workers": (0, True),
    "TRAIN.target_cache_gb": (0, True),
    "TRAIN.epochs": (1, True),
    "TRAIN.steps": (0, True),
    "TRAIN.lr": (0, False),
    "TRAIN.lr_position": (0, False),
    "TRAIN.lr_images": (1, True),
    "TRAIN.step_epochs": (1, True),
    "TRAIN.step_factor": (0, False),
    "TRAIN.beta1": (0, True),
    "TRAIN.warmup": (0, True),
    "TRAIN.clip_grad": (0, True),
    "TRAIN.accumulate": (1, True),
    "TRAIN.seed": (0, True),
    "TRAIN.saveInterval": (1, True),
    "TRAIN.displayInterval": (1, True),
    "TRAIN.VAL.held_out": (0, False),
    "TRAIN.VAL.rendered": (1, True),
    "TRAIN.VAL.valInterval": (0, True),
    "TRAIN.VAL.n_vis": (0, True),
    "TEST.bootstrap_samples": (10, True),
    "TEST.psnr_batch_size": (1, True),
    "TEST.cases": (0, True),
}
# Largest allowed value of what is a share.
HIGHEST = {"MODEL.prior_dropout": 1.0, "TRAIN.warmup": 1.0, "TRAIN.VAL.held_out": 0.9, "TRAIN.beta1": 0.9999}
HIGHEST["TRAIN.step_factor"] = 1.0
HIGHEST |= {"TRAIN.lr_share": 1.0, "TRAIN.augment": 1.0}
HIGHEST["TRAIN.rendered"] = 100_000_000  # the order of an epoch is kept in memory
HIGHEST["TRAIN.rotate_train"] = 45.0
HIGHEST["TRAIN.seed"] = (1 << 63) - 1  # what every generator takes

# Keys of published configuration files that had no effect there. They are read and named in the log, not refused.
RETIRED_KEYS = {
    "TRAIN.cuda": "use --device",
    "TRAIN.ngpu": "use torchrun --nproc_per_node N",
    "TRAIN.adadelta": "use TRAIN.optimizer",
    "TRAIN.adam": "use TRAIN.optimizer",
    "TRAIN.manualSeed": "use TRAIN.seed",
    "TRAIN.keep_ratio": "pictures are always resized to width x height",
    "TRAIN.max_len": "it never left out a word",
    "TEST.checkpoint": "use --resume",
    "CONVERT": "use scripts/lmdb_tool.py",
}
# Flags of the published programs that did nothing there, or whose work another flag does.
RETIRED_FLAGS = {
    "--rec": "use --test_model",
    "--exp_name": "use --vis_dir",
    "--stroke_lambda": "use LOSS.weights.stroke, which is 100 times it",
    "--y_domain": "it did nothing",
    "--mixed": "it did nothing",
    "--ic15sr": "it did nothing",
    "--prob_insert": "it did nothing",
    "--rotate_test": "it did nothing",
    "--badset": "it did nothing",
    "--test_distorted_fusing": "it did nothing",
    "--results_rotate": "it did nothing",
    "--results_rotate_angle": "it did nothing",
    "--learning_STN": "it did nothing",
    "--mse_fuse": "it did nothing",
    "--for_cascading": "it did nothing",
    "--color_loss": "it did nothing",
    "--BiSR": "it did nothing",
    "--random_reso": "it crashed",
    "--CHNSR": "Chinese recognisers are not part of this program",
}
