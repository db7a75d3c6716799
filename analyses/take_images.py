"""Copy some images of each class of an image folder, so that a study of them stays small.

``python analyses/take_images.py SOURCE DESTINATION`` reads SOURCE/train/CLASS/ and SOURCE/test/CLASS/ and writes, from
the files of each class in the order of their names, the first 1000 of train to DESTINATION/train, the next
100 of train to val, and the first 300 of test to test. The study cifar10-small evaluates 4000 images after every epoch
then, not 15000, which would cost more than its training on 10000.
"""

import argparse
import shutil
from pathlib import Path

PARTS = {"train": ("train", 0, 1000), "val": ("train", 1000, 1100), "test": ("test", 0, 300)}  # of each class


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    options = parser.parse_args()
    for part, (source, first, end) in PARTS.items():
        for folder in sorted(path for path in (options.source / source).iterdir() if path.is_dir()):
            place = options.destination / part / folder.name
            place.mkdir(parents=True, exist_ok=True)
            for file in sorted(folder.iterdir())[first:end]:
                shutil.copy2(file, place / file.name)
    print(options.destination)


if __name__ == "__main__":
    main()
