"""A VAE trained on bytes in a file, however large: what memory an epoch takes."""

import argparse
import tempfile
import threading
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import fastelbo

FEATURES = 784
MIB = 1 << 20


def anonymous():
    """Memory of this process in MiB, as Linux tells it; pages of files do not count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


class Watch:
    """Memory on top of what there was, MiB over seconds, while the block runs."""

    def __enter__(self):
        self.seconds, self.memory, self._over = [], [], threading.Event()
        self._before, self._start = anonymous(), time.perf_counter()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self):
        while not self._over.wait(0.01):
            self.seconds.append(time.perf_counter() - self._start)
            self.memory.append(anonymous() - self._before)

    def __exit__(self, *error):
        self._over.set()
        self._thread.join()


def write(path, megabytes, rng):
    """Pictures of 0 and 1, a byte a pixel; the number of them."""
    count, portion = megabytes * MIB // FEATURES, 500  # little that the allocator would keep
    with open(path, "wb") as file:
        for start in range(0, count, portion):
            shape = min(portion, count - start), FEATURES
            (rng.random(shape, np.float32) < 0.2).astype(np.uint8).tofile(file)
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--megabytes", type=int, default=512, help="of the file; 4096 takes minutes"
    )
    parser.add_argument("--quick", action="store_true", help="48 of them")
    parser.add_argument("--output", default="memory_map.png")
    options = parser.parse_args()
    megabytes = 48 if options.quick else options.megabytes
    rng = np.random.default_rng(0)
    model = fastelbo.VAE(hidden=(32,), latent_dim=8, epochs=1, batch_size=1024, random_state=0)
    model.fit((rng.random((1024, FEATURES)) < 0.2).astype(np.uint8))  # what is made once is there

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures"
        count = write(path, megabytes, rng)
        pictures = np.memmap(path, np.uint8, "r", shape=(count, FEATURES))
        with Watch() as watch:
            model.fit(pictures)

    most = max(watch.memory, default=0.0)
    print(f"a file of {megabytes} MiB, {count} rows: an epoch of {watch.seconds[-1]:.1f} s")
    print(f"takes {most:.0f} MiB on top, of which {8 * count / MIB:.0f} are the order of the rows;")
    print(f"as float32 in memory it would be {4 * megabytes} MiB")

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(watch.seconds, watch.memory, label="on top, while it trains")
    axes.axhline(4 * megabytes, color="0.5", linestyle="--", label="all of it as float32")
    axes.set(
        yscale="log",
        ylim=(1, 10 * megabytes),
        xlabel="seconds",
        ylabel="MiB",
        title=f"An epoch over {megabytes} MiB",
    )
    axes.legend()
    figure.savefig(options.output, dpi=120)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
