"""Makes mel.npz: log-mel frames of a short noise by librosa, which is too heavy to be installed for a test.

pip install librosa && python tests/golden/make_mel.py
"""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np

FLOOR = 1e-10


def main() -> None:
    """Write the samples, and their frames for each rate and number of bands."""
    samples = np.random.default_rng(1).normal(0, 0.1, 2000).astype(np.float32)
    found = {"samples": samples}
    for rate, mels in ((8000, 40), (16_000, 80), (22_050, 64)):
        length, step = round(0.025 * rate), round(0.01 * rate)
        power = librosa.feature.melspectrogram(
            y=samples, sr=rate, n_fft=1 << (length - 1).bit_length(), hop_length=step, win_length=length, n_mels=mels,
            pad_mode="constant",
        )  # fmt: skip
        found[f"{rate}-{mels}"] = np.log(np.maximum(power.T, FLOOR)).astype(np.float32)
    np.savez_compressed(Path(__file__).with_name("mel.npz"), **found)


if __name__ == "__main__":
    main()
