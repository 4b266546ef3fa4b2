"""Which token settings keep the class? ``python experiments/replication/choose_tokens.py``: two minutes on a core.

Tokens are learned from four digits per class (seed 0) with one thing after the other changed. The judge of
``genaug verdict``, which knows all real training and validation images and no test image, says which share of 480 generated
images still shows its class. The table goes beside the records; what it chose stands in conf/generator/tokens/ti_tiny.yaml.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from genaug import compose
from genaug.data.sample import SyntheticSample
from genaug.evaluation.agreement import label_agreement

RELEASED = ("num_vectors=1", "learning_rate=0.002", "flip=true")
SETTINGS = {
    "as released: one vector, mirror images, rate .002": (RELEASED, (2, 4)),
    "without mirror images": ((*RELEASED[:2], "flip=false"), (4,)),
    "and four vectors, rate .01 (the demo's)": (("num_vectors=4", "learning_rate=0.01", "flip=false"), (4, 7.5)),
}
M = 12
PAGE = Path(__file__).parents[1] / "results" / "replication" / "tokens.md"


def main() -> None:
    whole = compose(["generator=none", "dataset.shots=null"]).dataset.load()
    rows = []
    for name, (tokens, guidances) in SETTINGS.items():
        config = compose(["dataset.shots=4", *(f"generator.tokens.{word}" for word in tokens)])
        dataset, prior = config.dataset.load(), config.prior.load("cpu")
        generator: Any = config.generator
        with tempfile.TemporaryDirectory() as folder:
            generator.fit(dataset, prior, Path(folder))
            for guidance in guidances:
                generator.guidance = guidance
                variants = generator.variants(dataset, M, "choose_tokens")
                made = generator.generate(variants, dataset, prior, Path(folder))
                samples = [
                    SyntheticSample(
                        id=g.variant.fingerprint, digest=f"{name}{guidance}{g.variant.fingerprint}", image=np.asarray(g.image),
                        label=g.variant.source.label, source_id=g.variant.source.id, index=g.variant.index,
                        about=g.variant.draws,
                    )
                    for g in made
                ]  # fmt: skip
                found = label_agreement(samples, [*whole.train, *whole.val], "pixels", Path(folder))
                assert found is not None
                levels = [f"{right / total:.0%}" for right, total in found.by_strength.values()]
                rows.append(f"| {name} | {guidance:g} | {' | '.join(levels)} |\n")
                print(rows[-1], end="", flush=True)
    heads = "| tokens | guidance | t0 = .25 | .5 | .75 | 1 |\n|---|---|---|---|---|---|\n"
    PAGE.write_text(heads + "".join(rows))


if __name__ == "__main__":
    main()
