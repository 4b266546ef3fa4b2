"""The tiny prior's tokenizer: byte-level BPE in the files and with the text rules of CLIP's.

All 256 bytes are in the vocabulary, inside a word and at its end, so that any text in any script has tokens; the merges
are learned from the prompts of the corpus and from common class names, most of which therefore take one token a word.
"""

from collections import Counter
from itertools import pairwise
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from genaug.priors.corpus import COLOURS, DIGIT_WORDS, GENERIC_PROMPTS, MICROGRAPH_TEMPLATES, PROMPT_TEMPLATES, TEXTURES

BOS, EOS = "<|startoftext|>", "<|endoftext|>"

# Words a user's own class names and prompts are likely to hold: COCO and VOC classes, and some of other fields.
COMMON_WORDS = """
person bicycle car motorcycle airplane bus train truck boat traffic light fire hydrant stop sign parking meter bench
bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee skis snowboard
sports ball kite baseball bat glove skateboard surfboard tennis racket bottle wine glass cup fork knife spoon bowl
banana apple sandwich orange broccoli carrot hot pizza donut cake chair couch potted plant bed dining table toilet tv
laptop mouse remote keyboard cell phone microwave oven toaster sink refrigerator book clock vase scissors teddy hair
drier toothbrush aeroplane sofa monitor flower leaf tree house building ship red blood cell white platelet digit
number image picture photo painting texture healthy disease tumor normal defect scratch micrograph background scene
object computer small large with without and or in of on at over under near many two people black
""".split()


def save_tokenizer(folder: Path, vocab_size: int, subjects: list[str]) -> CLIPTokenizer:
    """Learns the merges and writes the tokenizer to `folder`; the same arguments give the same files.

    Args:
        vocab_size: upper bound of the number of tokens, 514 or more.
        subjects: class names of the corpus.
    """
    words = [
        *DIGIT_WORDS,
        *COLOURS,
        *TEXTURES,
        *COMMON_WORDS,
        *(word for name in set(subjects) for word in name.split()),
    ]
    prompts = [*PROMPT_TEMPLATES, *MICROGRAPH_TEMPLATES, *GENERIC_PROMPTS]
    words += [word for prompt in prompts for word in prompt.replace("{}", "").replace("-", " - ").split()]
    split = CLIPTokenizer({EOS: 0, BOS: 1}, []).backend_tokenizer
    counts = Counter(
        piece
        for word in words
        for piece, _ in split.pre_tokenizer.pre_tokenize_str(split.normalizer.normalize_str(word))
    )
    merges = learn_merges(counts, vocab_size - 514)
    alphabet = sorted(ByteLevel.alphabet())
    pieces = [*alphabet, *(byte + "</w>" for byte in alphabet), *("".join(merge) for merge in merges)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, BOS, EOS]))}
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS}
    result = CLIPTokenizer(vocabulary, merges, model_max_length=77, **special)  # pyright: ignore[reportArgumentType]
    result.save_pretrained(folder)
    return result


def learn_merges(counts: Counter[str], num_merges: int) -> list[tuple[str, str]]:
    """Byte-pair merges, the most frequent pair first and ties in alphabetical order (the trainer of `tokenizers` breaks them
    at random, which a resumable recipe cannot have); stops early when every word is one piece."""
    words = {word: [*word[:-1], word[-1] + "</w>"] for word in counts}
    merges = []
    while len(merges) < num_merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, pieces in words.items():
            for pair in pairwise(pieces):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for pieces in words.values():
            i = 0
            while i < len(pieces) - 1:
                if (pieces[i], pieces[i + 1]) == best:
                    pieces[i : i + 2] = ["".join(best)]
                i += 1
    return merges
