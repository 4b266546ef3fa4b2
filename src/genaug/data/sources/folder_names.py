"""What the names of folders in data sets mean: splits, images, annotations; in any case and spelling."""

import re
import unicodedata

SPLITS = {
    "train": r"train|training|trn|tr",
    "trainval": r"trainval|trainvalid|trainvalidation|trainingvalidation",
    "val": r"val|valid|validation|validate|validating|dev|development",
    "test": r"test|testing|tst|eval|evaluation|holdout|heldout",
}
AROUND = r"(?:my|the|seg|set|data|dataset|images?|imgs?|split|folder|phase|\d+)*"
UNLABELLED = re.compile(rf"{AROUND}(?:pred|prediction|predictions|predict|unlabell?ed|unsup|unknown){AROUND}")
IMAGES = {"images", "image", "imgs", "img", "jpegimages", "jpgimages", "jpgs", "jpg", "jpegs", "pngs"}
ANNOTATIONS = {
    "annotations",
    "annotation",
    "attributes",
    "bboxes",
    "boundingboxes",
    "groundtruth",
    "groundtruths",
    "gt",
    "imagesets",
    "labels",
    "masks",
    "metadata",
    "parts",
    "segmentation",
    "segmentations",
    "segmentationclass",
    "segmentationobject",
    "trimaps",
    "xml",
    "xmls",
}


def split_of(name: str) -> str | None:
    """``train``, ``trainval``, ``val`` or ``test`` where a folder's name says so in any spelling."""
    plain = re.sub(r"[\W_]+", "", name.casefold())
    return next((split for split, words in SPLITS.items() if re.fullmatch(f"{AROUND}(?:{words}){AROUND}", plain)), None)


def nfc(name: str) -> str:
    """A name in the Unicode form NFC, in which "é" is one letter wherever the folder was made."""
    return unicodedata.normalize("NFC", name).strip()


def plain(name: str) -> str:
    """A name without case, blanks and punctuation, to compare it by."""
    return re.sub(r"[\W_]+", "", name.casefold())
