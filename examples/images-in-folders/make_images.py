"""Write scikit-learn's digits as PNG files into a folder for each digit: my_images/0/0000.png ..."""

from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

PER_DIGIT = 40

pixels, labels = load_digits(return_X_y=True)
for digit in range(10):
    folder = Path("my_images") / str(digit)
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(pixels[labels == digit][:PER_DIGIT]):
        picture = Image.fromarray((image.reshape(8, 8) * 255 / 16).astype("uint8"))
        picture.resize((32, 32)).convert("RGB").save(folder / f"{number:04}.png")
