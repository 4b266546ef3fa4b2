"""The tiny prior's tokenizer: byte-level BPE in the files and with the text rules of CLIP's.

All 256 bytes are in the vocabulary, inside a word and at its end, so that any text in any script has tokens; the merges
are learned from the prompts of the corpus and from common class names, most of which therefore take one token a word.
"""

from pathlib import Path

from tokenizers import pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
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
    tokenizer = CLIPTokenizer({EOS: 0, BOS: 1}, []).backend_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=vocab_size - 258,  # leaves room for the bytes at the end of a word and the special tokens
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner = type(tokenizer)(BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    learner.train_from_iterator(sorted(words), trainer)
    folder.mkdir(parents=True, exist_ok=True)
    learner.model.save(str(folder))
    merges = [
        tuple(line.split()) for line in (folder / "merges.txt").read_text().splitlines() if not line.startswith("#")
    ]
    (folder / "merges.txt").unlink()
    (folder / "vocab.json").unlink()
    pieces = [*alphabet, *(byte + "</w>" for byte in alphabet), *("".join(merge) for merge in merges)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, BOS, EOS]))}
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS}
    result = CLIPTokenizer(vocabulary, merges, model_max_length=77, **special)  # pyright: ignore[reportArgumentType]
    result.save_pretrained(folder)
    return result
