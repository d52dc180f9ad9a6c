import cv2
import numpy as np
import pytest

from dataset.degradation import SEVERITIES, add_noise, degrade, point_spread, severity_of, to_display, to_linear


def word(height: int = 48, width: int = 160) -> np.ndarray:
    picture = np.full((height, width, 3), (40, 60, 110), np.uint8)
    for x in range(12, width - 12, 18):
        cv2.rectangle(picture, (x, 8), (x + 7, height - 8), (235, 230, 220), -1)
    return picture


def psnr(lr: np.ndarray, hr: np.ndarray) -> float:
    large = cv2.resize(lr, hr.shape[1::-1], interpolation=cv2.INTER_CUBIC).astype(float)
    return 10 * np.log10(255**2 / np.mean((large - hr) ** 2))


@pytest.mark.parametrize("size", [(48, 160), (33, 51), (2, 2), (64, 17)])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_lr_is_half_the_size_uint8_and_not_a_view_of_hr(size, severity):
    hr = word(*size) if min(size) > 24 else np.full((*size, 3), 90, np.uint8)
    before = hr.copy()
    lr = degrade(hr, severity, np.random.default_rng(0))
    assert lr.shape == (size[0] // 2, size[1] // 2, 3)
    assert lr.dtype == np.uint8
    assert lr.flags.c_contiguous
    assert (hr == before).all()


def test_channels_stay_rgb():
    hr = np.zeros((32, 32, 3), np.uint8)
    hr[..., 0] = 200
    red, green, blue = degrade(hr, "easy", np.random.default_rng(1)).reshape(-1, 3).mean(0)
    assert red > 100 > max(green, blue)


def test_same_state_of_the_generator_same_bits():
    first, second = (degrade(word(), "hard", np.random.default_rng(5)) for _ in range(2))
    other = degrade(word(), "hard", np.random.default_rng(6))
    assert (first == second).all()
    assert (first != other).any()


def test_threads_of_opencv_change_no_bit():
    threads = cv2.getNumThreads()
    hr = np.random.default_rng(0).integers(
        0, 256, (512, 2048, 3), dtype=np.uint8
    )  # large enough to be cut into stripes
    try:
        results = []
        for count in (1, 2, 5):
            cv2.setNumThreads(count)
            results.append(
                [
                    degrade(hr[:h], severity, np.random.default_rng(h))
                    for h in (48, 512)
                    for severity in ("easy", "hard")
                ]
            )
    finally:
        cv2.setNumThreads(threads)
    for other in results[1:]:
        assert all((a == b).all() for a, b in zip(results[0], other, strict=True))


def test_severities_are_ordered():
    scores = {
        name: np.mean([psnr(degrade(word(), name, np.random.default_rng(i)), word()) for i in range(60)])
        for name in SEVERITIES
    }
    assert scores["easy"] > scores["medium"] > scores["hard"]
    assert scores["easy"] - scores["hard"] > 1.5  # dB


def test_a_severity_means_the_same_for_large_and_small_crops():
    small, large = word(32, 128), cv2.resize(word(32, 128), (256, 64), interpolation=cv2.INTER_CUBIC)
    scores = []
    for hr in (small, large):
        lrs = [degrade(hr, "medium", np.random.default_rng(i)) for i in range(60)]
        scores.append(np.mean([psnr(cv2.resize(lr, (64, 16), interpolation=cv2.INTER_AREA), small) for lr in lrs]))
    assert scores[0] == pytest.approx(scores[1], abs=1.0)


@pytest.mark.parametrize("disc", [False, True])
@pytest.mark.parametrize(
    ("sigma", "length", "angle"), [(0.0, 0.0, 0.0), (1.3, 0.0, 0.0), (0.8, 6.0, 0.0), (1.0, 5.0, np.pi / 2)]
)
def test_point_spread_keeps_the_light_and_has_the_asked_width(sigma, length, angle, disc):
    kernel = point_spread(sigma, length, angle, disc=disc)
    assert kernel.shape[0] == kernel.shape[1]
    assert kernel.shape[0] % 2 == 1
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    axis = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    for name, profile, along in (("x", kernel.sum(0), abs(np.cos(angle))), ("y", kernel.sum(1), abs(np.sin(angle)))):
        variance = max(sigma, 0.2) ** 2 + (along * length) ** 2 / 12  # of a uniform path
        if sigma > 0.5:
            assert (profile * axis**2).sum() == pytest.approx(variance, rel=0.25), name
        assert (profile * axis).sum() == pytest.approx(0, abs=1e-4)


def test_linear_light_and_back_is_the_identity():
    levels = np.arange(256, dtype=np.uint8)
    assert (np.rint(to_display(to_linear(levels))) == levels).all()


def test_noise_grows_with_the_light():
    rng = np.random.default_rng(0)
    dark, bright = (
        add_noise(np.full((64, 64, 3), level, np.float32), rng, shot=0.1, read=0.01).std() for level in (0.0, 1.0)
    )
    assert bright > 5 * dark > 0


def test_errors_name_value_and_way_out():
    with pytest.raises(ValueError, match=r"'brutal'.*easy, medium, hard"):
        severity_of("brutal")
    with pytest.raises(ValueError, match="brutal"):
        degrade(word(), "brutal", np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"float64 of shape \(4, 4\)"):
        degrade(np.zeros((4, 4)), "easy", np.random.default_rng(0))
