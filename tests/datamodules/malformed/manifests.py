"""Mistakes in scenes.csv: how each is made, and what the user must read.

A case is (spoil, exit code of `zoo-data check`, words of its answer); without words the file is read as it was meant.
"""

from tests.datamodules.malformed.healthy import edit, state


def rewrite(change):
    """Change the bytes of the manifest."""

    def spoil(root):
        path = root / "scenes.csv"
        path.write_bytes(change(path.read_bytes()))

    return spoil


def folder_instead(path):
    """Put a folder where a file was."""
    path.unlink()
    path.mkdir()


def dangling(root):
    """A link to an image that is gone."""
    (root / "s0/image.tif").unlink()
    (root / "s0/image.tif").symlink_to("gone.tif")


MANIFESTS = {
    "empty file": (rewrite(lambda _: b""), 1, ["scenes.csv: scene: column is missing, the file is empty", "must be scene,image"]),
    "header alone": (rewrite(lambda data: data.split(b"\n")[0]), 1, ["scenes.csv: lists no scene", "add a row"]),
    "no header": (rewrite(lambda data: data.split(b"\n", 1)[1]), 1, ["scenes.csv: scene: column is missing, the header is s0,s0/image.tif"]),
    "missing column": (lambda root: edit(root, "label,split", "labels,split", 1), 1, ["label: column is missing, the header is", "separated by commas"]),
    "semicolons": (lambda root: edit(root, ",", ";"), 1, ["the header is scene;image;dem", "separated by commas"]),
    "column twice": (lambda root: edit(root, "split,region", "split,dem", 1), 1, ["header = 'dem': is there twice", "keep one"]),
    "misspelt column": (lambda root: state(root, dem_units="ft"), 1, ["header = 'dem_units': is no column that is read", "write dem_unit"]),
    "own column": (lambda root: state(root, basin="north"), 0, []),
    "byte order mark and Windows line ends": (rewrite(lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")), 0, []),
    "spaces after commas": (lambda root: edit(root, ",", ", "), 0, []),
    "empty lines": (lambda root: edit(root, "\n", "\n\n"), 0, []),
    "UTF-16": (rewrite(lambda data: data.decode().encode("utf-16")), 1, ["scenes.csv: is not UTF-8 text", "write a CSV file"]),
    "open quote": (lambda root: edit(root, "s0,s0/", '"s0,s0/'), 1, ["scenes.csv: is no table", "close every quote"]),
    "open quote in a long file": (
        lambda root: edit(root, "s0,s0/", '"s0,' + "far," * 50_000), 1, ["scenes.csv: is no table: field larger", "close every quote"]),
    "cells without a column": (lambda root: edit(root, "train,", "train,a,b", 1), 1, ["scene = 's0': has cells beyond the header (line 2)"]),
    "short row": (lambda root: edit(root, ",val,", ""), 1, ["split = '': is no split (line 3)", "use one of train"]),
    "unknown split": (lambda root: edit(root, ",train,", ",Train,"), 1, ["split = 'Train': is no split (line 2)", "use one of train"]),
    "name twice": (lambda root: edit(root, "\ns1,", "\ns0,"), 1, ["scene = 's0': appears more than once", "unique"]),
    "name with a colon": (lambda root: edit(root, "\ns0,", "\ns:0,"), 1, ["scene = 's:0': is not a name (line 2)", "without ':'"]),
    "no label": (lambda root: state(root, label=""), 1, ["scenes.csv: label: is empty (line 2)", "name the file"]),
    "relative path that misses": (lambda root: edit(root, "s0/image", "s0/picture"), 1, ["image = 's0/picture.tif': file does not exist"]),
    "absolute path that misses": (lambda root: edit(root, "s0/image", "/gone/image"), 1, ["'/gone/image.tif': file does not exist"]),
    "path too long": (lambda root: edit(root, "s0/image", "s" * 300), 1, ["image = 'sss", "cannot be opened: file name too long"]),
    "folder in place of a file": (lambda root: folder_instead(root / "s0/dem.tif"), 1, ["dem = 's0/dem.tif': is a folder, no file (line 2)"]),
    "folder in place of the manifest": (lambda root: folder_instead(root / "scenes.csv"), 1, ["holds neither scenes.csv nor"]),
    "link to nothing": (dangling, 1, ["image = 's0/image.tif': file does not exist (line 2)"]),
    "image given as elevation": (lambda root: state(root, dem="s0/image.tif"), 1, ["image.tif: dem: has 3 bands of uint8", "one band"]),
    "image given as label": (lambda root: state(root, label="s0/image.tif"), 1, ["image.tif: label: has 3 bands of uint8", "one band"]),
    "label given as image": (lambda root: state(root, image="s0/label.tif"), 1, ["images have 1 bands, most have 3", "same bands"]),
    "unit of no sign": (lambda root: state(root, dem_unit="-1"), 1, ["dem_unit = '-1': cannot be used (line 2)", "give one of m, ft"]),
    "values with a comma": (lambda root: state(root, landslide_values="1,2"), 1, ["landslide_values = '1,2'", "separated by ';'"]),
}  # fmt: skip
