"""README's picture, docs/demo.png: what ``python -m fastelbo demo`` draws, smaller."""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

TARGET = Path(__file__).resolve().parents[1] / "demo.png"

with tempfile.TemporaryDirectory() as folder:
    subprocess.run([sys.executable, "-m", "fastelbo", "demo", "--output", folder], check=True)
    picture = Image.open(Path(folder) / "vae.png").convert("RGB")
picture.thumbnail((1000, 1000))
picture.quantize(160).save(TARGET, optimize=True)
